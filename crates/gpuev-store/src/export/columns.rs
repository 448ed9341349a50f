//! A record as a row of a table: the columns, with their types and units.

use std::fmt;

use gpuev::message::Escaped;
use gpuev::span::{Direction, Span, SpanData};
use gpuev::{Access, Bdf, Event, EventData, FaultOutcome, Gap, GpuId, Migration, UniqueId, names};

use super::{Origin, Record};
use crate::uid::Uid;

/// A column.
pub(super) struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// Unit and clock; empty where there is none.
    pub unit: &'static str,
    pub get: for<'a> fn(&Row<'a>) -> Cell<'a>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text of few values: a dictionary serves.
    Name,
    Text,
    Bool,
    I32,
    U32,
    U64,
    /// Nanoseconds since 1970.
    Time,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Text => "text",
            Self::Bool => "bool",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Time => "time",
        }
    }

    /// Bytes of a value; 0 where that is no fixed number of whole bytes.
    pub(super) const fn width(self) -> usize {
        match self {
            Self::Name | Self::Text | Self::Bool => 0,
            Self::I32 | Self::U32 => 4,
            Self::U64 | Self::Time => 8,
        }
    }
}

/// What stands in a row of a column.
#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    Null,
    Text(Text<'a>),
    Bool(bool),
    I32(i32),
    U32(u32),
    U64(u64),
    Time(i64),
}

/// Text that is not written yet. Bytes that are somebody else's are escaped as in JSON, so that they can
/// be had back.
#[derive(Clone, Copy)]
pub(super) enum Text<'a> {
    Word(&'static str),
    Bytes(&'a [u8]),
    Bdf(Bdf),
    UniqueId(UniqueId),
    Uid(Uid),
    Throttlers(u64),
    Number(i32),
    Event(&'a Event),
    Gap(&'a Gap),
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Word(word) => f.write_str(word),
            Self::Bytes(bytes) => Escaped(bytes).fmt(f),
            Self::Bdf(bdf) => bdf.fmt(f),
            Self::UniqueId(id) => id.fmt(f),
            Self::Uid(id) => id.fmt(f),
            Self::Throttlers(bits) => {
                let mut separator = "";
                for name in names::throttlers(bits) {
                    write!(f, "{separator}{name}")?;
                    separator = " ";
                }
                Ok(())
            }
            Self::Number(number) => number.fmt(f),
            Self::Event(event) => event.message().fmt(f),
            Self::Gap(gap) => gap.fmt(f),
        }
    }
}

/// A record, its line taken apart once.
pub(super) struct Row<'a> {
    origin: &'a Origin,
    record: Record<'a>,
    data: Option<EventData<'a>>,
}

impl<'a> Row<'a> {
    pub(super) fn of(record: Record<'a>, origin: &'a Origin) -> Self {
        let data = match record {
            Record::Event(_, record) => Some(EventData::of(&record)),
            _ => None,
        };
        Self { origin, record, data }
    }

