//! Reading all of a history, for those who look at every event: batch by batch, as the writer packed it.

use std::ops::ControlFlow;

use gpuev::{Error, ErrorKind, EventFacts, EventType, Gap, GpuId, Record, Result, decode};
use rusqlite::Connection;

use crate::history::{History, Portion, read_doubtful, read_gaps};
use crate::named::{Named, NamedProcess};
use crate::packed::{Packed, PackedItem, Packer, SourceKey};
use crate::query::Query;
use crate::row::{EVENT_COLUMNS, Row};
use crate::value::{bytes, signed, unsigned};

/// Items that are read in one transaction, about.
const PORTION: i64 = 65_536;

/// The items of a batch. It needs no connection any more: another thread may look at it.
#[derive(Debug)]
pub(crate) struct Bulk {
    packed: Packed,
    /// As many as `packed` has.
    sources: Vec<Source>,
    /// The gaps among the events, and the session of each.
    gaps: Vec<(i64, Gap)>,
}

/// Where an event is from.
#[derive(Debug, Clone, Copy)]
struct Source {
    gpu: GpuId,
    session: i64,
    process: NamedProcess,
}

/// An item of a [`Bulk`].
pub(crate) enum BulkItem<'a> {
    /// An event, in place of whose line is what it decodes to.
    Event(EventFacts<'a>, Record<'a>),
    /// The beginning or end of a process that the query does not want: whose events those are that it wants,
    /// depends on it.
    Unwanted(EventFacts<'a>, Record<'a>),
    Gap(&'a Gap),
}

/// Not what a [`Packer`] packs.
#[derive(Debug)]
pub(crate) struct Damaged;

impl Bulk {
    /// Its sessions are known by other numbers, which `number` gives.
    pub(crate) fn renumber(&mut self, number: impl Fn(i64) -> i64) {
        self.sources.iter_mut().for_each(|source| source.session = number(source.session));
        self.gaps.iter_mut().for_each(|(session, _)| *session = number(*session));
    }

