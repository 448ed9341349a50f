//! Opening a history for reading: what is no whole history is refused at once, with the reason.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use gpuev::{Error, ErrorKind, Result};
use rusqlite::ffi::ErrorCode;
use rusqlite::{Connection, OpenFlags};

use crate::failure::failed;
use crate::lock::beside;
use crate::schema::{self, Found};

/// A read-only connection to the history at `path`, and the version of its schema.
pub(crate) fn read_only(path: &Path) -> Result<(Connection, u32)> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Error::io(format!("open {}", path.display()), error)
            .with_path(path)
            .with_hint("`gpuev record -o FILE` makes a history")
    })?;
    check_file(path, &metadata)?;
    let connection = connect(path)?;
    let Found::History(version) = schema::examine(&connection, path)? else {
        let what = format!("{}: an empty file, not a history", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .with_path(path)
            .with_hint("`gpuev record -o FILE` makes one"));
    };
    check_length(&connection, path)?;
    Ok((connection, version))
}

/// A folder is none, and what is a device or a pipe cannot be one: SQLite would put its log beside it, or wait.
pub(crate) fn check_file(path: &Path, metadata: &Metadata) -> Result<()> {
    let (what, hint) = match metadata.file_type() {
        file if file.is_file() => return Ok(()),
        file if file.is_dir() => ("a folder", "name a file in it"),
        _ => ("no file, but a device or a pipe", "name a file"),
    };
    let what = format!("open {}: it is {what}", path.display());
    Err(Error::new(ErrorKind::InvalidInput, what).with_hint(hint))
}

/// A file in a folder that may not be written needs to be told that nobody writes it: SQLite cannot make
/// its shared memory there.
fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |name: &Path, flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
        Ok(connection)
    };
    let error = match open(path, flags) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let no_log = !beside(path, "-wal").exists();
    if no_log && error.sqlite_error_code() == Some(ErrorCode::CannotOpen) {
        let uri = PathBuf::from(format!("file:{}?immutable=1", percent_encoded(path)));
        if let Ok(connection) = open(&uri, flags | OpenFlags::SQLITE_OPEN_URI) {
            return Ok(connection);
        }
    }
    if !no_log && error.sqlite_error_code() == Some(ErrorCode::CannotOpen) {
        return Err(needs_log(path));
    }
    Err(failed("open", path, &error))
}

/// A recorder was killed and left its log, and the folder may not be written.
fn needs_log(path: &Path) -> Error {
    let what = format!(
        "open {}: a part of it is in {}, which can only be read where the folder may be written",
        path.display(),
        beside(path, "-wal").display()
    );
    let folder = "copy both files to a folder of yours, and read the copy";
    Error::new(ErrorKind::PermissionDenied, what).with_hint(folder)
}

/// A file that lost its end is found at once, not when the reading arrives there. While there is a log,
/// the end may still be in that.
fn check_length(connection: &Connection, path: &Path) -> Result<()> {
    let number = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, u32>(0))
            .map_err(|error| failed("read", path, &error))
    };
    let expected = u64::from(number("page_count")?) * u64::from(number("page_size")?);
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length(path) >= expected || length(&beside(path, "-wal")) > 0 {
        return Ok(());
    }
    let what =
        format!("{}: truncated: {} of {expected} bytes are there", path.display(), length(path));
    Err(Error::new(ErrorKind::InvalidInput, what)
        .with_hint("`sqlite3 FILE .recover | sqlite3 NEW` saves what is left"))
}

fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut encoded = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _infallible = write!(encoded, "%{byte:02x}");
        }
    }
    encoded
}
