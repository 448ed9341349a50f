//! One writer at a time.
//!
//! SQLite would let two writers take turns, and their events would mix. The lock is on a file of its own:
//! closing a descriptor of the history itself would drop the locks that SQLite holds on it in the same
//! process (POSIX).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gpuev::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;

/// Held as long as this lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WriterLock {
    path: PathBuf,
    _file: File,
}

impl WriterLock {
    /// Takes the lock of the history at `history`.
    pub(crate) fn take(history: &Path) -> Result<Self> {
        let path = beside(history, ".lock");
        loop {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| cannot_lock(&path, error))?;
            match lock_soon(&file) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(history)),
                Err(error) => return Err(cannot_lock(&path, error.into())),
            }
            // Whoever held it may have removed the file while we opened it: then we hold nothing.
            if is_at(&file, &path).map_err(|error| cannot_lock(&path, error))? {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        let _left_behind_is_harmless = std::fs::remove_file(&self.path);
    }
}

/// A reader that asks whether there is a writer ([`is_held`]) holds the lock for some microseconds.
fn lock_soon(file: &File) -> rustix::io::Result<()> {
    for _ in 0..20 {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            done => return done,
        }
    }
    Err(rustix::io::Errno::WOULDBLOCK)
}

/// Whether somebody writes the history at `history` now.
pub(crate) fn is_held(history: &Path) -> bool {
    let Ok(file) = File::open(beside(history, ".lock")) else { return false };
    let shared = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    shared == Err(rustix::io::Errno::WOULDBLOCK)
}

/// `run.db` and `.lock` give `run.db.lock`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn cannot_lock(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::Unsupported => {
            "this file system has no locks (Lustre: mount -o flock): record to another one"
        }
        _ => "check that the folder is there and may be written",
    };
    Error::io(format!("lock {}", path.display()), error).with_path(path).with_hint(hint)
}

fn taken(history: &Path) -> Error {
    Error::new(ErrorKind::Busy, format!("{}: another gpuev records to it", history.display()))
        .with_path(history)
        .with_hint("end that one, or record to another file")
}
