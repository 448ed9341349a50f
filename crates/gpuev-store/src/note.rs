//! What the agent noticed of GPUs beside their events: how one was doing when something happened to it, and
//! counters of errors that rose. The record is kept as it was told, in the words of `docs/event-schema.md`.

use std::collections::VecDeque;

use gpuev::time::Anchor;
use gpuev::{GpuId, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::history::{History, Portion};
use crate::query::Query;
use crate::row::Place;
use crate::value::signed;

/// Notes that a reader holds, about.
const HELD: i64 = 1024;

/// Events wait for the names of their processes, and lie behind others that were read later: by no more than
/// this, in nanoseconds.
const LATE_NS: i64 = 1_000_000_000;

/// A record that is no event of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The GPU that it is about.
    pub gpu: GpuId,
    /// When.
    pub at: Anchor,
    /// The event that it was taken for.
    pub event: Option<NotedEvent>,
    /// What it is: `health` or `ras`.
    pub record: &'static str,
    /// All of it: the record of `docs/event-schema.md`.
    pub json: String,
}

/// An event, as those name it who do not know its number in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedEvent {
    /// Its place among its GPU's events.
    pub seq: u64,
    /// When it was read, in nanoseconds of `CLOCK_BOOTTIME`.
    pub received_boot_ns: u64,
}

/// A note of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedNote {
    /// Where it lies among the items: it counts with them.
    pub place: Place,
    /// The GPU that it is about.
    pub gpu: GpuId,
    /// When.
    pub at: Anchor,
    /// The number of the event that it was taken for, where that is in the history.
    pub event: Option<i64>,
    /// What it is: `health` or `ras`.
    pub record: String,
    /// All of it: the record of `docs/event-schema.md`.
    pub json: String,
}

/// Writes `note` as item `id`. `gpu` is the number of the GPU's row, `event` that of the event that it was taken for.
pub(crate) fn insert_note(
    connection: &Connection,
    (id, gpu): (i64, i64),
    note: &Note,
    event: Option<i64>,
) -> rusqlite::Result<()> {
    let insert = "INSERT INTO note VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(insert)?.execute((
        id,
        gpu,
        event,
        note.at.boot_ns.cast_signed(),
        note.at.unix_ns,
        note.record,
        &note.json,
    ))?;
    Ok(())
}

/// The number of the event `noted` of GPU `gpu`, which was written a moment ago in the session that began with
/// `first_item`: in another, another event has that place.
pub(crate) fn find(
    connection: &Connection,
    (gpu, first_item): (i64, i64),
    noted: NotedEvent,
) -> rusqlite::Result<Option<i64>> {
    let NotedEvent { seq, received_boot_ns } = noted;
    let oldest_ns = received_boot_ns.cast_signed().saturating_sub(LATE_NS);
    let select = "SELECT id, gpu, received_boot_ns, seq FROM event WHERE id >= ?1 ORDER BY id DESC";
    let mut select = connection.prepare_cached(select)?;
    let mut events = select.query([first_item])?;
    while let Some(event) = events.next()? {
        if signed(event.get_ref(2)?) < oldest_ns {
            break;
        }
        if signed(event.get_ref(1)?) == gpu && signed(event.get_ref(3)?) == seq.cast_signed() {
            return event.get(0).map(Some);
        }
    }
    Ok(None)
}

/// Notes of a history, in order. Holds some hundred of them at a time.
#[derive(Debug)]
pub struct Notes<'h> {
    history: &'h History,
    next: NextNotes,
}

/// Which notes come next.
#[derive(Debug)]
pub(crate) struct NextNotes {
    query: Query,
    after: i64,
    held: VecDeque<RecordedNote>,
}

impl History {
    /// The notes of the time and the GPUs that `query` wants. What else it asks of events is not asked of them.
    /// A history of a version before 3 has none.
    #[must_use]
    pub fn notes(&self, query: &Query) -> Notes<'_> {
        Notes { history: self, next: NextNotes::of(query) }
    }
}

impl Notes<'_> {
    /// The next note, if it lies before item number `item`; without that, the next at all.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_before(&mut self, item: Option<i64>) -> Result<Option<RecordedNote>> {
        self.next.before(self.history, item)
    }
}

impl NextNotes {
    pub(crate) fn of(query: &Query) -> Self {
        Self { after: query.first_after(), query: query.clone(), held: VecDeque::new() }
    }

    /// As [`Notes::next_before`].
    pub(crate) fn before(
        &mut self,
        history: &History,
        item: Option<i64>,
    ) -> Result<Option<RecordedNote>> {
        while self.held.is_empty() && history.has_notes {
            let Some(last) = self.fill(history)? else { break };
            self.after = last;
        }
        let is_next = |note: &RecordedNote| item.is_none_or(|item| note.place.item < item);
        Ok(if self.held.front().is_some_and(is_next) { self.held.pop_front() } else { None })
    }

    /// Takes the next portion of notes; `None` where there are no more.
    fn fill(&mut self, history: &History) -> Result<Option<i64>> {
        let Self { query, after, held } = self;
        let wanted = |note: &RecordedNote| query.wants_note(note.gpu, note.at.unix_ns);
        history.read(|connection| {
            let select = "SELECT max(id) FROM
                (SELECT id FROM note WHERE id > ?1 AND id <= ?3 ORDER BY id LIMIT ?2)";
            let mut select = connection.prepare_cached(select)?;
            let last: Option<i64> = select
                .query_row((*after, HELD, query.last_until()), |row| row.get(0))
                .optional()?
                .flatten();
            let Some(last) = last else { return Ok(None) };
            let notes = read(history, connection, (*after, last))?;
            held.extend(notes.into_iter().filter(wanted));
            Ok(Some(last))
        })
    }
}

fn read(
    history: &History,
    connection: &Connection,
    portion: Portion,
) -> rusqlite::Result<Vec<RecordedNote>> {
    let select = "SELECT id, gpu, event, boot_ns, unix_ns, record, json FROM note
        WHERE id > ?1 AND id <= ?2 ORDER BY id";
    let mut named = history.named.borrow_mut();
    let mut select = connection.prepare_cached(select)?;
    let notes = select.query_map(portion, |row| {
        let (gpu, session) = named.gpu(connection, row.get(1)?)?;
        Ok(RecordedNote {
            place: Place { item: row.get(0)?, session },
            gpu,
            event: row.get(2)?,
            at: Anchor { boot_ns: row.get::<_, i64>(3)?.cast_unsigned(), unix_ns: row.get(4)? },
            record: row.get(5)?,
            json: row.get(6)?,
        })
    })?;
    notes.collect()
}
