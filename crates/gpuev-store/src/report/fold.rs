//! From a stream to a report.

use gpuev::{EventFacts, Gap, Item, Record};

use super::costs::{Costs, Pairing};
use super::counts::Counts;
use super::period::GpuCounts;
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
/// Its parts give each other nothing back, so that each may have a thread of its own: what is counted event by
/// event, what is paired, and what the pairs come to.
#[derive(Debug)]
pub struct Reporter {
    counts: Counts,
    pairing: Pairing,
    costs: Costs,
}

impl Reporter {
    /// Nothing seen.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let (counts, costs) = (Counts::new(options), Costs::new(options));
        Self { counts, pairing: Pairing::default(), costs }
    }

    /// What follows is from `source`. What was open in the one before has no end.
    pub fn begin(&mut self, source: Source) {
        let costs = &mut self.costs;
        self.pairing.begin(source.boot_id.as_deref(), |boot, span| costs.span(boot, &span));
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
        let costs = &mut self.costs;
        self.pairing.event(facts, record, |boot, span| costs.span(boot, &span));
    }

    /// Takes the next gap.
    pub fn push_gap(&mut self, gap: &Gap) {
        self.counts.gap(gap);
        let costs = &mut self.costs;
        self.pairing.gap(gap, |boot, span| costs.span(boot, &span));
    }

    /// What there is of each GPU so far.
    pub(super) fn gpus(&self) -> Vec<GpuCounts> {
        self.counts.gpus()
    }

    /// What all came to.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let costs = &mut self.costs;
        self.pairing.finish(|boot, span| costs.span(boot, &span));
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
