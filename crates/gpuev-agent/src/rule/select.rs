//! Which signals a rule looks at, by kind and type: decided before anything is computed.

use gpuev::EventType;
use gpuev::span::SpanKind;

use crate::signal::{Signal, What};

/// One place for each kind and type of signal.
pub(super) const SLOTS: usize = 32;

const FIRST_SPAN: usize = 16;
const FIRST_RECORD: usize = 24;

/// Names of records that are neither event nor span.
pub(super) const RECORDS: [&str; 4] = ["gap", "health", "ras", "gpu"];

/// The slot of states.
const STATES: usize = FIRST_RECORD + 3;
/// The slot of readings.
const HEALTH: usize = FIRST_RECORD + 1;

/// Where a signal belongs.
pub(super) fn slot(signal: &Signal) -> usize {
    match &signal.what {
        What::Event(event) => event.event_type().map_or(0, event_slot),
        What::Aggregate(aggregate) => event_slot(aggregate.event_type),
        What::Span(span) => span_slot(span.kind()),
        What::Gap(_) => FIRST_RECORD,
        What::Health => HEALTH,
        What::RasErrors(_) => FIRST_RECORD + 2,
        What::Gpu(_) => STATES,
    }
}

/// Ids are 1 to 14; 0 is for what nobody has documented.
fn event_slot(event_type: EventType) -> usize {
    usize::try_from(event_type.id()).map_or(0, |id| id.min(FIRST_SPAN - 1))
}

fn span_slot(kind: SpanKind) -> usize {
    let place = SpanKind::ALL.iter().position(|one| *one == kind).unwrap_or(0);
    FIRST_SPAN + place
}

/// Kinds and types of signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Selection(u32);

impl Selection {
    /// Adds the events with this name.
    pub(super) fn add_event(&mut self, name: &str) -> bool {
        let slot = match name {
            "UNKNOWN" => Some(0),
            name => EventType::from_name(name).filter(|e| e.name() == name).map(event_slot),
        };
        self.add(slot)
    }

    /// Adds the spans with this name.
    pub(super) fn add_span(&mut self, name: &str) -> bool {
        self.add(SpanKind::from_name(name).filter(|kind| kind.name() == name).map(span_slot))
    }

    /// Adds the records with this name.
    pub(super) fn add_record(&mut self, name: &str) -> bool {
        let place = RECORDS.iter().position(|record| *record == name);
        self.add(place.map(|place| FIRST_RECORD + place))
    }

    fn add(&mut self, slot: Option<usize>) -> bool {
        self.0 |= slot.map_or(0, |slot| 1 << slot);
        slot.is_some()
    }

    /// Whether it takes what belongs to `slot`.
    pub(super) const fn has(self, slot: usize) -> bool {
        self.0 >> slot & 1 == 1
    }

    /// Whether all that it takes is taken by `other`.
    pub(super) const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The names of the events that it takes.
    pub(super) fn events(self) -> impl Iterator<Item = &'static str> {
        event_names().into_iter().filter(move |name| self.takes(Self::add_event, name))
    }

    /// The names of the spans that it takes.
    pub(super) fn spans(self) -> impl Iterator<Item = &'static str> {
        span_names().into_iter().filter(move |name| self.takes(Self::add_span, name))
    }

    /// The names of the records that it takes.
    pub(super) fn records(self) -> impl Iterator<Item = &'static str> {
        RECORDS.into_iter().filter(move |name| self.takes(Self::add_record, name))
    }

    fn takes(self, add: fn(&mut Self, &str) -> bool, name: &str) -> bool {
        let mut one = Self::default();
        add(&mut one, name) && one.is_within(self)
    }

    /// Whether it takes nothing.
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it takes states of GPUs, which last until another is told.
    pub(super) const fn has_states(self) -> bool {
        self.has(STATES)
    }

    /// Whether it takes nothing but states of GPUs.
    pub(super) const fn is_of_states(self) -> bool {
        self.0 == 1 << STATES
    }

    /// Whether it takes readings, which say that something is so, not that something happened.
    pub(super) const fn has_readings(self) -> bool {
        self.has(HEALTH)
    }
}

/// Whether `signal` is a reading.
pub(super) fn is_reading(signal: &Signal) -> bool {
    slot(signal) == HEALTH
}

/// The names of all events.
pub(super) fn event_names() -> Vec<&'static str> {
    EventType::ALL.iter().map(|event| event.name()).chain(["UNKNOWN"]).collect()
}

/// The names of all spans.
pub(super) fn span_names() -> Vec<&'static str> {
    SpanKind::ALL.iter().map(|kind| kind.name()).collect()
}
