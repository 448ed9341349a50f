//! From a stream to a report.

use gpuev::span::{Limits, Spans};
use gpuev::{EventFacts, Gap, Item, Record};

use super::summary::{Report, Source};
use super::tally::Tally;

/// Sources that are told one by one.
const MOST_SOURCES: usize = 1000;

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
#[derive(Debug)]
pub struct Reporter {
    options: Options,
    spans: Spans,
    tally: Tally,
    sources: Vec<Source>,
    source_count: u64,
    observed_ns: u64,
    current: Option<Current>,
    /// Which boot it is, counted from 0.
    boot: u32,
}

/// The source that items come from.
#[derive(Debug, Clone, Copy)]
struct Current {
    from_unix_ns: Option<i64>,
    to_unix_ns: Option<i64>,
    /// Times of its first and last item.
    seen: Option<(i64, i64)>,
    end_boot_ns: u64,
}

impl Reporter {
    /// Nothing seen.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            spans: Spans::new(Limits::default()),
            tally: Tally::new(options),
            sources: Vec::new(),
            source_count: 0,
            observed_ns: 0,
            current: None,
            boot: 0,
        }
    }

    /// What follows is from `source`. What was open in the one before has no end.
    pub fn begin(&mut self, source: Source) {
        if self.end_source() && !self.same_boot(&source) {
            self.boot = self.boot.saturating_add(1);
        }
        self.start(source.from_unix_ns, source.to_unix_ns);
        self.source_count += 1;
        if self.sources.len() < MOST_SOURCES {
            self.sources.push(source);
        }
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
        self.see(facts.time.unix_ns, facts.time.received_boot_ns);
        let (tally, boot) = (&mut self.tally, self.boot);
        tally.event(boot, facts, record);
        self.spans.push_decoded(facts, record, |span| tally.span(boot, &span));
    }

    /// Takes the next gap.
    pub fn push_gap(&mut self, gap: &Gap) {
        self.see(gap.unix_ns, gap.to_boot_ns);
        let (tally, boot) = (&mut self.tally, self.boot);
        tally.gap(gap);
        self.spans.push_gap(gap, |span| tally.span(boot, &span));
    }

    /// What all came to.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.end_source();
        self.tally.into_report(self.sources, (self.source_count, self.observed_ns))
    }

    /// Two sources of one boot: the same pid is the same process.
    fn same_boot(&self, source: &Source) -> bool {
        let last = self.sources.last();
        source.boot_id.is_some() && last.is_some_and(|last| last.boot_id == source.boot_id)
    }

    fn start(&mut self, from_unix_ns: Option<i64>, to_unix_ns: Option<i64>) -> &mut Current {
        self.current.insert(Current { from_unix_ns, to_unix_ns, seen: None, end_boot_ns: 0 })
    }

    fn see(&mut self, unix_ns: i64, boot_ns: u64) {
        if self.current.is_none() {
            self.start(None, None);
        }
        if let Some(current) = &mut self.current {
            let (first, last) = current.seen.unwrap_or((unix_ns, unix_ns));
            current.seen = Some((first.min(unix_ns), last.max(unix_ns)));
            current.end_boot_ns = current.end_boot_ns.max(boot_ns);
        }
    }

    /// Closes what is open. Whether there was a source.
    fn end_source(&mut self) -> bool {
        let Some(current) = self.current.take() else { return false };
        let (tally, boot) = (&mut self.tally, self.boot);
        self.spans.finish(|span| tally.span(boot, &span));
        let seen_to = current.seen.map(|(_, last)| last);
        let from = current.from_unix_ns.or(current.seen.map(|(first, _)| first));
        let to = current.to_unix_ns.max(seen_to).map(|to| to.min(self.options.to_unix_ns));
        let from = from.map(|from| from.max(self.options.from_unix_ns));
        if let (Some(from), Some(to)) = (from, to) {
            let observed = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
            self.observed_ns = self.observed_ns.saturating_add(observed);
            let after = seen_to.map_or(0, |seen| to.saturating_sub(seen));
            let after = u64::try_from(after).unwrap_or(0);
            self.tally.close(current.end_boot_ns.saturating_add(after));
        }
        true
    }
}
