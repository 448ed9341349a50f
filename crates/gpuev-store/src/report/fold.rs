//! From a stream to a report.

use gpuev::{EventFacts, Gap, Item, Record};

use super::costs::Costs;
use super::counts::Counts;
use super::summary::{Report, Source};

/// What a report is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Entries of each list of the most frequent.
    pub top: usize,
    /// The time asked for, in nanoseconds since 1970: who watched longer, watched only that long for the report.
    pub from_unix_ns: i64,
    /// Its end.
    pub to_unix_ns: i64,
}

impl Default for Options {
    /// Ten entries, all time.
    fn default() -> Self {
        Self { top: 10, from_unix_ns: i64::MIN, to_unix_ns: i64::MAX }
    }
}

/// Makes a [`Report`] of items, in bounded memory.
///
/// It has two halves that know nothing of each other, so that each may have a thread of its own: what is counted
/// event by event, and what is paired.
#[derive(Debug)]
pub struct Reporter {
    counts: Counts,
    costs: Costs,
}

impl Reporter {
    /// Nothing seen.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { counts: Counts::new(options), costs: Costs::new(options) }
    }

    /// What follows is from `source`. What was open in the one before has no end.
    pub fn begin(&mut self, source: Source) {
        self.costs.begin(source.boot_id.as_deref());
        self.counts.begin(source);
    }

    /// Takes the next item.
    pub fn push(&mut self, item: &Item) {
        match item {
            Item::Event(event) => self.push_event(&event.facts(), &event.record()),
            Item::Gap(gap) => self.push_gap(gap),
        }
    }

    /// Takes the next event, `record` being what `facts.raw` decodes to.
    pub fn push_event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.counts.event(facts, record);
        self.costs.event(facts, record);
    }

    /// Takes the next gap.
    pub fn push_gap(&mut self, gap: &Gap) {
        self.counts.gap(gap);
        self.costs.gap(gap);
    }

    /// What all came to.
    #[must_use]
    pub fn finish(self) -> Report {
        self.counts.into_report(self.costs)
    }
}

/// Which boot of the machine it is: in another, the same pid is another process.
#[derive(Debug, Default)]
pub(super) struct Boots {
    number: u32,
    boot_id: Option<String>,
    is_seen: bool,
}

impl Boots {
    /// What follows is of this boot, where that is known.
    pub(super) fn begin(&mut self, boot_id: Option<&str>) {
        let is_same = boot_id.is_some() && boot_id == self.boot_id.as_deref();
        if self.is_seen && !is_same {
            self.number = self.number.saturating_add(1);
        }
        self.boot_id = boot_id.map(str::to_owned);
        self.is_seen = true;
    }

    /// There is something of it.
    pub(super) fn see(&mut self) {
        self.is_seen = true;
    }

    /// Counts from 0.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}
