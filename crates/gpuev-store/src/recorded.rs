//! The sessions of a history as they are read.

use std::path::Path;

use gpuev::GpuId;
use gpuev::time::Anchor;
use rusqlite::{Connection, Row};

use crate::boots::Boots;
use crate::filter_text::FilterText;
use crate::schema::{FIRST_IDS, derived_uid};
use crate::session::Session;
use crate::value::{GPU_COLUMNS, gpu};

/// One time that a recorder ran.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedSession {
    /// Counts the sessions of the file, from 1.
    pub id: i64,
    /// The number of its first item; it has all up to the next session's.
    pub first_item: i64,
    /// What to take from the number of an item for its number in the session: see [`number_of`](Self::number_of).
    pub item_base: i64,
    /// Which boot of its machine, counted over the file from 0: in another, times of `CLOCK_BOOTTIME` do not
    /// compare, and the same pid is another process.
    pub boot: u32,
    /// Its recorder writes it now.
    pub is_live: bool,
    /// Its recorder was ended and had time to say so. Else the last it wrote may be missing.
    pub is_closed: bool,
    /// Stretches of it of which the history keeps nothing.
    pub not_kept: Vec<NotKept>,
    /// Where and when, with its GPUs as they appeared.
    pub session: Session,
    /// The number of its last item, as the file counts them, where it says so.
    pub(crate) last_item: Option<i64>,
    /// The files of [`Histories`](crate::Histories) that have something of it, and its number in each.
    pub(crate) parts: Vec<(usize, i64)>,
}

/// Items that were recorded, or were to be, and are not in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotKept {
    /// The first by its number in the session.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// Why: `retention`, or what kept the recorder from storing them.
    pub cause: String,
    /// When the first was, in nanoseconds of `CLOCK_BOOTTIME`, where known.
    pub from_boot_ns: Option<u64>,
    /// When the last was.
    pub to_boot_ns: Option<u64>,
}

impl RecordedSession {
    /// The number in this session of an item of it: with [`Session::uid`] it is a key wherever the item is copied to.
    #[must_use]
    pub fn number_of(&self, item: i64) -> i64 {
        item.saturating_sub(self.item_base)
    }

    /// When it ended or is last known to have recorded: what `ended` and `alive` say, or now while it is written.
    #[must_use]
    pub fn last_sign(&self) -> Option<Anchor> {
        self.session.ended.or(self.session.alive)
    }
}

/// All sessions of a file of this version, oldest first: three passes, however many there are.
pub(crate) fn read_sessions(
    connection: &Connection,
    version: u32,
) -> rusqlite::Result<Vec<RecordedSession>> {
    let mut select = connection.prepare_cached("SELECT * FROM session ORDER BY id")?;
    let sessions = select.query_map([], |row| read_session(row, version))?;
    let mut sessions: Vec<RecordedSession> = sessions.collect::<rusqlite::Result<_>>()?;
    let mut boots = Boots::default();
    for recorded in &mut sessions {
        recorded.boot = boots.number(recorded.session.boot_id.as_deref());
    }
    add_gpus(connection, version, &mut sessions)?;
    if version >= FIRST_IDS {
        add_not_kept(connection, &mut sessions)?;
    }
    Ok(sessions)
}

