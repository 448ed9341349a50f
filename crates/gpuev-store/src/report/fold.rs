//! From a stream to a report.

use gpuev::{EventFacts, Filter, Gap, Item, Record};

use crate::boots::Boots;

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
        let everything = Filter::new();
        let (counts, costs) = (Counts::new(options, everything.clone()), Costs::new(options));
        Self { counts, pairing: Pairing::new(everything), costs }
    }

    /// What follows is from `source`. What was open in the one before has no end.
    #[allow(clippy::needless_pass_by_value)] // most are made for this
    pub fn begin(&mut self, source: Source) {
        let costs = &mut self.costs;
        self.pairing.begin(&source, |boot, span| costs.span(boot, &span));
        costs.begin(self.pairing.boot(), source.host.as_deref());
        self.counts.begin(&source);
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

    /// The source goes on at least until then, in nanoseconds since 1970, whether anything happens or not.
    pub fn goes_on(&mut self, unix_ns: i64) {
        self.counts.goes_on(unix_ns);
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
        let unpaired = self.pairing.left_out();
        self.counts.into_report(self.costs, unpaired)
    }
}

/// Which boot of a machine the stream is of.
#[derive(Debug, Default)]
pub(super) struct Current {
    boots: Boots,
    boot: Option<u32>,
}

impl Current {
    /// What follows is of this boot, where that is known. Gives its number.
    pub(super) fn begin(&mut self, boot_id: Option<&str>) -> u32 {
        *self.boot.insert(self.boots.number(boot_id))
    }

    /// That of what came last; 0 where nothing came.
    pub(super) fn last(&self) -> u32 {
        self.boot.unwrap_or(0)
    }

    /// Counts from 0. What no source was told of is of a boot of its own.
    pub(super) fn boot(&mut self) -> u32 {
        match self.boot {
            Some(boot) => boot,
            None => self.begin(None),
        }
    }
}

/// Which machine boots are of: of two machines the GPUs at one address are two, whatever they are called.
#[derive(Debug, Default)]
pub(super) struct Machines {
    hosts: Vec<Option<String>>,
    /// By number of boot.
    of_boot: Vec<usize>,
}

impl Machines {
    /// A boot of the machine with this name begins, or goes on. Gives the number of the machine.
    pub(super) fn begin(&mut self, boot: u32, host: Option<&str>) -> usize {
        let known = self.hosts.iter().position(|known| known.as_deref() == host);
        let machine = known.unwrap_or_else(|| {
            self.hosts.push(host.map(str::to_owned));
            self.hosts.len() - 1
        });
        let boot = boot as usize;
        if self.of_boot.len() <= boot {
            self.of_boot.resize(boot + 1, machine);
        }
        self.of_boot[boot] = machine;
        machine
    }

    /// The machine of a boot; the first where nothing was said of it.
    pub(super) fn of_boot(&self, boot: u32) -> usize {
        self.of_boot.get(boot as usize).copied().unwrap_or(0)
    }

    /// The name of a machine, where there are several.
    pub(super) fn name(&self, machine: usize) -> Option<&str> {
        if self.hosts.len() < 2 {
            return None;
        }
        self.hosts.get(machine)?.as_deref()
    }
}
