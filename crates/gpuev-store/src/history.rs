//! Reading a history, also while it is written.
//!
//! Items are read in portions, each a transaction of its own: a reader that takes hours, a replay say,
//! keeps the writer from nothing, and memory does not grow with the file.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gpuev::{Gap, Item, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::failure::failed;
use crate::named::Named;
use crate::open::read_only;
use crate::query::Query;
use crate::recorded::{RecordedSession, go_on, read_sessions};
use crate::row::{EVENT_COLUMNS, GAP_COLUMNS, Place, Row, read_event, read_gap};
use crate::schema::{FIRST_IDS, FIRST_NOTES, FIRST_PACKED};
use crate::uid::Uid;
use crate::value::signed;

/// Items of a transaction.
const PORTION: i64 = 65_536;

/// Items that an iterator holds.
const HELD: i64 = 1024;

/// A history, open for reading.
#[derive(Debug)]
pub struct History {
    connection: Connection,
    path: PathBuf,
    pub(crate) named: RefCell<Named>,
    version: u32,
    /// There is the table `packed`.
    pub(crate) is_packed: bool,
    /// There is the table `note`.
    pub(crate) has_notes: bool,
}

/// The items after the first number, up to the second.
pub(crate) type Portion = (i64, i64);

impl History {
    /// Opens the history at `path`.
    ///
    /// # Errors
    /// Where there is none, or what is there is something else, newer, truncated or damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let (connection, version) = read_only(path)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            named: RefCell::default(),
            version,
            is_packed: version >= FIRST_PACKED,
            has_notes: version >= FIRST_NOTES,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sessions, oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn sessions(&self) -> Result<Vec<RecordedSession>> {
        let mut sessions = self.read(|connection| read_sessions(connection, self.version))?;
        go_on(&mut sessions, &self.path);
        Ok(sessions)
    }

    /// What tells this file from every other; `None` in a version before 4.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn uid(&self) -> Result<Option<Uid>> {
        if self.version < FIRST_IDS {
            return Ok(None);
        }
        let select = "SELECT uid FROM store";
        let uid: Option<String> =
            self.read(|connection| connection.query_row(select, [], |row| row.get(0)).optional())?;
        Ok(uid.and_then(|uid| uid.parse().ok()))
    }

    /// What is wrong with the file, in SQLite's words; nothing where it is whole. Reads all of it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut check = connection.prepare("PRAGMA quick_check(20)")?;
            let found = check.query_map([], |row| row.get::<_, String>(0))?;
            let mut found: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
            found.retain(|text| text != "ok");
            Ok(found)
        })
    }

    /// From when to when there are items, in nanoseconds since 1970; `None` where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn unix_range_ns(&self) -> Result<Option<(i64, i64)>> {
        let select = "SELECT min(from_unix_ns), max(to_unix_ns) FROM batch";
        let range: (Option<i64>, Option<i64>) = self.read(|connection| {
            connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))
        })?;
        Ok(range.0.zip(range.1))
    }

    /// The number of the last item; 0 where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn last_item(&self) -> Result<i64> {
        let select = "SELECT coalesce(max(last_item), 0) FROM batch";
        self.read(|connection| connection.prepare_cached(select)?.query_row([], |row| row.get(0)))
    }

    /// When the last item was received of the batch that ends with `item` or before, where that is known.
    pub(crate) fn received_until(&self, item: i64) -> Result<Option<u64>> {
        if self.version < FIRST_IDS {
            return Ok(None);
        }
        let select =
            "SELECT boot_ns FROM batch WHERE last_item <= ?1 ORDER BY last_item DESC LIMIT 1";
        let received: Option<Option<i64>> = self
            .read(|connection| connection.query_row(select, [item], |row| row.get(0)).optional())?;
        Ok(received.flatten().map(i64::cast_unsigned))
    }

    /// The items that `query` wants, in order. At the end of the history it gives `None`; where more has been
    /// recorded since, it goes on when asked again.
    #[must_use]
    pub fn items(&self, query: &Query) -> Items<&Self> {
        Items::new(self, query)
    }

    /// As [`items`](Self::items), and keeps the history.
    #[must_use]
    pub fn into_items(self, query: &Query) -> Items<Self> {
        Items::new(self, query)
    }

    /// Gives `visit` each item that `query` wants without copying it. Returns the number of the last item that
    /// was looked at, to go on from ([`Query::after_item`]).
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn visit(
        &self,
        query: &Query,
        mut visit: impl FnMut(Place, Row<'_>) -> ControlFlow<()>,
    ) -> Result<i64> {
        let mut after = query.first_after();
        while let Some(portion) = self.portion(query, after, PORTION)? {
            let mut stopped_at = None;
            self.visit_portion(portion, |place, row| {
                if query.wants(&row) && visit(place, row).is_break() {
                    stopped_at = Some(place.item);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if let Some(item) = stopped_at {
                return Ok(item);
            }
            after = portion.1;
        }
        Ok(after)
    }

    /// The next items, at most `length` of them, that `query` may want; whole batches where they fit.
    pub(crate) fn portion(
        &self,
        query: &Query,
        after: i64,
        length: i64,
    ) -> Result<Option<Portion>> {
        let (from, to) = query.unix_range_ns();
        if after >= query.last_until() {
            return Ok(None);
        }
        self.read(|connection| {
            let select = "SELECT first_item, last_item FROM batch
                WHERE last_item > ?1 AND first_item <= ?4 AND to_unix_ns >= ?2 AND from_unix_ns < ?3
                ORDER BY last_item";
            let mut select = connection.prepare_cached(select)?;
            let until = query.last_until();
            let mut batches = select.query((after, from, to, until))?;
            let mut portion: Option<Portion> = None;
            while let Some(batch) = batches.next()? {
                let (first, last): (i64, i64) = (batch.get(0)?, batch.get(1)?);
                if first > until {
                    break;
                }
                let last = last.min(until);
                let (begin, end) = portion.unwrap_or((after.max(first - 1), first - 1));
                let limit = begin.saturating_add(length);
                if portion.is_some() && (end < first - 1 || last > limit) {
                    break;
                }
                portion = Some((begin, last.min(limit)));
            }
            Ok(portion)
        })
    }

    /// Gives `visit` each item of `portion`.
    pub(crate) fn visit_portion(
        &self,
        portion: Portion,
        mut visit: impl FnMut(Place, Row<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.read(|connection| {
            let _snapshot = connection.unchecked_transaction()?;
            // Taken, not borrowed: `visit` may read the history itself.
            let mut named = self.named.take();
            let mut gaps = read_gaps(connection, &mut named, portion)?;
            let mut doubtful = read_doubtful(connection, portion)?;
            let mut select = connection.prepare_cached(&format!(
                "SELECT {EVENT_COLUMNS} FROM event WHERE id > ?1 AND id <= ?2 ORDER BY id"
            ))?;
            let mut events = select.query(portion)?;
            let mut give = |place, row: Row<'_>| visit(place, row).is_break();
            while let Some(row) = events.next()? {
                let item = signed(row.get_ref(0)?);
                while gaps.front().is_some_and(|(place, _)| place.item < item) {
                    let gap = gaps.pop_front();
                    if gap.is_some_and(|(place, gap)| give(place, Row::Gap(&gap))) {
                        return Ok(());
                    }
                }
                let (gpu, session) = named.gpu(connection, signed(row.get_ref(1)?))?;
                let process = named.process(connection, signed(row.get_ref(2)?))?;
                let doubted = doubtful.front() == Some(&item);
                if doubted {
                    doubtful.pop_front();
                }
                if give(Place { item, session }, read_event(row, gpu, process, doubted)?) {
                    return Ok(());
                }
            }
            for (place, gap) in &gaps {
                if give(*place, Row::Gap(gap)) {
                    break;
                }
            }
            self.named.replace(named);
            Ok(())
        })
    }

    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        work(&self.connection).map_err(|error| failed("read", &self.path, &error))
    }
}

pub(crate) fn read_gaps(
    connection: &Connection,
    named: &mut Named,
    portion: Portion,
) -> rusqlite::Result<VecDeque<(Place, Gap)>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {GAP_COLUMNS} FROM gap WHERE id > ?1 AND id <= ?2 ORDER BY id"
    ))?;
    let gaps = select.query_map(portion, |row| {
        let (gpu, session) = named.gpu(connection, signed(row.get_ref(1)?))?;
        Ok((Place { item: row.get(0)?, session }, read_gap(row, gpu)?))
    })?;
    gaps.collect()
}

