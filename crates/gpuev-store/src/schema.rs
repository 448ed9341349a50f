//! What is in the file: `docs/history-schema.md`, in SQL.
//!
//! A version is a step from the one before, so that an old file becomes a new one by the steps it lacks. A
//! step that has been released is never changed.

use std::path::Path;

use gpuev::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::failure::failed;
use crate::uid::Uid;

/// The version of the schema that this code writes.
pub const VERSION: u32 = 4;

/// The first version with the table `packed`.
pub(crate) const FIRST_PACKED: u32 = 2;

/// The first version with the table `note`.
pub(crate) const FIRST_NOTES: u32 = 3;

/// The first version with living sessions and ids.
pub(crate) const FIRST_IDS: u32 = 4;

/// `gpue`: tells a history from any other SQLite file.
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"gpue");

/// From version n to n + 1.
const STEPS: [&str; VERSION as usize] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Makes an empty file a history of this version, or an older history one; what is neither is refused.
pub(crate) fn prepare(connection: &mut Connection, path: &Path) -> Result<()> {
    let version = match examine(connection, path)? {
        Found::Empty => 0,
        Found::History(version) => version,
    };
    if version == VERSION {
        return Ok(());
    }
    let fail = |error| failed("write the schema of", path, &error);
    let change = connection.transaction().map_err(fail)?;
    for step in STEPS.iter().skip(version as usize) {
        change.execute_batch(step).map_err(fail)?;
    }
    if version < FIRST_IDS {
        give_ids(&change).map_err(fail)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    change.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    change.commit().map_err(fail)
}

/// The file's own id; and, of sessions that were recorded without one, what was read as theirs before.
fn give_ids(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO store VALUES (?1)", [Uid::random().to_string()])?;
    let mut sessions = connection.prepare("SELECT * FROM session WHERE uid IS NULL ORDER BY id")?;
    let uids = sessions.query_map([], |row| Ok((row.get::<_, i64>("id")?, derived_uid(row)?)))?;
    let uids: Vec<_> = uids.collect::<rusqlite::Result<_>>()?;
    let update = "UPDATE session SET uid = ?2, item_base = first_item - 1 WHERE id = ?1";
    let mut update = connection.prepare(update)?;
    uids.into_iter().try_for_each(|(id, uid)| update.execute((id, uid.to_string())).map(drop))
}

/// The id of a session that was recorded before sessions had one: by where and when it began.
pub(crate) fn derived_uid(session: &rusqlite::Row<'_>) -> rusqlite::Result<Uid> {
    let text =
        |column: &str| session.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let number = |column: &str| session.get::<_, i64>(column).map(|number| number.to_string());
    let facts = [
        text("host")?,
        text("boot_id")?,
        text("recorder")?,
        number("first_item")?,
        number("started_boot_ns")?,
        number("started_unix_ns")?,
    ];
    Ok(Uid::of_facts(facts.iter().map(String::as_bytes)))
}

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Empty,
    History(u32),
}

/// Whether the file is a history that this code understands.
pub(crate) fn examine(connection: &Connection, path: &Path) -> Result<Found> {
    let number = |pragma: &str| -> rusqlite::Result<u32> {
        connection.pragma_query_value(None, pragma, |row| row.get(0))
    };
    let fail = |error| failed("read", path, &error);
    let application = number("application_id").map_err(fail)?;
    let version = number("user_version").map_err(fail)?;
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(fail)?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(Found::Empty),
        (APPLICATION_ID, 1..=VERSION, _) => Ok(Found::History(version)),
        (APPLICATION_ID, _, _) => Err(newer(path, version)),
        _ => Err(other(path)),
    }
}

fn newer(path: &Path, version: u32) -> Error {
    let what = format!(
        "{}: a history of version {version}, and this gpuev knows none after {VERSION}",
        path.display()
    );
    Error::new(ErrorKind::NotSupported, what)
        .with_hint("use the gpuev that wrote it, or a newer one")
}

fn other(path: &Path) -> Error {
    let what = format!("{}: an SQLite file, but not a history of gpuev", path.display());
    Error::new(ErrorKind::InvalidInput, what).with_hint("name another file with -o")
}