fn read_session(row: &Row<'_>, version: u32) -> rusqlite::Result<RecordedSession> {
    let anchor = |boot_ns: &str, unix_ns: &str| -> rusqlite::Result<Option<Anchor>> {
        let (boot_ns, unix_ns): (Option<i64>, Option<i64>) = (row.get(boot_ns)?, row.get(unix_ns)?);
        Ok(boot_ns
            .zip(unix_ns)
            .map(|(boot_ns, unix_ns)| Anchor { boot_ns: boot_ns.cast_unsigned(), unix_ns }))
    };
    let started = anchor("started_boot_ns", "started_unix_ns")?;
    let first_item: i64 = row.get("first_item")?;
    let mut session = Session {
        host: row.get("host")?,
        boot_id: row.get("boot_id")?,
        kernel: row.get("kernel")?,
        recorder: row.get("recorder")?,
        scope: row.get("scope")?,
        ended: anchor("ended_boot_ns", "ended_unix_ns")?,
        ..Session::unknown(started.unwrap_or(Anchor { boot_ns: 0, unix_ns: 0 }))
    };
    let (mut item_base, mut is_closed, mut last_item) = (first_item - 1, true, None);
    let uid: Option<String> = if version >= FIRST_IDS { row.get("uid")? } else { None };
    session.uid = match uid.and_then(|uid| uid.parse().ok()) {
        Some(uid) => uid,
        None => derived_uid(row)?,
    };
    if version >= FIRST_IDS {
        session.alive = anchor("alive_boot_ns", "alive_unix_ns")?;
        let filter: Option<String> = row.get("filter")?;
        session.filter = filter.as_deref().map(FilterText::read).unwrap_or_default();
        item_base = row.get::<_, Option<i64>>("item_base")?.unwrap_or(item_base);
        is_closed = row.get("closed")?;
        last_item = row.get("last_item")?;
    }
    Ok(RecordedSession {
        id: row.get("id")?,
        first_item,
        item_base,
        boot: 0,
        is_live: false,
        is_closed,
        not_kept: Vec::new(),
        session,
        last_item,
        parts: Vec::new(),
    })
}

fn add_gpus(
    connection: &Connection,
    version: u32,
    sessions: &mut [RecordedSession],
) -> rusqlite::Result<()> {
    let since = if version >= FIRST_IDS { "since_boot_ns" } else { "NULL" };
    let select = format!("SELECT {GPU_COLUMNS}, name, {since}, session FROM gpu ORDER BY id");
    let mut select = connection.prepare_cached(&select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let found: (GpuId, Option<String>) = (gpu(row, 0)?, row.get(5)?);
        if let Some(recorded) = with_id(sessions, row.get(7)?) {
            if let Some(since) = row.get::<_, Option<i64>>(6)? {
                recorded.session.came_later.push((found.0, since.cast_unsigned()));
            }
            recorded.session.gpus.push(found);
        }
    }
    Ok(())
}

fn add_not_kept(connection: &Connection, sessions: &mut [RecordedSession]) -> rusqlite::Result<()> {
    let select = "SELECT session, first_item, last_item, cause, from_boot_ns, to_boot_ns
        FROM not_kept ORDER BY last_item";
    let mut select = connection.prepare_cached(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(recorded) = with_id(sessions, row.get(0)?) {
            let base = recorded.item_base;
            let number = |item: i64| item.saturating_sub(base);
            let boot_ns = |ns: Option<i64>| ns.map(i64::cast_unsigned);
            recorded.not_kept.push(NotKept {
                first: number(row.get(1)?),
                last: number(row.get(2)?),
                cause: row.get(3)?,
                from_boot_ns: boot_ns(row.get(4)?),
                to_boot_ns: boot_ns(row.get(5)?),
            });
        }
    }
    Ok(())
}

fn with_id(sessions: &mut [RecordedSession], id: i64) -> Option<&mut RecordedSession> {
    let place = sessions.binary_search_by_key(&id, |recorded| recorded.id).ok()?;
    sessions.get_mut(place)
}

/// Of the last session: it goes on until now while its writer holds the lock of the file at `path`.
pub(crate) fn go_on(sessions: &mut [RecordedSession], path: &Path) {
    let Some(last) = sessions.last_mut() else { return };
    let Some(alive) = last.session.alive.filter(|_| !last.is_closed) else { return };
    if crate::lock::is_held(path) {
        let now = Anchor::now();
        last.is_live = true;
        // A clock that is behind is that of another machine.
        if now.boot_ns > alive.boot_ns {
            last.session.alive = Some(now);
        }
    }
}
