//! What SQLite says, as our error: the file, what was being done to it, and what to do.

use std::path::Path;

use gpuev::{Error, ErrorKind};
use rusqlite::ffi::ErrorCode;

/// `error` in the middle of doing `what` to the file at `path`.
pub(crate) fn failed(what: &str, path: &Path, error: &rusqlite::Error) -> Error {
    let (kind, hint) = meaning(error);
    let text = format!("{what} {}: {error}", path.display());
    let error = Error::new(kind, text).with_path(path);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn meaning(error: &rusqlite::Error) -> (ErrorKind, Option<&'static str>) {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            ErrorKind::OutOfResources,
            Some(
                "the disk is full: free space or record elsewhere; all that was committed is kept",
            ),
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Io, Some("the disk does not take it; all that was committed is kept"))
        }
        Some(ErrorCode::NotADatabase) => (
            ErrorKind::InvalidInput,
            Some("it is no history: name a file that `gpuev record` wrote"),
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::InvalidInput,
            Some(
                "the file is truncated or damaged: `sqlite3 FILE .recover | sqlite3 NEW` saves what is left",
            ),
        ),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            (ErrorKind::PermissionDenied, Some("check the rights of the file and of its folder"))
        }
        Some(ErrorCode::CannotOpen) => {
            (ErrorKind::Io, Some("check that the file and its folder are there and may be used"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Io, Some("another program has locked it: try again when it is done"))
        }
        Some(ErrorCode::OutOfMemory) => (ErrorKind::OutOfResources, None),
        _ => (ErrorKind::Io, None),
    }
}