    /// Gives `take` each item that `query` wants, with its session.
    pub(crate) fn visit(
        &self,
        query: &Query,
        mut take: impl FnMut(i64, BulkItem<'_>),
    ) -> std::result::Result<(), Damaged> {
        let mut gaps = self.gaps.iter();
        for item in self.packed.items() {
            match item.ok_or(Damaged)? {
                PackedItem::Event(event) => {
                    let Source { gpu, session, process } =
                        *self.sources.get(event.source).ok_or(Damaged)?;
                    let facts = EventFacts {
                        gpu,
                        seq: 0,
                        time: event.time,
                        doubtful: event.doubtful,
                        pid: process.of_thread(&event.record),
                        comm: process.name,
                        raw: b"",
                    };
                    if query.wants_event(&facts, &event.record) {
                        take(session, BulkItem::Event(facts, event.record));
                    } else if is_turn(&event.record) {
                        take(session, BulkItem::Unwanted(facts, event.record));
                    }
                }
                PackedItem::Gap => {
                    let (session, gap) = gaps.next().ok_or(Damaged)?;
                    if query.wants(&Row::Gap(gap)) {
                        take(*session, BulkItem::Gap(gap));
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_turn(record: &Record<'_>) -> bool {
    matches!(record.event_type(), Some(EventType::ProcessStart | EventType::ProcessEnd))
}

impl History {
    /// Gives `take` all batches that may hold what `query` wants, in order.
    pub(crate) fn batches(
        &self,
        query: &Query,
        mut take: impl FnMut(Bulk) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut after = query.first_after();
        while let Some(portion) = self.portion(query, after, PORTION)? {
            for bulk in self.bulks(portion)? {
                if take(bulk.ok_or_else(|| damaged(&self.path().display().to_string()))?).is_break()
                {
                    return Ok(());
                }
            }
            after = portion.1;
        }
        Ok(())
    }

    /// The batches of a portion; `None` for one that is damaged.
    fn bulks(&self, portion: Portion) -> Result<Vec<Option<Bulk>>> {
        self.read(|connection| {
            let _snapshot = connection.unchecked_transaction()?;
            let mut named = self.named.take();
            let packed = if self.is_packed { "packed.events" } else { "NULL" };
            let join = if self.is_packed { "LEFT JOIN packed USING (last_item)" } else { "" };
            let mut select = connection.prepare_cached(&format!(
                "SELECT first_item - 1, last_item, {packed} FROM batch {join}
                 WHERE last_item > ?1 AND first_item <= ?2 ORDER BY last_item"
            ))?;
            let mut batches = select.query(portion)?;
            let mut bulks = Vec::new();
            while let Some(batch) = batches.next()? {
                let whole: Portion = (batch.get(0)?, batch.get(1)?);
                let part = (whole.0.max(portion.0), whole.1.min(portion.1));
                let bytes: Option<Vec<u8>> = batch.get(2)?;
                let bytes = match bytes {
                    Some(bytes) if part == whole => bytes,
                    _ => pack(connection, part)?,
                };
                bulks.push(match Packed::new(bytes) {
                    Some(packed) => Some(bulk(connection, &mut named, packed, part)?),
                    None => None,
                });
            }
            self.named.replace(named);
            Ok(bulks)
        })
    }
}

/// What a batch of this file is that cannot be unpacked.
pub(crate) fn damaged(file: &str) -> Error {
    let what = format!("read {file}: a batch of packed events is damaged");
    Error::new(ErrorKind::InvalidInput, what)
        .with_hint("`sqlite3 FILE 'DELETE FROM packed'` loses nothing: the rows are there")
}

/// Adds the names to packed events, and the gaps.
fn bulk(
    connection: &Connection,
    named: &mut Named,
    packed: Packed,
    portion: Portion,
) -> rusqlite::Result<Bulk> {
    let mut sources = Vec::with_capacity(packed.sources.len());
    for key in &packed.sources {
        let (gpu, session) = named.gpu(connection, key.gpu)?;
        sources.push(Source { gpu, session, process: named.process(connection, key.process)? });
    }
    let gaps = read_gaps(connection, named, portion)?;
    let gaps = gaps.into_iter().map(|(place, gap)| (place.session, gap)).collect();
    Ok(Bulk { packed, sources, gaps })
}

/// Packs rows, as the writer would have done.
fn pack(connection: &Connection, portion: Portion) -> rusqlite::Result<Vec<u8>> {
    let mut doubtful = read_doubtful(connection, portion)?;
    let mut gaps =
        connection.prepare_cached("SELECT id FROM gap WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
    let mut gaps = gaps.query_map(portion, |row| row.get::<_, i64>(0))?.peekable();
    let mut packer = Packer::default();
    let mut select = connection.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM event WHERE id > ?1 AND id <= ?2 ORDER BY id"
    ))?;
    let mut events = select.query(portion)?;
    while let Some(row) = events.next()? {
        let item = signed(row.get_ref(0)?);
        while gaps.next_if(|gap| gap.as_ref().is_ok_and(|gap| *gap < item)).is_some() {
            packer.push_gap();
        }
        let is_doubtful = doubtful.front() == Some(&item);
        if is_doubtful {
            doubtful.pop_front();
        }
        let (gpu, process) = (signed(row.get_ref(1)?), signed(row.get_ref(2)?));
        let times = (unsigned(row.get_ref(3)?), signed(row.get_ref(4)?));
        let raw = bytes(row.get_ref(5)?);
        let record = decode(raw);
        let key = SourceKey { gpu, process, pid: record.stamp().map_or(0, |stamp| stamp.pid) };
        packer.push(key, times, is_doubtful, (raw, &record));
    }
    for gap in gaps {
        gap?;
        packer.push_gap();
    }
    Ok(packer.finish().unwrap_or_else(|| vec![0]))
}
