//! An item as a row of a table: the columns, with their types and units.

use std::fmt;

use gpuev::message::Escaped;
use gpuev::{
    Access, Bdf, Event, EventData, FaultOutcome, Gap, GpuId, Item, Migration, UniqueId, names,
};

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
            Self::Text => "text",
            Self::Bool => "bool",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Time => "time",
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

/// An item, its line taken apart once.
pub(super) struct Row<'a> {
    gpu: GpuId,
    event: Option<&'a Event>,
    gap: Option<&'a Gap>,
    data: Option<EventData<'a>>,
}

impl<'a> Row<'a> {
    pub(super) fn of(item: &'a Item) -> Self {
        match item {
            Item::Event(event) => {
                Self { gpu: event.gpu, event: Some(event), gap: None, data: Some(event.data()) }
            }
            Item::Gap(gap) => Self { gpu: gap.gpu, event: None, gap: Some(gap), data: None },
        }
    }

    fn migration(&self) -> Option<Migration> {
        match self.data {
            Some(
                EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. },
            ) => Some(migration),
            _ => None,
        }
    }

    fn address(&self) -> Option<u64> {
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
        match self.data {
            Some(
                EventData::PageFaultStart { node, .. }
                | EventData::PageFaultEnd { node, .. }
                | EventData::QueueEviction { node, .. }
                | EventData::QueueRestore { node, .. }
                | EventData::UnmapFromGpu { node, .. },
            ) => Some(node),
            _ => None,
        }
    }

    fn trigger(&self) -> Option<Text<'a>> {
        let (name, number) = match self.data? {
            EventData::QueueEviction { trigger, .. } => (names::eviction_trigger(trigger), trigger),
            EventData::UnmapFromGpu { trigger, .. } => (names::unmap_trigger(trigger), trigger),
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

    fn reset(&self) -> Option<(u32, Option<&'a [u8]>)> {
        match self.data {
            Some(
                EventData::PreReset { sequence, cause } | EventData::PostReset { sequence, cause },
            ) => Some((sequence, cause)),
            _ => None,
        }
    }

    fn cause(&self) -> Option<Text<'a>> {
        match self.gap {
            Some(gap) => Some(Text::Word(gap.cause.name())),
            None => self.reset()?.1.map(Text::Bytes),
        }
    }

    fn count(&self) -> Option<u64> {
        match (self.gap, self.data) {
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

    fn message(&self) -> Option<Text<'a>> {
        self.event.map(Text::Event).or(self.gap.map(Text::Gap))
    }
}

fn access(access: Access) -> Text<'static> {
    Text::Word(if access == Access::Write { "write" } else { "read" })
}

fn outcome(outcome: FaultOutcome) -> Text<'static> {
    Text::Word(if outcome == FaultOutcome::Migrated { "migrated" } else { "mapped" })
}

fn text(value: Option<Text<'_>>) -> Cell<'_> {
    value.map_or(Cell::Null, Cell::Text)
}

fn word(value: Option<&'static str>) -> Cell<'static> {
    value.map_or(Cell::Null, |word| Cell::Text(Text::Word(word)))
}

fn number32(value: Option<u32>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::U32)
}

fn number64(value: Option<u64>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::U64)
}

