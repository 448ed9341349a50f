//! An event or gap as a row, and back, without a bit of difference.
//!
//! A row keeps what cannot be had from the line: the driver's time, the pid and all else that the line says
//! is read from it again, by the code that read it the first time.

use gpuev::{
    Clock, Event, EventFacts, EventTime, EventView, Gap, GapCause, GpuId, Item, Record, decode,
};

use crate::named::NamedProcess;
use crate::value::{Text, bytes, signed, unsigned};

/// An item as it lies in the file, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    /// An event, and what its line decodes to.
    Event(EventFacts<'a>, Record<'a>),
    /// A gap.
    Gap(&'a Gap),
}

/// Where an item lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Its number: counts events and gaps in the order in which they were recorded.
    pub item: i64,
    /// The session that it is of: its times of `CLOCK_BOOTTIME` can be compared within that.
    pub session: i64,
}

impl Row<'_> {
    /// As an item of its own.
    #[must_use]
    pub fn to_item(&self) -> Item {
        match *self {
            Self::Event(facts, record) => Item::Event(EventView { facts, record }.into()),
            Self::Gap(gap) => Item::Gap(gap.clone()),
        }
    }

    /// The GPU that it is about.
    #[must_use]
    pub fn gpu(&self) -> GpuId {
        match self {
            Self::Event(facts, _) => facts.gpu,
            Self::Gap(gap) => gap.gpu,
        }
    }

    /// From when to when, in nanoseconds since 1970: a gap takes time, an event takes none.
    #[must_use]
    pub fn unix_range_ns(&self) -> (i64, i64) {
        match self {
            Self::Event(facts, _) => (facts.time.unix_ns, facts.time.unix_ns),
            Self::Gap(gap) => gap_range_ns(gap),
        }
    }
}

pub(crate) fn gap_range_ns(gap: &Gap) -> (i64, i64) {
    let length = gap.to_boot_ns.saturating_sub(gap.from_boot_ns);
    (gap.unix_ns.saturating_sub_unsigned(length), gap.unix_ns)
}

pub(crate) const INSERT_EVENT: &str = "INSERT INTO event
    (id, gpu, process, received_boot_ns, unix_ns, raw, type, seq, tid)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Executes [`INSERT_EVENT`]. `id`, `gpu` and `process` are the numbers of the rows.
pub(crate) fn insert_event(
    insert: &mut rusqlite::CachedStatement<'_>,
    (id, gpu, process, tid): (i64, i64, Option<i64>, Option<u32>),
    event: &Event,
) -> rusqlite::Result<()> {
    insert.execute((
        id,
        gpu,
        process,
        event.time.received_boot_ns.cast_signed(),
        event.time.unix_ns,
        Text(event.raw()),
        event.event_type().map(gpuev::EventType::id),
        event.seq.cast_signed(),
        tid,
    ))?;
    Ok(())
}

/// What [`read_event`] reads; the first ones are the first of the table, because SQLite walks over the rest.
pub(crate) const EVENT_COLUMNS: &str = "id, gpu, process, received_boot_ns, unix_ns, raw, seq";

/// The event from a row of [`EVENT_COLUMNS`].
pub(crate) fn read_event<'r>(
    row: &'r rusqlite::Row<'_>,
    gpu: GpuId,
    process: NamedProcess,
    doubtful: bool,
) -> rusqlite::Result<Row<'r>> {
    let received_boot_ns = unsigned(row.get_ref(3)?);
    let raw = bytes(row.get_ref(5)?);
    let record = decode(raw);
    let stamp = record.stamp();
    let time = EventTime {
        boot_ns: stamp.map_or(received_boot_ns, |stamp| stamp.boot_ns),
        clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
        received_boot_ns,
        unix_ns: signed(row.get_ref(4)?),
    };
    let seq = unsigned(row.get_ref(6)?);
    let pid = process.of_thread(&record);
    let comm = process.name;
    Ok(Row::Event(EventFacts { gpu, seq, time, doubtful, pid, comm, raw }, record))
}

pub(crate) const INSERT_GAP: &str = "INSERT INTO gap
    (id, gpu, cause, count, from_boot_ns, to_boot_ns, unix_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Executes [`INSERT_GAP`]. `id` and `gpu` are the numbers of the rows.
pub(crate) fn insert_gap(
    insert: &mut rusqlite::CachedStatement<'_>,
    (id, gpu): (i64, i64),
    gap: &Gap,
) -> rusqlite::Result<()> {
    insert.execute((
        id,
        gpu,
        gap.cause.name(),
        gap.count.map(u64::cast_signed),
        gap.from_boot_ns.cast_signed(),
        gap.to_boot_ns.cast_signed(),
        gap.unix_ns,
    ))?;
    Ok(())
}

pub(crate) const GAP_COLUMNS: &str = "id, gpu, cause, count, from_boot_ns, to_boot_ns, unix_ns";

/// The gap from a row of [`GAP_COLUMNS`].
pub(crate) fn read_gap(row: &rusqlite::Row<'_>, gpu: GpuId) -> rusqlite::Result<Gap> {
    let cause: String = row.get(2)?;
    let count: Option<i64> = row.get(3)?;
    Ok(Gap {
        gpu,
        cause: GapCause::from_name(&cause),
        count: count.map(i64::cast_unsigned),
        from_boot_ns: unsigned(row.get_ref(4)?),
        to_boot_ns: unsigned(row.get_ref(5)?),
        unix_ns: signed(row.get_ref(6)?),
    })
}
