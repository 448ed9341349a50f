//! How much of the past is kept.
//!
//! Age goes by the order in which things were recorded: within a boot by `CLOCK_BOOTTIME`, which nobody sets. Only
//! how long the machine was off between two boots the wall clock tells, and it is believed as little as can be: of
//! what it said at the beginning and says now the shorter time counts, and nothing in the first hour of a boot, in
//! which a clock without a battery is set. So no step of the wall clock deletes anything.

use std::time::Duration;

use gpuev::time::Anchor;
use rusqlite::{Connection, OptionalExtension};

use crate::session::Session;

/// At most so many batches are deleted after a commit: recording must not stand still for it.
const BATCHES_A_COMMIT: u32 = 4;

/// Free pages that are given back to the file system at once.
const VACUUM_PAGES: u32 = 1024;

/// The clock of a machine is set by then.
const SETTLED_NS: u64 = 3_600_000_000_000;

/// 2020: nothing was recorded before.
const FIRST_UNIX_NS: i64 = 1_577_836_800_000_000_000;

/// Deletes the items up to one.
const DELETE_ITEMS: [&str; 6] = [
    "DELETE FROM event WHERE id <= ?1",
    "DELETE FROM doubtful WHERE event <= ?1",
    "DELETE FROM gap WHERE id <= ?1",
    "DELETE FROM note WHERE id <= ?1",
    "DELETE FROM batch WHERE last_item <= ?1",
    "DELETE FROM packed WHERE last_item <= ?1",
];

/// Deletes what no item names any more.
const DELETE_UNNAMED: [&str; 4] = [
    "DELETE FROM process WHERE id < (SELECT first_process FROM batch ORDER BY last_item LIMIT 1)",
    "DELETE FROM session WHERE id < (SELECT max(id) FROM session WHERE first_item <=
        (SELECT first_item FROM batch ORDER BY last_item LIMIT 1))",
    "DELETE FROM gpu WHERE session < (SELECT min(id) FROM session)",
    "DELETE FROM not_kept WHERE session < (SELECT min(id) FROM session)",
];

/// What is gone of a session is one stretch, from its beginning on.
const NOTE_DELETED: [&str; 2] = [
    "DELETE FROM not_kept WHERE session = ?1 AND cause = 'retention'",
    "INSERT OR REPLACE INTO not_kept (last_item, first_item, session, cause, from_boot_ns, to_boot_ns)
        SELECT ?2, first_item, id, 'retention', started_boot_ns, ?3 FROM session WHERE id = ?1",
];

/// How much of the past a [`Writer`](crate::Writer) keeps. The oldest goes first, in batches of some ten
/// thousand items. What is deleted is noted as a stretch that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Items that are older than this go; while events come, those that are older than the newest by more.
    pub max_age: Option<Duration>,
    /// Items go while the file and its log are larger than this.
    pub max_bytes: Option<u64>,
}

/// When old items are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// After a commit: the newest batch stays.
    Commit,
    /// While nothing is recorded: all may be too old.
    Idle,
}

/// How old the sessions before the present one are.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// When the present one began.
    started: Option<Anchor>,
    boot_id: Option<String>,
    /// Oldest first.
    past: Vec<Past>,
}

/// A session before the present one.
#[derive(Debug)]
struct Past {
    first_item: i64,
    boot_id: Option<String>,
    started: Anchor,
    /// Its last sign of life.
    end: Anchor,
    /// Nanoseconds that the sessions between it and the present one lasted.
    recorded_after_ns: u64,
}

/// The batch that was recorded first.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    first_item: i64,
    last_item: i64,
    session: i64,
    /// When its last item was received; the end of its session where that is not known.
    boot_ns: Option<u64>,
}

impl Ages {
    /// Of the sessions of the file before `session`, which begins.
    pub(crate) fn before(connection: &Connection, session: &Session) -> rusqlite::Result<Self> {
        let mut select = connection.prepare_cached(Past::SELECT)?;
        let past = select.query_map([], Past::read)?;
        let mut past: Vec<Past> = past.collect::<rusqlite::Result<_>>()?;
        let mut recorded_after_ns = 0_u64;
        for one in past.iter_mut().rev() {
            one.recorded_after_ns = recorded_after_ns;
            recorded_after_ns = recorded_after_ns.saturating_add(one.lasted_ns());
        }
        Ok(Self { started: Some(session.started), boot_id: session.boot_id.clone(), past })
    }

    /// How old a batch is, in nanoseconds.
    fn age_ns(&self, batch: &Oldest, now: Anchor, is_present: bool) -> u64 {
        let by_boot_ns = now.boot_ns.saturating_sub(batch.boot_ns.unwrap_or(now.boot_ns));
        let Some(started) = self.started.filter(|_| !is_present) else { return by_boot_ns };
        let after = self.past.partition_point(|past| past.first_item <= batch.first_item);
        let Some(past) = after.checked_sub(1).and_then(|place| self.past.get(place)) else {
            return 0;
        };
        if is_same(past.boot_id.as_deref(), self.boot_id.as_deref()) {
            return now.boot_ns.saturating_sub(batch.boot_ns.unwrap_or(past.end.boot_ns));
        }
        let to_end_ns = past.end.boot_ns.saturating_sub(batch.boot_ns.unwrap_or(past.end.boot_ns));
        let lasted_ns = now.boot_ns.saturating_sub(started.boot_ns);
        let recorded_ns = past.recorded_after_ns.saturating_add(lasted_ns);
        to_end_ns.saturating_add(recorded_ns.max(wall_ns(past.end, started, now)))
    }
}

