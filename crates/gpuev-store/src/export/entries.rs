//! The records of a history one by one: what is exported, for who reads it himself.

use std::collections::VecDeque;
use std::sync::Arc;

use gpuev::span::Span;
use gpuev::{Filter, Item, Result};

use super::pairs::Pairs;
use super::{Origin, Record};
use crate::histories::Histories;
use crate::query::Query;
use crate::recorded::RecordedSession;

/// An event, a gap, or what a start and its end come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A fact.
    Item(Item),
    /// What facts come to.
    Span(Span),
}

impl Entry {
    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Item(Item::Event(event)) => Record::Event(event, event.record()),
            Self::Item(Item::Gap(gap)) => Record::Gap(gap),
            Self::Span(span) => Record::Span(span),
        }
    }
}

/// The entries of histories in the order of an export, read as they are taken.
#[derive(Debug)]
pub struct Entries {
    entries: crate::Entries<Histories>,
    wanted: Filter,
    spans: Option<Pairs>,
    /// That of the session.
    origin: Origin,
    recorded: Option<Arc<RecordedSession>>,
    /// What is to be given before more is read.
    waiting: VecDeque<(Origin, Entry)>,
}

impl Entries {
    /// What passes `wanted` of the items that `query` gives. Starts and ends find each other before `wanted` is
    /// asked, as in an [`Exporter`](super::Exporter).
    #[must_use]
    pub fn new(histories: Histories, query: &Query, wanted: Filter) -> Self {
        let entries = histories.into_entries(query).without_notes();
        let (spans, waiting) = (Some(Pairs::default()), VecDeque::new());
        let origin = Origin::default();
        Self { entries, wanted, spans, origin, recorded: None, waiting }
    }

    /// The facts only: events and gaps.
    #[must_use]
    pub fn without_spans(mut self) -> Self {
        self.spans = None;
        self
    }

    /// The next entry and where it is from; `None` at the end, and from then on.
    ///
    /// # Errors
    /// Where the file cannot be read; nothing follows.
    pub fn next_entry(&mut self) -> Result<Option<(Origin, Entry)>> {
        while self.waiting.is_empty() {
            match self.entries.next_entry()? {
                Some(crate::Entry::Session(recorded)) => self.enter(recorded),
                Some(crate::Entry::Item(place, item)) => self.take(place.item, item),
                Some(crate::Entry::Note(_)) => {}
                None => {
                    self.finish_spans();
                    break;
                }
            }
        }
        Ok(self.waiting.pop_front())
    }

    fn enter(&mut self, recorded: Arc<RecordedSession>) {
        let Self { wanted, spans, waiting, origin, .. } = self;
        if let Some(spans) = spans {
            spans.begin(&recorded.session, |span| wait(waiting, wanted, origin, span));
        }
        *origin = Origin::of(recorded.id, &recorded.session, wanted);
        self.recorded = Some(recorded);
    }

    fn take(&mut self, number: i64, item: Item) {
        let Self { wanted, spans, waiting, origin, recorded, .. } = self;
        let passes = match &item {
            Item::Event(event) => wanted.passes(&event.facts(), &event.record()),
            Item::Gap(gap) => wanted.passes_gpu(gap.gpu),
        };
        let at = waiting.len();
        if let Some(spans) = spans {
            spans.push(&item, |span| wait(waiting, wanted, origin, span));
        }
        if passes {
            let item_number = recorded.as_ref().map(|recorded| recorded.number_of(number));
            let origin = Origin { item: item_number, ..origin.clone() };
            waiting.insert(at, (origin, Entry::Item(item)));
        }
    }

    fn finish_spans(&mut self) {
        let Self { wanted, spans, waiting, origin, .. } = self;
        if let Some(spans) = spans {
            spans.finish(|span| wait(waiting, wanted, origin, span));
        }
    }
}

fn wait(waiting: &mut VecDeque<(Origin, Entry)>, wanted: &Filter, origin: &Origin, span: Span) {
    if wanted.passes_span(&span) {
        waiting.push_back((origin.clone(), Entry::Span(span)));
    }
}
