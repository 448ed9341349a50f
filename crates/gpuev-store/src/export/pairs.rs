//! Spans of what was recorded in full: kinds of which a recorder left out starts or ends are not paired.

use gpuev::span::{Span, SpanKind, Spans};
use gpuev::{Event, Gap, Item, Record};

use crate::boots::Boots;
use crate::session::Session;

#[derive(Debug, Default)]
pub(super) struct Pairs {
    spans: Spans,
    boots: Boots,
    /// By kind: one half was left out.
    halves: [bool; SpanKind::ALL.len()],
}

impl Pairs {
    /// What follows is of this session; what is open is given to `done`.
    pub(super) fn begin(&mut self, session: &Session, done: impl FnMut(Span)) {
        self.spans.begin(self.boots.number(session.boot_id.as_deref()), done);
        self.halves = SpanKind::ALL.map(|kind| !session.filter.passes_both_ends_of(kind));
    }

    pub(super) fn push(&mut self, item: &Item, done: impl FnMut(Span)) {
        match item {
            Item::Event(event) => self.push_event(event, &event.record(), done),
            Item::Gap(gap) => self.push_gap(gap, done),
        }
    }

    /// The next event, and what its line decodes to.
    pub(super) fn push_event(
        &mut self,
        event: &Event,
        record: &Record<'_>,
        done: impl FnMut(Span),
    ) {
        let kind = record.event_type().and_then(SpanKind::of);
        if !kind.is_some_and(|kind| self.halves[kind as usize]) {
            self.spans.push_decoded(&event.facts(), record, done);
        }
    }

    pub(super) fn push_gap(&mut self, gap: &Gap, done: impl FnMut(Span)) {
        self.spans.push_gap(gap, done);
    }

    pub(super) fn finish(&mut self, done: impl FnMut(Span)) {
        self.spans.finish(done);
    }
}