/// Nanoseconds from the `end` of a session of another boot to `now`, in one that began at `started`: what the wall
/// clock says at least; 0 where it is not to be believed.
fn wall_ns(end: Anchor, started: Anchor, now: Anchor) -> u64 {
    if now.boot_ns < SETTLED_NS || end.unix_ns < FIRST_UNIX_NS {
        return 0;
    }
    let now_unix_ns = now.unix_ns.min(started.unix_ns_of(now.boot_ns));
    u64::try_from(now_unix_ns.saturating_sub(end.unix_ns)).unwrap_or(0)
}

fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_some_and(|id| !id.is_empty()) && one == other
}

impl Past {
    const SELECT: &str = "SELECT first_item, boot_id, started_boot_ns, started_unix_ns,
        coalesce(ended_boot_ns, alive_boot_ns, started_boot_ns),
        coalesce(ended_unix_ns, alive_unix_ns, started_unix_ns) FROM session ORDER BY id";

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let anchor = |at: usize| -> rusqlite::Result<Anchor> {
            let boot_ns: i64 = row.get(at)?;
            Ok(Anchor { boot_ns: boot_ns.cast_unsigned(), unix_ns: row.get(at + 1)? })
        };
        Ok(Self {
            first_item: row.get(0)?,
            boot_id: row.get(1)?,
            started: anchor(2)?,
            end: anchor(4)?,
            recorded_after_ns: 0,
        })
    }

    fn lasted_ns(&self) -> u64 {
        self.end.boot_ns.saturating_sub(self.started.boot_ns)
    }
}

impl Oldest {
    /// The oldest batch that may go.
    fn find(connection: &Connection, when: When) -> rusqlite::Result<Option<Self>> {
        let all_but = match when {
            When::Commit => "WHERE last_item < (SELECT max(last_item) FROM batch)",
            When::Idle => "",
        };
        // A batch of a version before 4 does not say when it was: its last event does.
        let select = format!(
            "SELECT first_item, last_item,
                (SELECT max(id) FROM session WHERE session.first_item <= batch.first_item),
                coalesce(boot_ns, (SELECT received_boot_ns FROM event
                    WHERE id BETWEEN batch.first_item AND batch.last_item ORDER BY id DESC LIMIT 1))
             FROM batch {all_but} ORDER BY last_item LIMIT 1"
        );
        let oldest = connection.prepare_cached(&select)?.query_row([], |row| {
            Ok(Self {
                first_item: row.get(0)?,
                last_item: row.get(1)?,
                session: row.get::<_, Option<i64>>(2)?.unwrap_or(0),
                boot_ns: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            })
        });
        oldest.optional()
    }

    fn delete(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let change = connection.transaction()?;
        for delete in DELETE_ITEMS {
            change.prepare_cached(delete)?.execute([self.last_item])?;
        }
        let [replace, note] = NOTE_DELETED;
        change.prepare_cached(replace)?.execute([self.session])?;
        let boot_ns = self.boot_ns.map(u64::cast_signed);
        change.prepare_cached(note)?.execute((self.session, self.last_item, boot_ns))?;
        for delete in DELETE_UNNAMED {
            change.prepare_cached(delete)?.execute([])?;
        }
        change.commit()
    }
}

impl Retention {
    /// Deletes what is too much. `session` is the present one, and `log_bytes` what its log may take.
    pub(crate) fn apply(
        self,
        connection: &mut Connection,
        session: i64,
        (ages, now, when): (&Ages, Anchor, When),
        log_bytes: u64,
    ) -> rusqlite::Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        for _ in 0..BATCHES_A_COMMIT {
            let Some(oldest) = Oldest::find(connection, when)? else { break };
            let age_ns = ages.age_ns(&oldest, now, oldest.session == session);
            let too_old = self.max_age.is_some_and(|max| u128::from(age_ns) > max.as_nanos());
            let too_large = match self.max_bytes {
                Some(max_bytes) if when == When::Commit => {
                    used_bytes(connection)? > max_bytes.saturating_sub(log_bytes * 2)
                }
                _ => false,
            };
            if !too_old && !too_large {
                break;
            }
            oldest.delete(connection)?;
        }
        give_back(connection)
    }
}

fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    let pages: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
    Ok(u64::try_from(pages).unwrap_or(0))
}

/// Bytes of the file that hold something.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let used =
        pages(connection, "page_count")?.saturating_sub(pages(connection, "freelist_count")?);
    Ok(used * pages(connection, "page_size")?)
}

/// Free pages are used again by what comes. Only where they are a large part of the file, because a limit
/// was lowered or a burst has aged, is the file made smaller.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let free = pages(connection, "freelist_count")?;
    if free < u64::from(VACUUM_PAGES) || free < pages(connection, "page_count")? / 4 {
        return Ok(());
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut freed = vacuum.query([])?;
    while freed.next()?.is_some() {}
    Ok(())
}