fn time(row: &Row<'_>) -> Cell<'static> {
    let unix_ns = row.event.map(|event| event.time.unix_ns).or(row.gap.map(|gap| gap.unix_ns));
    unix_ns.map_or(Cell::Null, Cell::Time)
}

const BOOT: &str = "ns of CLOCK_BOOTTIME";

/// All columns, in order. New ones go to the end.
pub(super) const COLUMNS: &[Column] = &[
    column("record", Kind::Text, "", |row| {
        Cell::Text(Text::Word(if row.event.is_some() { "event" } else { "gap" }))
    }),
    column("time", Kind::Time, "ns since 1970, UTC", time),
    column("type", Kind::Text, "", |row| word(row.event.map(Event::type_name))),
    column("severity", Kind::Text, "", |row| word(row.event.map(|e| e.severity().name()))),
    column("gpu_index", Kind::U32, "", |row| Cell::U32(row.gpu.index)),
    column("bdf", Kind::Text, "", |row| Cell::Text(Text::Bdf(row.gpu.bdf))),
    column("unique_id", Kind::Text, "", |row| text(row.gpu.unique_id.map(Text::UniqueId))),
    column("partition", Kind::U32, "", |row| Cell::U32(row.gpu.partition)),
    column("seq", Kind::U64, "", |row| number64(row.event.map(|event| event.seq))),
    column("boot_ns", Kind::U64, BOOT, |row| number64(row.event.map(|e| e.time.boot_ns))),
    column("clock", Kind::Text, "", |row| word(row.event.map(|e| e.time.clock.name()))),
    column("received_boot_ns", Kind::U64, BOOT, |row| {
        number64(row.event.map(|event| event.time.received_boot_ns))
    }),
    column("pid", Kind::U32, "", |row| number32(row.event.and_then(Event::pid))),
    column("process", Kind::Text, "", |row| {
        text(row.event.and_then(Event::process).map(Text::Bytes))
    }),
    column("address", Kind::U64, "bytes", |row| number64(row.address())),
    column("size", Kind::U64, "bytes", |row| number64(row.size())),
    column("from", Kind::U32, "KFD GPU id", |row| number32(row.migration().map(|m| m.from))),
    column("to", Kind::U32, "KFD GPU id", |row| number32(row.migration().map(|m| m.to))),
    column("node", Kind::U32, "KFD GPU id", |row| number32(row.node())),
    column("trigger", Kind::Text, "", |row| text(row.trigger())),
    column("prefetch", Kind::U32, "KFD GPU id", |row| number32(row.prefetch_and_preferred().0)),
    column("preferred", Kind::U32, "KFD GPU id", |row| number32(row.prefetch_and_preferred().1)),
    column("access", Kind::Text, "", |row| match row.data {
        Some(EventData::PageFaultStart { access: wanted, .. }) => Cell::Text(access(wanted)),
        _ => Cell::Null,
    }),
    column("outcome", Kind::Text, "", |row| match row.data {
        Some(EventData::PageFaultEnd { outcome: how, .. }) => Cell::Text(outcome(how)),
        _ => Cell::Null,
    }),
    column("error", Kind::I32, "0 or a negative errno", |row| match row.data {
        Some(EventData::MigrateEnd { error: Some(error), .. }) => Cell::I32(error),
        _ => Cell::Null,
    }),
    column("rescheduled", Kind::Bool, "", |row| match row.data {
        Some(EventData::QueueRestore { rescheduled, .. }) => Cell::Bool(rescheduled),
        _ => Cell::Null,
    }),
    column("throttlers", Kind::U64, "SMU_THROTTLER bits", |row| number64(row.throttlers())),
    column("reasons", Kind::Text, "", |row| text(row.throttlers().map(Text::Throttlers))),
    column("count", Kind::U64, "", |row| number64(row.count())),
    column("sequence", Kind::U32, "", |row| number32(row.reset().map(|(sequence, _)| sequence))),
    column("cause", Kind::Text, "", |row| text(row.cause())),
    column("unknown_id", Kind::U32, "", |row| match row.data {
        Some(EventData::Unknown { id }) => number32(id),
        _ => Cell::Null,
    }),
    column("from_boot_ns", Kind::U64, BOOT, |row| number64(row.gap.map(|gap| gap.from_boot_ns))),
    column("to_boot_ns", Kind::U64, BOOT, |row| number64(row.gap.map(|gap| gap.to_boot_ns))),
    column("doubtful", Kind::Bool, "", |row| {
        row.event.map_or(Cell::Null, |event| Cell::Bool(event.doubtful))
    }),
    column("message", Kind::Text, "", |row| text(row.message())),
    column("raw", Kind::Text, "", |row| text(row.event.map(|event| Text::Bytes(event.raw())))),
];

const fn column(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    get: for<'a> fn(&Row<'a>) -> Cell<'a>,
) -> Column {
    Column { name, kind, unit, get }
}