    fn event(&self) -> Option<&'a Event> {
        match self.record {
            Record::Event(event, _) => Some(event),
            _ => None,
        }
    }

    fn gap(&self) -> Option<&'a Gap> {
        match self.record {
            Record::Gap(gap) => Some(gap),
            _ => None,
        }
    }

    fn span(&self) -> Option<&'a Span> {
        match self.record {
            Record::Span(span) => Some(span),
            _ => None,
        }
    }

    /// Its number in the session; a span has none.
    fn item(&self) -> Option<u64> {
        let item = self.origin.item.filter(|_| self.span().is_none());
        item.and_then(|item| item.try_into().ok())
    }

    fn kind(&self) -> &'static str {
        match self.record {
            Record::Event(..) => "event",
            Record::Gap(_) => "gap",
            Record::Span(_) => "span",
        }
    }

    fn gpu(&self) -> GpuId {
        match self.record {
            Record::Event(event, _) => event.gpu,
            Record::Gap(gap) => gap.gpu,
            Record::Span(span) => span.gpu,
        }
    }

    fn unix_ns(&self) -> Option<i64> {
        match self.record {
            Record::Event(event, _) => Some(event.time.unix_ns),
            Record::Gap(gap) => Some(gap.unix_ns),
            Record::Span(span) => span.time().map(|time| time.unix_ns),
        }
    }

    fn type_name(&self) -> Option<&'static str> {
        match self.record {
            Record::Event(event, _) => Some(event.type_name()),
            Record::Gap(_) => None,
            Record::Span(span) => Some(span.kind().name()),
        }
    }

    fn clock(&self) -> Option<&'static str> {
        match self.record {
            Record::Event(event, _) => Some(event.time.clock.name()),
            Record::Gap(_) => None,
            Record::Span(span) => Some(span.clock().name()),
        }
    }

    fn process(&self) -> Option<&'a [u8]> {
        match self.record {
            Record::Event(event, _) => event.process(),
            Record::Gap(_) => None,
            Record::Span(span) => span.process.bytes(),
        }
    }

    fn pid(&self) -> Option<u32> {
        match self.record {
            Record::Event(event, record) => event.facts().pid_in(&record),
            Record::Gap(_) => None,
            Record::Span(span) => span.pid,
        }
    }

    fn tid(&self) -> Option<u32> {
        match self.record {
            Record::Event(event, _) => event.tid(),
            Record::Gap(_) => None,
            Record::Span(span) => span.tid,
        }
    }

    fn span_data(&self) -> Option<SpanData> {
        self.span().map(|span| span.data)
    }

    fn migration(&self) -> Option<Migration> {
        if let Some(SpanData::Migration { migration, .. }) = self.span_data() {
            return Some(migration);
        }
        match self.data? {
            EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
                Some(migration)
            }
            _ => None,
        }
    }

    fn address(&self) -> Option<u64> {
        if let Some(SpanData::PageFault { address, .. }) = self.span_data() {
            return Some(address);
        }
        match self.data {
            Some(
                EventData::PageFaultStart { address, .. }
                | EventData::PageFaultEnd { address, .. }
                | EventData::UnmapFromGpu { address, .. },
            ) => Some(address),
            _ => self.migration().map(|migration| migration.address),
        }
    }

    fn size(&self) -> Option<u64> {
        match self.data {
            Some(EventData::UnmapFromGpu { size, .. }) => Some(size),
            _ => self.migration().map(|migration| migration.size),
        }
    }

    fn node(&self) -> Option<u32> {
        if let Some(SpanData::PageFault { node, .. } | SpanData::QueueEviction { node, .. }) =
            self.span_data()
        {
            return Some(node);
        }
        match self.data? {
            EventData::PageFaultStart { node, .. }
            | EventData::PageFaultEnd { node, .. }
            | EventData::QueueEviction { node, .. }
            | EventData::QueueRestore { node, .. }
            | EventData::UnmapFromGpu { node, .. } => Some(node),
            _ => None,
        }
    }

    fn trigger(&self) -> Option<Text<'a>> {
        let (name, number) = match (self.data, self.span_data()) {
            (Some(EventData::QueueEviction { trigger, .. }), _)
            | (_, Some(SpanData::QueueEviction { trigger: Some(trigger), .. })) => {
                (names::eviction_trigger(trigger), trigger)
            }
            (Some(EventData::UnmapFromGpu { trigger, .. }), _) => {
                (names::unmap_trigger(trigger), trigger)
            }
            _ => {
                let trigger = self.migration()?.trigger;
                (names::migrate_trigger(trigger), trigger)
            }
        };
        Some(name.map_or(Text::Number(number), Text::Word))
    }

    fn prefetch_and_preferred(&self) -> (Option<u32>, Option<u32>) {
        match self.data {
            Some(EventData::MigrateStart { prefetch, preferred, .. }) => (prefetch, preferred),
            _ => (None, None),
        }
    }

    fn access(&self) -> Option<&'static str> {
        let access = match (self.data, self.span_data()) {
            (Some(EventData::PageFaultStart { access, .. }), _) => access,
            (_, Some(SpanData::PageFault { access, .. })) => access?,
            _ => return None,
        };
        Some(if access == Access::Write { "write" } else { "read" })
    }

    fn outcome(&self) -> Option<&'static str> {
        match self.data {
            Some(EventData::PageFaultEnd { outcome: FaultOutcome::Migrated, .. }) => {
                Some("migrated")
            }
            Some(EventData::PageFaultEnd { .. }) => Some("mapped"),
            _ => self.span().map(|span| span.outcome.name()),
        }
    }

    fn error(&self) -> Option<i32> {
        match (self.data, self.span_data()) {
            (Some(EventData::MigrateEnd { error, .. }), _)
            | (_, Some(SpanData::Migration { error, .. })) => error,
            _ => None,
        }
    }

    fn sequence(&self) -> Option<u32> {
        match (self.data, self.span_data()) {
            (
                Some(EventData::PreReset { sequence, .. } | EventData::PostReset { sequence, .. }),
                _,
            )
            | (_, Some(SpanData::Reset { sequence, .. })) => Some(sequence),
            _ => None,
        }
    }

    fn cause(&self) -> Option<Text<'a>> {
        match self.record {
            Record::Gap(gap) => Some(Text::Word(gap.cause.name())),
            Record::Span(Span { data: SpanData::Reset { cause, .. }, .. }) => {
                cause.bytes().map(Text::Bytes)
            }
            _ => match self.data? {
                EventData::PreReset { cause, .. } | EventData::PostReset { cause, .. } => {
                    cause.map(Text::Bytes)
                }
                _ => None,
            },
        }
    }

    fn count(&self) -> Option<u64> {
        match (self.gap(), self.data) {
            (Some(gap), _) => gap.count,
            (_, Some(EventData::ThermalThrottle { count, .. })) => Some(count),
            _ => None,
        }
    }

    fn throttlers(&self) -> Option<u64> {
        match self.data {
            Some(EventData::ThermalThrottle { throttlers, .. }) => Some(throttlers),
            _ => None,
        }
    }

    fn doubtful(&self) -> Option<bool> {
        self.span().map_or_else(|| Some(self.event()?.doubtful), |span| Some(span.doubtful))
    }

    fn message(&self) -> Option<Text<'a>> {
        self.event().map(Text::Event).or_else(|| self.gap().map(Text::Gap))
    }
}

