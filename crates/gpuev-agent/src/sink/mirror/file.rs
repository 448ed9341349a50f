//! The file of the queues: SQLite, a table of what waits, one of what was delivered last, one of dead letters.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use gpuev::time::Anchor;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};

use super::{Notes, Recovered};
use crate::kept_file;
use crate::sink::message::{Kind, Message};
use crate::sink::outbox::SyncPolicy;

/// Rises when the tables change.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS waiting (
        sink TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL,
        severity TEXT NOT NULL, notify INTEGER NOT NULL, unix_ns INTEGER NOT NULL, json TEXT NOT NULL,
        since_unix_ns INTEGER NOT NULL, PRIMARY KEY (sink, id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS told (
        sink TEXT NOT NULL, alert TEXT NOT NULL, revision INTEGER NOT NULL, unix_ns INTEGER NOT NULL,
        PRIMARY KEY (sink, alert)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS dead_letter (
        number INTEGER PRIMARY KEY, sink TEXT NOT NULL, id TEXT NOT NULL, unix_ns INTEGER NOT NULL,
        error TEXT NOT NULL, json TEXT NOT NULL);";

/// Another process may read the file; nobody holds it for longer.
const BUSY: Duration = Duration::from_secs(1);
/// Dead letters, and delivered revisions of each sink, that are kept.
const MOST_KEPT: i64 = 4096;
/// What waits for a sink that is no longer there goes after so long.
const FORGOTTEN_NS: i64 = 30 * 86_400 * 1_000_000_000;

pub(super) struct QueueFile {
    connection: Connection,
    /// Numbers of before are behind zero, in their order.
    written: u64,
}

impl QueueFile {
    /// Opens the file, or makes it. One that cannot be used is put aside; what is told of that comes with it.
    ///
    /// # Errors
    /// The disk does not allow it.
    pub(super) fn open(path: &Path, sync: SyncPolicy) -> Result<(Self, Option<String>), String> {
        match Self::open_sound(path, sync) {
            Ok(file) => Ok((file, None)),
            Err(Unusable::Disk(error)) => Err(error),
            Err(Unusable::File(error)) => {
                let aside = put_aside(path).map_err(|why| why.to_string())?;
                let told = format!(
                    "{} {error}; it is now {}, and what waited in it is not delivered",
                    path.display(),
                    aside.display()
                );
                match Self::open_sound(path, sync) {
                    Ok(file) => Ok((file, Some(told))),
                    Err(Unusable::Disk(error) | Unusable::File(error)) => Err(error),
                }
            }
        }
    }

    fn open_sound(path: &Path, sync: SyncPolicy) -> Result<Self, Unusable> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        restrict_mode(path);
        connection.busy_timeout(BUSY)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > VERSION {
            return Err(Unusable::File(format!("is of version {version}, of a newer gpuev")));
        }
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Err(Unusable::File(format!("is damaged: {check}")));
        }
        let synchronous = match sync {
            SyncPolicy::Always => "FULL",
            SyncPolicy::Never => "NORMAL",
        };
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; {TABLES}
             PRAGMA user_version = {VERSION};"
        ))?;
        // Of this run count from zero; those of before are moved behind it.
        connection.execute(
            "UPDATE waiting SET number = number - 1 - (SELECT max(number) FROM waiting)",
            [],
        )?;
        let old = Anchor::now().unix_ns.saturating_sub(FORGOTTEN_NS);
        connection.execute("DELETE FROM waiting WHERE since_unix_ns < ?1", [old])?;
        let file = Self { connection, written: 0 };
        file.prune()?;
        Ok(file)
    }

    /// Writes all of `notes`, or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&mut self, notes: &Notes) -> Result<(), String> {
        self.try_write(notes).map_err(|error| error.to_string())
    }

    fn try_write(&mut self, notes: &Notes) -> rusqlite::Result<()> {
        let now = Anchor::now().unix_ns;
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for ((sink, _), (number, message)) in &notes.waits {
                put.execute(params_of(sink, *number, message, now))?;
            }
            let mut delete =
                transaction.prepare_cached("DELETE FROM waiting WHERE sink = ?1 AND id = ?2")?;
            for (sink, id) in &notes.gone {
                delete.execute(params![&**sink, &**id])?;
            }
            let mut told = transaction.prepare_cached(
                "INSERT INTO told VALUES (?1, ?2, ?3, ?4) ON CONFLICT (sink, alert)
                 DO UPDATE SET revision = max(revision, excluded.revision), unix_ns = ?4",
            )?;
            for ((sink, alert), revision) in &notes.told {
                told.execute(params![&**sink, &**alert, revision.cast_signed(), now])?;
            }
            let mut dead = transaction.prepare_cached(
                "INSERT INTO dead_letter (sink, id, unix_ns, error, json)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (sink, message, error) in &notes.dead {
                dead.execute(params![&**sink, &*message.id, now, error, &*message.json])?;
            }
        }
        transaction.commit()?;
        self.written += u64::try_from(notes.told.len() + notes.dead.len()).unwrap_or(0);
        if self.written >= MOST_KEPT.cast_unsigned() {
            self.written = 0;
            self.prune()?;
        }
        Ok(())
    }

    /// What older versions left for a sink, unless it is there already.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn take_over(&mut self, sink: &str, messages: &[Message]) -> Result<(), String> {
        let now = Anchor::now().unix_ns;
        let take = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                let mut put = transaction.prepare_cached(PUT)?;
                let first = -i64::try_from(messages.len()).unwrap_or(0) - (1 << 32);
                for (number, message) in (first..).zip(messages) {
                    put.execute(params_of(sink, number, message, now))?;
                }
            }
            transaction.commit()
        };
        take(&mut self.connection).map_err(|error| error.to_string())
    }

    /// What is left for a sink.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&mut self, sink: &str) -> Result<Recovered, String> {
        let read = || -> rusqlite::Result<Recovered> {
            let mut waiting = self.connection.prepare_cached(
                "SELECT id, kind, severity, notify, unix_ns, json FROM waiting
                 WHERE sink = ?1 ORDER BY number",
            )?;
            let waiting = waiting.query_map([sink], message_of)?;
            let mut told = self
                .connection
                .prepare_cached("SELECT alert, revision FROM told WHERE sink = ?1")?;
            let told = told.query_map([sink], |row| {
                let revision: i64 = row.get(1)?;
                Ok((text(row, 0)?, revision.cast_unsigned()))
            })?;
            Ok(Recovered {
                waiting: waiting.filter_map(Result::transpose).collect::<Result<_, _>>()?,
                told: told.collect::<Result<_, _>>()?,
            })
        };
        read().map_err(|error| error.to_string())
    }

    /// Keeps the latest of what would grow for ever.
    fn prune(&self) -> rusqlite::Result<()> {
        self.connection.execute(
            "DELETE FROM told WHERE (sink, alert) IN (
                 SELECT sink, alert FROM (
                     SELECT sink, alert, row_number() OVER (
                         PARTITION BY sink ORDER BY unix_ns DESC) AS place FROM told)
                 WHERE place > ?1)",
            [MOST_KEPT],
        )?;
        self.connection.execute(
            "DELETE FROM dead_letter WHERE number <= (SELECT max(number) FROM dead_letter) - ?1",
            [MOST_KEPT],
        )?;
        Ok(())
    }
}

