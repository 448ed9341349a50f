//! Writing a history.
//!
//! Items are collected into a transaction that is committed after so many rows or when the caller says so,
//! at least once a second. A commit is in the write-ahead log and synced (`synchronous = FULL`): with
//! `NORMAL` the log is synced at checkpoints only, and a power failure could take half a minute of
//! commits. Two syncs a second cost nothing that can be measured.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gpuev::process::Process;
use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, Event, EventFacts, GpuId, Item, Result};
use rusqlite::{Connection, OpenFlags};

use crate::failure::failed;
use crate::lock::{WriterLock, beside};
use crate::note::{self, Note, insert_note};
use crate::open::check_file;
use crate::packed::{Packer, SourceKey};
use crate::process::{ProcessNumbers, Undescribed, describe};
use crate::retention::Retention;
use crate::row::{INSERT_EVENT, INSERT_GAP, gap_range_ns, insert_event, insert_gap};
use crate::schema::{self, Found};
use crate::session::Session;

/// Rows of a transaction: more save little time and cost memory.
const BATCH_ROWS: u64 = 32_768;

/// Bytes of the log at which it is moved into the file.
const CHECKPOINT_BYTES: u32 = 32 << 20;

const PAGE_BYTES: u32 = 16_384;

/// Writes items to a history. There is one at a time for a file.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    path: PathBuf,
    session: i64,
    gpus: HashMap<GpuId, i64>,
    processes: ProcessNumbers,
    next_item: i64,
    batch: Option<Batch>,
    packer: Packer,
    retention: Retention,
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
    first_process: i64,
}