pub(crate) fn read_doubtful(
    connection: &Connection,
    portion: Portion,
) -> rusqlite::Result<VecDeque<i64>> {
    let select = "SELECT event FROM doubtful WHERE event > ?1 AND event <= ?2 ORDER BY event";
    connection.prepare_cached(select)?.query_map(portion, |row| row.get(0))?.collect()
}

/// Which items come next. Holds some hundred of them at a time.
#[derive(Debug)]
pub(crate) struct NextItems {
    query: Query,
    after: i64,
    held: VecDeque<(Place, Item)>,
    failed: bool,
}

impl NextItems {
    pub(crate) fn of(query: &Query) -> Self {
        let held = VecDeque::new();
        Self { after: query.first_after(), query: query.clone(), held, failed: false }
    }

    /// The next item and where it lies. Where the file cannot be read, nothing follows.
    pub(crate) fn next(&mut self, history: &History) -> Result<Option<(Place, Item)>> {
        while self.held.is_empty() && !self.failed {
            let portion = history.portion(&self.query, self.after, HELD);
            let filled = portion.and_then(|portion| match portion {
                Some(portion) => self.fill(history, portion).map(|()| true),
                None => Ok(false),
            });
            self.failed = filled.is_err();
            if !filled? {
                break;
            }
        }
        Ok(self.held.pop_front())
    }

    fn fill(&mut self, history: &History, portion: Portion) -> Result<()> {
        history.visit_portion(portion, |place, row| {
            if self.query.wants(&row) {
                self.held.push_back((place, row.to_item()));
            }
            ControlFlow::Continue(())
        })?;
        self.after = portion.1;
        Ok(())
    }
}

/// Items of a history. Holds some hundred of them at a time.
#[derive(Debug)]
pub struct Items<H> {
    history: H,
    next: NextItems,
}

impl<H: Borrow<History>> Items<H> {
    pub(crate) fn new(history: H, query: &Query) -> Self {
        Self { history, next: NextItems::of(query) }
    }

    /// The next item and where it lies.
    ///
    /// # Errors
    /// Where the file cannot be read; nothing follows.
    pub fn next_placed(&mut self) -> Result<Option<(Place, Item)>> {
        self.next.next(self.history.borrow())
    }
}

impl<H: Borrow<History>> Iterator for Items<H> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        Some(self.next_placed().transpose()?.map(|(_, item)| item))
    }
}
