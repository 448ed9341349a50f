//! How much of the past is kept.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

/// At most so many batches are deleted after a commit: recording must not stand still for it.
const BATCHES_A_COMMIT: u32 = 4;

/// Free pages that are given back to the file system at once.
const VACUUM_PAGES: u32 = 1024;

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
const DELETE_UNNAMED: [&str; 3] = [
    "DELETE FROM process WHERE id < (SELECT first_process FROM batch ORDER BY last_item LIMIT 1)",
    "DELETE FROM session WHERE id < (SELECT max(id) FROM session WHERE first_item <=
        (SELECT first_item FROM batch ORDER BY last_item LIMIT 1))",
    "DELETE FROM gpu WHERE session < (SELECT min(id) FROM session)",
];

/// How much of the past a [`Writer`](crate::Writer) keeps. The oldest goes first, in batches of some ten
/// thousand items; the newest batch always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Items that are older than the newest by more than this go.
    pub max_age: Option<Duration>,
    /// Items go while the file is larger than this.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Deletes what is too much.
    pub(crate) fn apply(self, connection: &mut Connection) -> rusqlite::Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        for _ in 0..BATCHES_A_COMMIT {
            let Some(last_item) = self.too_much(connection)? else { break };
            let change = connection.transaction()?;
            for delete in DELETE_ITEMS {
                change.prepare_cached(delete)?.execute([last_item])?;
            }
            for delete in DELETE_UNNAMED {
                change.prepare_cached(delete)?.execute([])?;
            }
            change.commit()?;
        }
        give_back(connection)
    }

    /// The last item of the oldest batch, where that has to go.
    fn too_much(self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        let oldest = "SELECT last_item, to_unix_ns FROM batch
            WHERE last_item < (SELECT max(last_item) FROM batch) ORDER BY last_item LIMIT 1";
        let oldest: Option<(i64, i64)> = connection
            .prepare_cached(oldest)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((last_item, to_unix_ns)) = oldest else { return Ok(None) };
        let too_old = match self.max_age {
            Some(max_age) => {
                let newest = "SELECT to_unix_ns FROM batch ORDER BY last_item DESC LIMIT 1";
                let newest: i64 = connection.query_row(newest, [], |row| row.get(0))?;
                let age = u128::try_from(i128::from(newest) - i128::from(to_unix_ns)).unwrap_or(0);
                age > max_age.as_nanos()
            }
            None => false,
        };
        let too_large = match self.max_bytes {
            Some(max_bytes) => used_bytes(connection)? > max_bytes,
            None => false,
        };
        Ok((too_old || too_large).then_some(last_item))
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
