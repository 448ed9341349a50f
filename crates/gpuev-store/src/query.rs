//! Which part of a history is wanted.

use gpuev::{EventFacts, Filter, GpuId, Record};

use crate::row::Row;

/// Which items of a history are wanted; the default is all, in the order in which they were recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    filter: Option<Filter>,
    from_unix_ns: Option<i64>,
    to_unix_ns: Option<i64>,
    after_item: i64,
    until_item: Option<i64>,
}

impl Query {
    /// Everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what passes `filter`.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = (filter != Filter::new()).then_some(filter);
        self
    }

    /// Only what happened at or after this time, in nanoseconds since 1970.
    #[must_use]
    pub fn from_unix_ns(mut self, from: i64) -> Self {
        self.from_unix_ns = Some(from);
        self
    }

    /// Only what happened before this time, in nanoseconds since 1970.
    #[must_use]
    pub fn to_unix_ns(mut self, to: i64) -> Self {
        self.to_unix_ns = Some(to);
        self
    }

    /// Only items after the one with this number: to go on where one stopped.
    #[must_use]
    pub fn after_item(mut self, id: i64) -> Self {
        self.after_item = id;
        self
    }

    /// Only items up to the one with this number.
    pub(crate) fn until_item(mut self, id: i64) -> Self {
        self.until_item = Some(id);
        self
    }

    pub(crate) fn last_until(&self) -> i64 {
        self.until_item.unwrap_or(i64::MAX)
    }

    /// The filter.
    pub(crate) fn wanted(&self) -> Filter {
        self.filter.clone().unwrap_or_default()
    }

    pub(crate) fn first_after(&self) -> i64 {
        self.after_item
    }

    /// The times that batches must touch.
    pub(crate) fn unix_range_ns(&self) -> (i64, i64) {
        (self.from_unix_ns.unwrap_or(i64::MIN), self.to_unix_ns.unwrap_or(i64::MAX))
    }

    /// As [`wants`](Self::wants), of an event that is decoded.
    pub(crate) fn wants_event(&self, facts: &EventFacts<'_>, record: &Record<'_>) -> bool {
        let unix_ns = facts.time.unix_ns;
        self.wants_time(unix_ns, unix_ns)
            && self.filter.as_ref().is_none_or(|filter| filter.passes(facts, record))
    }

    /// Whether a note of this GPU and time is wanted.
    pub(crate) fn wants_note(&self, gpu: GpuId, unix_ns: i64) -> bool {
        self.wants_time(unix_ns, unix_ns)
            && self.filter.as_ref().is_none_or(|filter| filter.passes_gpu(gpu))
    }

    fn wants_time(&self, from: i64, to: i64) -> bool {
        self.from_unix_ns.is_none_or(|wanted| to >= wanted)
            && self.to_unix_ns.is_none_or(|wanted| from < wanted)
    }

    pub(crate) fn wants(&self, row: &Row<'_>) -> bool {
        let (from, to) = row.unix_range_ns();
        self.wants_time(from, to)
            && self.filter.as_ref().is_none_or(|filter| match row {
                Row::Event(facts, record) => filter.passes(facts, record),
                Row::Gap(gap) => filter.passes_gpu(gap.gpu),
            })
    }
}