const PUT: &str = "INSERT OR REPLACE INTO waiting (sink, number, id, kind, severity, notify, unix_ns, json, since_unix_ns)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

fn params_of<'a>(
    sink: &'a str,
    number: i64,
    message: &'a Message,
    now_unix_ns: i64,
) -> impl rusqlite::Params + 'a {
    (
        sink,
        number,
        &*message.id,
        message.kind.name(),
        message.severity.name(),
        message.notify,
        message.unix_ns,
        &*message.json,
        now_unix_ns,
    )
}

fn text(row: &Row<'_>, at: usize) -> rusqlite::Result<Arc<str>> {
    Ok(row.get_ref(at)?.as_str()?.into())
}

/// `None` where it is of a kind that this version does not know.
fn message_of(row: &Row<'_>) -> rusqlite::Result<Option<Message>> {
    let kind = Kind::from_name(row.get_ref(1)?.as_str()?);
    let severity = Severity::from_name(row.get_ref(2)?.as_str()?);
    let (Some(kind), Some(severity)) = (kind, severity) else { return Ok(None) };
    let message =
        Message::kept(text(row, 0)?, kind, severity, row.get(3)?, row.get(4)?, text(row, 5)?);
    Ok(Some(message))
}

/// What alerts say is nobody else's business: commands and users are in them.
fn restrict_mode(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _not_ours = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

/// Why a file cannot be used.
enum Unusable {
    /// It is no queue of this version: another one can take its place.
    File(String),
    /// The disk does not allow it now.
    Disk(String),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::File(format!("is damaged: {error}"))
            }
            _ => Self::Disk(error.to_string()),
        }
    }
}

/// Sets the file aside, and begins without its log.
fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = kept_file::set_aside(path)?;
    for suffix in ["-wal", "-shm"] {
        let _none = std::fs::remove_file(kept_file::beside(path, suffix));
    }
    Ok(aside)
}