fn text(value: Option<Text<'_>>) -> Cell<'_> {
    value.map_or(Cell::Null, Cell::Text)
}

fn word(value: Option<&'static str>) -> Cell<'static> {
    value.map_or(Cell::Null, |word| Cell::Text(Text::Word(word)))
}

fn flag(value: Option<bool>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::Bool)
}

fn number32(value: Option<u32>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::U32)
}

fn number64(value: Option<u64>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::U64)
}

const BOOT: &str = "ns of CLOCK_BOOTTIME";
const NODE: &str = "KFD GPU id";

/// All columns, in order. New ones go to the end.
pub(super) const COLUMNS: &[Column] = &[
    column("record", Kind::Name, "", |row| word(Some(row.kind()))),
    column("session", Kind::U64, "", |row| {
        number64(row.origin.session.and_then(|number| number.try_into().ok()))
    }),
    column("time", Kind::Time, "ns since 1970, UTC", |row| {
        row.unix_ns().map_or(Cell::Null, Cell::Time)
    }),
    column("type", Kind::Name, "", |row| word(row.type_name())),
    column("severity", Kind::Name, "", |row| word(row.event().map(|e| e.severity().name()))),
    column("gpu_index", Kind::U32, "", |row| Cell::U32(row.gpu().index)),
    column("bdf", Kind::Name, "", |row| Cell::Text(Text::Bdf(row.gpu().bdf))),
    column("unique_id", Kind::Name, "", |row| text(row.gpu().unique_id.map(Text::UniqueId))),
    column("partition", Kind::U32, "", |row| Cell::U32(row.gpu().partition)),
    column("seq", Kind::U64, "", |row| number64(row.event().map(|event| event.seq))),
    column("boot_ns", Kind::U64, BOOT, |row| number64(row.event().map(|e| e.time.boot_ns))),
    column("clock", Kind::Name, "", |row| word(row.clock())),
    column("received_boot_ns", Kind::U64, BOOT, |row| {
        number64(row.event().map(|event| event.time.received_boot_ns))
    }),
    column("pid", Kind::U32, "", |row| number32(row.pid())),
    column("process", Kind::Name, "", |row| text(row.process().map(Text::Bytes))),
    column("tid", Kind::U32, "", |row| number32(row.tid())),
    column("thread", Kind::Name, "", |row| {
        text(row.event().and_then(Event::thread).map(Text::Bytes))
    }),
    column("address", Kind::U64, "bytes", |row| number64(row.address())),
    column("size", Kind::U64, "bytes", |row| number64(row.size())),
    column("from_node", Kind::U32, NODE, |row| number32(row.migration().map(|m| m.from))),
    column("to_node", Kind::U32, NODE, |row| number32(row.migration().map(|m| m.to))),
    column("node", Kind::U32, NODE, |row| number32(row.node())),
    column("trigger", Kind::Name, "", |row| text(row.trigger())),
    column("prefetch", Kind::U32, NODE, |row| number32(row.prefetch_and_preferred().0)),
    column("preferred", Kind::U32, NODE, |row| number32(row.prefetch_and_preferred().1)),
    column("access", Kind::Name, "", |row| word(row.access())),
    column("outcome", Kind::Name, "", |row| word(row.outcome())),
    column("error", Kind::I32, "0 or a negative errno", |row| {
        row.error().map_or(Cell::Null, Cell::I32)
    }),
    column("rescheduled", Kind::Bool, "", |row| match row.data {
        Some(EventData::QueueRestore { rescheduled, .. }) => Cell::Bool(rescheduled),
        _ => Cell::Null,
    }),
    column("throttlers", Kind::U64, "SMU_THROTTLER bits", |row| number64(row.throttlers())),
    column("reasons", Kind::Name, "", |row| text(row.throttlers().map(Text::Throttlers))),
    column("count", Kind::U64, "", |row| number64(row.count())),
    column("sequence", Kind::U32, "", |row| number32(row.sequence())),
    column("cause", Kind::Name, "", |row| text(row.cause())),
    column("unknown_id", Kind::U32, "", |row| match row.data {
        Some(EventData::Unknown { id }) => number32(id),
        _ => Cell::Null,
    }),
    column("from_boot_ns", Kind::U64, BOOT, |row| number64(row.gap().map(|gap| gap.from_boot_ns))),
    column("to_boot_ns", Kind::U64, BOOT, |row| number64(row.gap().map(|gap| gap.to_boot_ns))),
    column("start_boot_ns", Kind::U64, BOOT, |row| {
        number64(row.span().and_then(|span| Some(span.start?.boot_ns)))
    }),
    column("end_boot_ns", Kind::U64, BOOT, |row| {
        number64(row.span().and_then(|span| Some(span.end?.boot_ns)))
    }),
    column("duration_ns", Kind::U64, "ns", |row| number64(row.span().and_then(Span::duration_ns))),
    column("direction", Kind::Name, "", |row| {
        let migration = row.span().and_then(|_| row.migration());
        word(migration.map(|migration| Direction::of(&migration).name()))
    }),
    column("bytes_per_second", Kind::U64, "bytes/s", |row| {
        number64(row.span().and_then(Span::bytes_per_second))
    }),
    column("reschedules", Kind::U32, "", |row| match row.span_data() {
        Some(SpanData::QueueEviction { reschedules, .. }) => Cell::U32(reschedules),
        _ => Cell::Null,
    }),
    column("across_gap", Kind::Bool, "", |row| flag(row.span().map(|span| span.across_gap))),
    column("doubtful", Kind::Bool, "", |row| flag(row.doubtful())),
    column("message", Kind::Text, "", |row| text(row.message())),
    column("raw", Kind::Text, "", |row| text(row.event().map(|event| Text::Bytes(event.raw())))),
    column("session_id", Kind::Name, "", |row| text(row.origin.uid.map(Text::Uid))),
    column("item", Kind::U64, "", |row| number64(row.item())),
    column("only", Kind::Name, "", |row| {
        text(row.origin.filter.as_deref().map(|filter| Text::Bytes(filter.as_bytes())))
    }),
];

const fn column(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    get: for<'a> fn(&Row<'a>) -> Cell<'a>,
) -> Column {
    Column { name, kind, unit, get }
}
