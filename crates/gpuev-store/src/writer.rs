//! Writing a history.
//!
//! Items are collected into a transaction that is committed after so many rows or when the caller says so,
//! at least once a second. A commit is in the write-ahead log and synced (`synchronous = FULL`): with
//! `NORMAL` the log is synced at checkpoints only, and a power failure could take half a minute of
//! commits. Two syncs a second cost nothing that can be measured.

mod session;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpuev::process::Process;
use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, Event, EventFacts, EventTime, GpuId, Item, Life, Result, tid_of};
use rusqlite::{Connection, OpenFlags};

use crate::failure::failed;
use crate::file_system::FileSystem;
use crate::lock::{WriterLock, beside};
use crate::note::{self, Note, insert_note};
use crate::open::check_file;
use crate::packed::{Packer, SourceKey};
use crate::process::{ProcessKey, ProcessNumbers, Undescribed, describe};
use crate::retention::{Ages, Retention, When};
use crate::row::{INSERT_EVENT, INSERT_GAP, gap_range_ns, insert_event, insert_gap};
use crate::schema::{self, Found};
use crate::session::Session;

/// Rows of a transaction: more save little time and cost memory.
const BATCH_ROWS: u64 = 32_768;

/// Bytes of the log at which it is moved into the file.
const CHECKPOINT_BYTES: u32 = 32 << 20;

const PAGE_BYTES: u32 = 16_384;

/// The log is this small a part of what the file may take.
const LOG_SHARE: u64 = 8;

/// Bytes of a row with all that belongs to it, about.
const ROW_BYTES: u64 = 160;

/// Readers are waited for so long where they hold what a writer needs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A line is read at most so late; what tells otherwise is malformed.
const LATEST_NS: u64 = 3_600_000_000_000;

/// How long a session may go without a sign of life while nothing happens.
const ALIVE_EVERY: Duration = Duration::from_secs(60);

/// Writes items to a history. There is one at a time for a file.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    path: PathBuf,
    session: i64,
    /// The session goes on now, not in a text that is imported.
    is_live: bool,
    gpus: HashMap<GpuId, i64>,
    /// Its recorder left something out.
    is_filtered: bool,
    /// The session said which GPUs it began with.
    lists_gpus: bool,
    processes: ProcessNumbers,
    /// The first item of the session.
    first_item: i64,
    next_item: i64,
    /// The last sign of life that a text tells of.
    imported_alive: Option<Anchor>,
    /// The latest that an item of the session tells.
    seen: Option<Anchor>,
    batch: Option<Batch>,
    packer: Packer,
    retention: Retention,
    ages: Ages,
    /// When the row of the session was written.
    marked: Instant,
    batch_rows: u64,
    log_bytes: u64,
    broken: bool,
    /// Last: it is let go of when the connection is closed.
    _lock: WriterLock,
}

/// The items of a transaction.
#[derive(Debug, Clone, Copy)]
struct Batch {
    first_item: i64,
    rows: u64,
    from_unix_ns: i64,
    to_unix_ns: i64,
    to_boot_ns: u64,
    first_process: i64,
}

impl Writer {
    /// Opens the history at `path`, which is made where there is none, and begins a session in it.
    ///
    /// # Errors
    /// Where another writer has it, where it is something else than a history or a newer one, and where the
    /// system refuses.
    pub fn open(path: &Path, session: &Session) -> Result<Self> {
        Self::open_as(path, session, true)
    }