impl Writer {
    /// Opens the history at `path`, which is made where there is none, and begins a session in it.
    ///
    /// # Errors
    /// Where another writer has it, where it is something else than a history or a newer one, and where the
    /// system refuses.
    pub fn open(path: &Path, session: &Session) -> Result<Self> {
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
            gpus: HashMap::new(),
            processes: ProcessNumbers::default(),
            next_item: 1,
            batch: None,
            packer: Packer::default(),
            retention: Retention::default(),
            broken: false,
            _lock: lock,
        };
        writer.guard("begin a session in", |writer| writer.begin_session(session))?;
        Ok(writer)
    }

    /// How much is kept; what is older goes as newer comes. Default: all.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
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

    /// Adds `item`. It is safe with the next [`commit`](Self::commit), which happens by itself every some
    /// ten thousand items. The times of an event are those of its line where it has one, see
    /// [`EventFacts::time`].
    ///
    /// # Errors
    /// Where the disk is full or fails. What was committed is safe; the writer takes nothing more.
    pub fn append(&mut self, item: &Item) -> Result<()> {
        self.guard("write to", |writer| writer.insert(item))?;
        if self.uncommitted() >= BATCH_ROWS {
            self.commit()?;
        }
        Ok(())
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
            let gpu = writer.gpu_number(note.gpu)?;
            found = note::find(&writer.connection, gpu, noted)?;
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
        self.guard("delete old items from", |writer| writer.retention.apply(&mut writer.connection))
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
            if let Some(ended) = ended {
                writer.note_end(ended)?;
            }
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

    fn begin_session(&mut self, session: &Session) -> rusqlite::Result<()> {
        let last = "SELECT max(coalesce((SELECT max(id) FROM event), 0),
            coalesce((SELECT max(id) FROM gap), 0), coalesce((SELECT max(last_item) FROM batch), 0),
            coalesce((SELECT max(first_item) FROM session), 1) - 1),
            coalesce((SELECT max(id) FROM process), 0)";
        let (last_item, last_process): (i64, i64) =
            self.connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.next_item = last_item.saturating_add(1);
        self.processes = ProcessNumbers::after(last_process);
        self.begin()?;
        self.connection.execute(
            "INSERT INTO session (first_item, host, boot_id, kernel, recorder, scope,
             started_boot_ns, started_unix_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                self.next_item,
                &session.host,
                &session.boot_id,
                &session.kernel,
                &session.recorder,
                &session.scope,
                session.started.boot_ns.cast_signed(),
                session.started.unix_ns,
            ),
        )?;
        self.session = self.connection.last_insert_rowid();
        for (gpu, name) in &session.gpus {
            self.add_gpu(*gpu, name.as_deref())?;
        }
        self.connection.execute_batch("COMMIT")
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
        let range_ns = match item {
            Item::Event(event) => self.insert_event(event)?,
            Item::Gap(gap) => {
                let numbers = (self.next_item, self.gpu_number(gap.gpu)?);
                insert_gap(&mut self.connection.prepare_cached(INSERT_GAP)?, numbers, gap)?;
                self.packer.push_gap();
                gap_range_ns(gap)
            }
        };
        self.count(batch, range_ns);
        Ok(())
    }

    fn insert_note(&mut self, note: &Note, event: Option<i64>) -> rusqlite::Result<()> {
        self.begin()?;
        let batch = self.open_batch();
        let numbers = (self.next_item, self.gpu_number(note.gpu)?);
        insert_note(&self.connection, numbers, note, event)?;
        self.count(batch, (note.at.unix_ns, note.at.unix_ns));
        Ok(())
    }

    /// The batch of the next item. Made before that is written: it may need a process with a new number.
    fn open_batch(&mut self) -> Batch {
        *self.batch.get_or_insert(Batch {
            first_item: self.next_item,
            rows: 0,
            from_unix_ns: i64::MAX,
            to_unix_ns: i64::MIN,
            first_process: self.processes.first(),
        })
    }

    /// The next item is written.
    fn count(&mut self, batch: Batch, (from_unix_ns, to_unix_ns): (i64, i64)) {
        self.next_item += 1;
        self.batch = Some(Batch {
            rows: batch.rows + 1,
            from_unix_ns: batch.from_unix_ns.min(from_unix_ns),
            to_unix_ns: batch.to_unix_ns.max(to_unix_ns),
            ..batch
        });
    }

    fn insert_event(&mut self, event: &Event) -> rusqlite::Result<(i64, i64)> {
        let gpu = self.gpu_number(event.gpu)?;
        let facts = event.facts();
        let EventFacts { comm, doubtful, raw, time, .. } = facts;
        let record = event.record();
        let pid = facts.pid_in(&record);
        let process = match pid {
            Some(pid) => Some(self.processes.number(&self.connection, self.session, pid, comm)?),
            None => None,
        };
        let mut insert = self.connection.prepare_cached(INSERT_EVENT)?;
        insert_event(&mut insert, (self.next_item, gpu, process), event)?;
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
        Ok((event.time.unix_ns, event.time.unix_ns))
    }

    fn gpu_number(&mut self, gpu: GpuId) -> rusqlite::Result<i64> {
        match self.gpus.get(&gpu) {
            Some(number) => Ok(*number),
            None => self.add_gpu(gpu, None),
        }
    }

    fn add_gpu(&mut self, gpu: GpuId, name: Option<&str>) -> rusqlite::Result<i64> {
        self.connection.execute(
            "INSERT INTO gpu (session, gpu_index, bdf, unique_id, partition_id, kfd_id, name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                self.session,
                gpu.index,
                gpu.bdf.to_string(),
                gpu.unique_id.map(|id| id.to_string()),
                gpu.partition,
                gpu.kfd_id,
                name,
            ),
        )?;
        let number = self.connection.last_insert_rowid();
        self.gpus.insert(gpu, number);
        Ok(number)
    }

    fn commit_batch(&mut self) -> rusqlite::Result<()> {
        if let Some(batch) = self.batch.take() {
            let insert = "INSERT INTO batch VALUES (?1, ?2, ?3, ?4, ?5)";
            self.connection.prepare_cached(insert)?.execute((
                self.next_item - 1,
                batch.first_item,
                batch.from_unix_ns,
                batch.to_unix_ns,
                batch.first_process,
            ))?;
            if let Some(packed) = self.packer.finish() {
                let insert = "INSERT INTO packed VALUES (?1, ?2)";
                self.connection.prepare_cached(insert)?.execute((self.next_item - 1, packed))?;
            }
        }
        self.connection.execute_batch("COMMIT")
    }

    fn note_end(&mut self, ended: Anchor) -> rusqlite::Result<()> {
        let update = "UPDATE session SET ended_boot_ns = ?1, ended_unix_ns = ?2 WHERE id = ?3";
        let columns = (ended.boot_ns.cast_signed(), ended.unix_ns, self.session);
        self.connection.execute(update, columns).map(drop)
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
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(fail)?;
    // Before anything is changed: the file may be somebody else's.
    if schema::examine(&connection, path)? == Found::Empty {
        connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(fail)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let pages = CHECKPOINT_BYTES / PAGE_BYTES;
    connection.pragma_update(None, "wal_autocheckpoint", pages).map_err(fail)?;
    connection.pragma_update(None, "journal_size_limit", CHECKPOINT_BYTES).map_err(fail)?;
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(fail)?;
    Ok(connection)
}
