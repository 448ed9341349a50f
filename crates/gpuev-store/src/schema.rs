//! What is in the file: `docs/history-schema.md`, in SQL.
//!
//! A version is a step from the one before, so that an old file becomes a new one by the steps it lacks. A
//! step that has been released is never changed.

use std::path::Path;

use gpuev::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::failure::failed;

/// The version of the schema that this code writes.
pub const VERSION: u32 = 3;

/// The first version with the table `packed`.
pub(crate) const FIRST_PACKED: u32 = 2;

/// The first version with the table `note`.
pub(crate) const FIRST_NOTES: u32 = 3;

/// `gpue`: tells a history from any other SQLite file.
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"gpue");

/// From version n to n + 1.
const STEPS: [&str; VERSION as usize] =
    [include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

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
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    change.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    change.commit().map_err(fail)
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
