//! How events of a type are told: each, or many as one.

use std::collections::BTreeMap;
use std::fmt;

use gpuev::EventType;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How events of a type are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventMode {
    /// Each.
    Full,
    /// Of one GPU and process, each up to so many in a second, and the rest of that second as one.
    Aggregate {
        /// So many are told singly.
        above: u64,
    },
    /// Not at all: nobody hears of them, and the history has none.
    Off,
}

/// `[events]`: the mode of each type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    modes: BTreeMap<EventType, EventMode>,
}

/// Page faults and migrations come by the ten thousand, and one by one tell little.
const COMMON: EventMode = EventMode::Aggregate { above: 100 };
/// Evictions are few on a healthy machine, and each may matter.
const RARER: EventMode = EventMode::Aggregate { above: 1000 };

impl Default for Events {
    fn default() -> Self {
        use EventType as T;
        let mode = |event_type| match event_type {
            T::PageFaultStart
            | T::PageFaultEnd
            | T::MigrateStart
            | T::MigrateEnd
            | T::UnmapFromGpu => COMMON,
            T::QueueEviction | T::QueueRestore => RARER,
            _ => EventMode::Full,
        };
        Self { modes: EventType::ALL.into_iter().map(|t| (t, mode(t))).collect() }
    }
}

impl Events {
    /// How events of this type are told.
    #[must_use]
    pub fn mode(&self, event_type: EventType) -> EventMode {
        self.modes.get(&event_type).copied().unwrap_or(EventMode::Full)
    }

    /// With another mode for a type.
    #[must_use]
    pub fn with(mut self, event_type: EventType, mode: EventMode) -> Self {
        self.modes.insert(event_type, mode);
        self
    }

    /// The types that are not off.
    pub fn wanted(&self) -> impl Iterator<Item = EventType> + '_ {
        EventType::ALL.into_iter().filter(|event_type| self.mode(*event_type) != EventMode::Off)
    }
}

/// `{ aggregate_above = 100 }`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Above {
    aggregate_above: u64,
}

impl Serialize for EventMode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Full => to.serialize_str("full"),
            Self::Off => to.serialize_str("off"),
            Self::Aggregate { above: 0 } => to.serialize_str("aggregate"),
            Self::Aggregate { above } => Above { aggregate_above: above }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for EventMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ModeVisitor)
    }
}

struct ModeVisitor;

impl<'de> Visitor<'de> for ModeVisitor {
    type Value = EventMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"full\", \"aggregate\", \"off\" or { aggregate_above = 100 }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<EventMode, E> {
        match text {
            "full" => Ok(EventMode::Full),
            "aggregate" => Ok(EventMode::Aggregate { above: 0 }),
            "off" => Ok(EventMode::Off),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<EventMode, M::Error> {
        let above = Above::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Ok(EventMode::Aggregate { above: above.aggregate_above })
    }
}

impl Serialize for Events {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.modes.iter().map(|(event_type, mode)| (event_type.name(), mode)))
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(EventsVisitor)
    }
}

struct EventsVisitor;

impl<'de> Visitor<'de> for EventsVisitor {
    type Value = Events;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("event types with how they are told")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Events, M::Error> {
        let mut events = Events::default();
        while let Some(Named(event_type)) = map.next_key()? {
            events = events.with(event_type, map.next_value()?);
        }
        Ok(events)
    }
}

/// An event type by name. As a key of its own, so that an error is at the key's place.
struct Named(EventType);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        EventType::from_name(&name).map(Self).ok_or_else(|| {
            let names = EventType::ALL.map(EventType::name).join(", ");
            D::Error::custom(format!("no such event type: {name}; there are {names}"))
        })
    }
}