    /// As [`open`](Self::open), of a session that is over: an import.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn import(path: &Path, session: &Session) -> Result<Self> {
        Self::open_as(path, session, false)
    }

    fn open_as(path: &Path, session: &Session, is_live: bool) -> Result<Self> {
        if let Ok(there) = std::fs::metadata(path) {
            check_file(path, &there)?;
        }
        let lock = WriterLock::take(path)?;
        let mut connection = connect(path)?;
        schema::prepare(&mut connection, path)?;
        let mut writer = Self {
            connection,
            path: path.to_owned(),
            session: 0,
            is_live,
            gpus: HashMap::new(),
            is_filtered: false,
            lists_gpus: false,
            processes: ProcessNumbers::default(),
            first_item: 1,
            next_item: 1,
            imported_alive: None,
            seen: None,
            batch: None,
            packer: Packer::default(),
            retention: Retention::default(),
            ages: Ages::default(),
            marked: Instant::now(),
            batch_rows: BATCH_ROWS,
            log_bytes: u64::from(CHECKPOINT_BYTES),
            broken: false,
            _lock: lock,
        };
        writer.guard("begin a session in", |writer| {
            writer.begin_session(session)?;
            // The file by itself is a history from now on, whatever becomes of its log. Readers are not waited for.
            writer.connection.busy_timeout(Duration::ZERO)?;
            writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            writer.connection.busy_timeout(BUSY_TIMEOUT)
        })?;
        Ok(writer)
    }

    /// Ends the session, as an import does, and begins another in the same file.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn next_session(&mut self, session: &Session) -> Result<()> {
        self.next_session_after(None, session)
    }

    /// As [`next_session`](Self::next_session), where it is known when the one before ended.
    pub(crate) fn next_session_after(
        &mut self,
        ended: Option<Anchor>,
        session: &Session,
    ) -> Result<()> {
        self.commit()?;
        self.guard("begin a session in", |writer| {
            writer.close_session(ended)?;
            writer.begin_session(session)
        })
    }

    /// How much is kept; what is older goes as newer comes. Default: all.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        if let Some(max_bytes) = retention.max_bytes {
            let log_bytes =
                (max_bytes / LOG_SHARE).clamp(u64::from(PAGE_BYTES) * 4, self.log_bytes);
            self.log_bytes = log_bytes;
            self.batch_rows = (log_bytes / ROW_BYTES).clamp(64, BATCH_ROWS);
            // Neither can fail: both are numbers that SQLite only remembers.
            let _set = self.connection.pragma_update(
                None,
                "wal_autocheckpoint",
                (log_bytes / u64::from(PAGE_BYTES)).cast_signed(),
            );
            let _set =
                self.connection.pragma_update(None, "journal_size_limit", log_bytes.cast_signed());
        }
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Items since the last commit.
    #[must_use]
    pub fn uncommitted(&self) -> u64 {
        self.batch.map_or(0, |batch| batch.rows)
    }

    /// Bytes on disk, the log included.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(&self.path) + size(&beside(&self.path, "-wal"))
    }

    /// Bytes of the log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(beside(&self.path, "-wal")).map_or(0, |metadata| metadata.len())
    }

    /// Whether a reader keeps the log from being moved into the file: it holds one snapshot for long, and the log
    /// grows as long as it does.
    #[must_use]
    pub fn is_log_held(&self) -> bool {
        self.log_bytes() > self.log_bytes.saturating_mul(2)
    }

    /// Adds `item`. It is safe with the next [`commit`](Self::commit), which happens by itself every some
    /// ten thousand items. The times of an event are those of its line where it has one, see
    /// [`EventFacts::time`].
    ///
    /// # Errors
    /// Where the disk is full or fails. What was committed is safe; the writer takes nothing more.
    pub fn append(&mut self, item: &Item) -> Result<()> {
        self.guard("write to", |writer| writer.insert(item))?;
        if self.uncommitted() >= self.batch_rows {
            self.commit()?;
        }
        Ok(())
    }

    /// As [`append`](Self::append), of an item that has this number in its session already: a copy. Numbers rise; one
    /// that does not is the next.
    pub(crate) fn append_numbered(&mut self, item: &Item, number: Option<i64>) -> Result<()> {
        let id = number.map(|number| (self.first_item - 1).saturating_add(number));
        if let Some(id) = id.filter(|id| *id > self.next_item) {
            if self.next_item == self.first_item && !self.is_filtered {
                self.guard("write to", |writer| writer.begin_at(id, item))?;
            }
            self.next_item = id;
        }
        self.append(item)
    }

    /// Adds `note`, as [`append`](Self::append) does with items. The event that it was taken for is found where
    /// that was added before.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_note(&mut self, note: &Note) -> Result<()> {
        let event = self.event_of(note)?;
        self.append_note_of(note, event)
    }

    /// As [`append_note`](Self::append_note), where [`event_of`](Self::event_of) is known.
    pub(crate) fn append_note_of(&mut self, note: &Note, event: Option<i64>) -> Result<()> {
        self.guard("write to", |writer| writer.insert_note(note, event))
    }

    /// The number of the event that `note` was taken for, where that was added before.
    pub(crate) fn event_of(&mut self, note: &Note) -> Result<Option<i64>> {
        let Some(noted) = note.event else { return Ok(None) };
        let mut found = None;
        self.guard("write to", |writer| {
            let gpu = writer.gpu_number(note.gpu, noted.received_boot_ns)?;
            found = note::find(&writer.connection, (gpu, writer.first_item), noted)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Makes what was added safe from a crash and from power failure.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn commit(&mut self) -> Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.guard("commit to", Self::commit_batch)?;
        self.apply_retention(When::Commit)
    }

    /// What is to be done while nothing happens: the session shows that it is alive, and what has become too old
    /// goes. Gives how long it may take until the next time.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn tick(&mut self) -> Result<Duration> {
        let every = self.retention.max_age.map_or(ALIVE_EVERY, |age| age.min(ALIVE_EVERY));
        let every = every.max(Duration::from_secs(1));
        let since = self.marked.elapsed();
        if since < every {
            return Ok(every - since);
        }
        self.guard("write to", |writer| {
            writer.begin()?;
            writer.commit_batch()
        })?;
        self.apply_retention(When::Idle)?;
        Ok(every)
    }

    /// A commit looks at the clocks of what is recorded, whatever the wall clock did; only where nothing is
    /// recorded the present tells how old it is.
    fn apply_retention(&mut self, when: When) -> Result<()> {
        let Some(now) = (match when {
            When::Commit => self.seen,
            When::Idle => Some(Anchor::now()),
        }) else {
            return Ok(());
        };
        self.guard("delete old items from", |writer| {
            let Self { retention, ages, connection, session, log_bytes, .. } = writer;
            retention.apply(connection, *session, (ages, now, when), *log_bytes)
        })
    }

    /// Ends the session: commits, moves the log into the file and leaves one file that can be copied, also
    /// where it cannot be written.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn close(mut self) -> Result<()> {
        self.close_at(Some(Anchor::now()))
    }

    /// As [`close`](Self::close), of a session that is no live one: an import.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn close_import(mut self) -> Result<()> {
        self.close_at(None)
    }

    /// As [`close`](Self::close), of a session that ended at another time, or nobody knows when.
    pub(crate) fn close_at(&mut self, ended: Option<Anchor>) -> Result<()> {
        self.commit()?;
        self.guard("finish", |writer| {
            writer.close_session(ended)?;
            writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })?;
        // Readers that are at it keep the log alive; it is empty, and goes with the last of them.
        let _kept = self.connection.pragma_update(None, "journal_mode", "DELETE");
        self.broken = true;
        Ok(())
    }

    /// Processes of which only pid and name are known so far; each is named once.
    pub(crate) fn take_undescribed(&mut self) -> Vec<Undescribed> {
        self.processes.take_undescribed()
    }

    /// Adds what is known of a process.
    pub(crate) fn describe(&mut self, number: i64, process: &Process) -> Result<()> {
        self.guard("write to", |writer| {
            writer.begin()?;
            describe(&writer.connection, number, process)
        })
    }

    /// Does `work`; where it fails, goes back to the last commit and takes nothing more.
    fn guard(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> Result<()> {
        if self.broken {
            let what = format!("{what} {}", self.path.display());
            return Err(Error::new(ErrorKind::Stopped, what)
                .with_hint("recording ended with an earlier failure"));
        }
        work(self).map_err(|error| {
            self.broken = true;
            self.batch = None;
            if !self.connection.is_autocommit() {
                let _rolled_back_by_sqlite = self.connection.execute_batch("ROLLBACK");
            }
            failed(what, &self.path, &error)
        })
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    fn insert(&mut self, item: &Item) -> rusqlite::Result<()> {
        self.begin()?;
        let batch = self.open_batch();
        let (from_unix_ns, at) = match item {
            Item::Event(event) => self.insert_event(event)?,
            Item::Gap(gap) => {
                let numbers = (self.next_item, self.gpu_number(gap.gpu, gap.from_boot_ns)?);
                insert_gap(&mut self.connection.prepare_cached(INSERT_GAP)?, numbers, gap)?;
                self.packer.push_gap();
                self.processes.lives.gap(gap);
                let at = Anchor { boot_ns: gap.to_boot_ns, unix_ns: gap.unix_ns };
                (gap_range_ns(gap).0, at)
            }
        };
        self.count(batch, from_unix_ns, at);
        Ok(())
    }

    /// What is copied begins with the item with number `id`, which is `item`: those before it are not there.
    fn begin_at(&mut self, id: i64, item: &Item) -> rusqlite::Result<()> {
        let until_ns = match item {
            Item::Event(event) => event.time.received_boot_ns,
            Item::Gap(gap) => gap.from_boot_ns,
        };
        self.begin()?;
        let insert = "INSERT INTO not_kept (last_item, first_item, session, cause, to_boot_ns)
            VALUES (?1, ?2, ?3, 'import', ?4)";
        self.connection.prepare_cached(insert)?.execute((
            id - 1,
            self.first_item,
            self.session,
            until_ns.cast_signed(),
        ))?;
        Ok(())
    }

    fn insert_note(&mut self, note: &Note, event: Option<i64>) -> rusqlite::Result<()> {
        self.begin()?;
        let batch = self.open_batch();
        let numbers = (self.next_item, self.gpu_number(note.gpu, note.at.boot_ns)?);
        insert_note(&self.connection, numbers, note, event)?;
        self.count(batch, note.at.unix_ns, note.at);
        Ok(())
    }

    /// The batch of the next item. Made before that is written: it may need a process with a new number.
    fn open_batch(&mut self) -> Batch {
        *self.batch.get_or_insert(Batch {
            first_item: self.next_item,
            rows: 0,
            from_unix_ns: i64::MAX,
            to_unix_ns: i64::MIN,
            to_boot_ns: 0,
            first_process: self.processes.first(),
        })
    }

    /// The next item is written: it began at `from_unix_ns` and was over `at`.
    fn count(&mut self, batch: Batch, from_unix_ns: i64, at: Anchor) {
        self.next_item += 1;
        self.batch = Some(Batch {
            rows: batch.rows + 1,
            from_unix_ns: batch.from_unix_ns.min(from_unix_ns),
            to_unix_ns: batch.to_unix_ns.max(at.unix_ns),
            to_boot_ns: batch.to_boot_ns.max(at.boot_ns),
            ..batch
        });
        if self.seen.is_none_or(|seen| seen.boot_ns <= at.boot_ns) {
            self.seen = Some(at);
        }
    }

    /// Gives when it happened, and when it was received by either clock.
    fn insert_event(&mut self, event: &Event) -> rusqlite::Result<(i64, Anchor)> {
        let gpu = self.gpu_number(event.gpu, event.time.received_boot_ns)?;
        let facts = event.facts();
        let EventFacts { comm, doubtful, raw, time, .. } = facts;
        let record = event.record();
        let seen_ns = time.received_boot_ns;
        let life = match facts.owner_in(&record) {
            Some(owner) => self.processes.lives.of(event.gpu, owner, record.event_type(), seen_ns),
            None => Life::default(),
        };
        let pid = facts.pid_in(&record);
        let process = match pid {
            Some(pid) => {
                let key = ProcessKey { pid, life, name: comm };
                Some(self.processes.number(&self.connection, self.session, key, seen_ns)?)
            }
            None => None,
        };
        let mut insert = self.connection.prepare_cached(INSERT_EVENT)?;
        insert_event(&mut insert, (self.next_item, gpu, process, tid_of(&record)), event)?;
        let source = SourceKey {
            gpu,
            process: process.unwrap_or(0),
            pid: record.stamp().map_or(0, |stamp| stamp.pid),
        };
        let times = (time.received_boot_ns, time.unix_ns);
        self.packer.push(source, times, doubtful, (raw, &record));
        if doubtful {
            let insert = "INSERT INTO doubtful VALUES (?1)";
            self.connection.prepare_cached(insert)?.execute([self.next_item])?;
        }
        let EventTime { boot_ns, received_boot_ns, unix_ns, .. } = event.time;
        // Wall time of receipt, unless a line tells a time that cannot be.
        let late_ns = received_boot_ns.saturating_sub(boot_ns).min(LATEST_NS);
        let received_unix_ns = unix_ns.saturating_add_unsigned(late_ns);
        Ok((unix_ns, Anchor { boot_ns: received_boot_ns, unix_ns: received_unix_ns }))
    }

    /// The number of a GPU. One that the session did not begin with came at `since_boot_ns`.
    fn gpu_number(&mut self, gpu: GpuId, since_boot_ns: u64) -> rusqlite::Result<i64> {
        match self.gpus.get(&gpu) {
            Some(number) => Ok(*number),
            None => {
                let since = self.lists_gpus.then_some(since_boot_ns);
                self.add_gpu(gpu, None, since)
            }
        }
    }

    fn add_gpu(
        &mut self,
        gpu: GpuId,
        name: Option<&str>,
        since_boot_ns: Option<u64>,
    ) -> rusqlite::Result<i64> {
        self.connection.execute(
            "INSERT INTO gpu (session, gpu_index, bdf, unique_id, partition_id, kfd_id, name,
             since_boot_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                self.session,
                gpu.index,
                gpu.bdf.to_string(),
                gpu.unique_id.map(|id| id.to_string()),
                gpu.partition,
                gpu.kfd_id,
                name,
                since_boot_ns.map(u64::cast_signed),
            ),
        )?;
        let number = self.connection.last_insert_rowid();
        self.gpus.insert(gpu, number);
        Ok(number)
    }

    fn commit_batch(&mut self) -> rusqlite::Result<()> {
        if let Some(batch) = self.batch.take() {
            let insert = "INSERT INTO batch (last_item, first_item, from_unix_ns, to_unix_ns,
                first_process, boot_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            self.connection.prepare_cached(insert)?.execute((
                self.next_item - 1,
                batch.first_item,
                batch.from_unix_ns,
                batch.to_unix_ns,
                batch.first_process,
                batch.to_boot_ns.cast_signed(),
            ))?;
            if let Some(packed) = self.packer.finish() {
                let insert = "INSERT INTO packed VALUES (?1, ?2)";
                self.connection.prepare_cached(insert)?.execute((self.next_item - 1, packed))?;
            }
        }
        self.mark_alive()?;
        self.connection.execute_batch("COMMIT")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.broken {
            let _cannot_be_told = self.commit();
        }
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let fail = |error| failed("open", path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    // Before anything is changed: the file may be somebody else's.
    if schema::examine(&connection, path)? == Found::Empty {
        connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(fail)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
    }
    match FileSystem::of(path) {
        FileSystem::Local => connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?,
        FileSystem::Network(_) => by_one_machine(&connection).map_err(fail)?,
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let pages = CHECKPOINT_BYTES / PAGE_BYTES;
    connection.pragma_update(None, "wal_autocheckpoint", pages).map_err(fail)?;
    connection.pragma_update(None, "journal_size_limit", CHECKPOINT_BYTES).map_err(fail)?;
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(fail)?;
    Ok(connection)
}

/// Without memory that is shared with readers: they wait until the writer has ended.
fn by_one_machine(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "TRUNCATE")
}
