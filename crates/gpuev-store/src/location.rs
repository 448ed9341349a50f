//! Default location of the history.
//!
//! The folder is that of the service or the user. A user's home may be shared by the hosts of a cluster, so its
//! histories have the host in their name; a service's folder is its host's own. While one recorder has the history,
//! another one takes a history of its own beside it, named by its process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gpuev::{Error, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::lock::beside;

/// Where the service records, and root.
const OF_SYSTEM: &str = "/var/lib/gpuev";
const ENDING: &str = "db";

/// Where histories lie.
struct Place {
    folder: PathBuf,
    /// Several hosts may share it.
    shared: bool,
}

impl Place {
    fn ours() -> Self {
        let service = std::env::var_os("STATE_DIRECTORY");
        if let Some(folder) = service.and_then(|folders| state_folder(&folders)) {
            return Self { folder, shared: false };
        }
        match state_home().filter(|_| !rustix::process::geteuid().is_root()) {
            Some(home) => Self { folder: home.join("gpuev"), shared: true },
            None => Self { folder: OF_SYSTEM.into(), shared: false },
        }
    }

    /// `history-node17.db`, or `history.db` where the folder is one host's.
    fn stem(&self) -> String {
        match host().filter(|_| self.shared) {
            Some(host) => format!("history-{host}"),
            None => "history".to_owned(),
        }
    }

    fn file(&self, stem: &str) -> PathBuf {
        self.folder.join(format!("{stem}.{ENDING}"))
    }
}

/// The folder of a service in the value of `STATE_DIRECTORY`: systemd separates several by colons (systemd.exec(5)).
#[must_use]
pub fn state_folder(folders: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(folders).find(|folder| folder.is_absolute())
}

/// Where this user records: `/var/lib/gpuev/history.db` as root and in a service, else
/// `$XDG_STATE_HOME/gpuev/history-HOST.db`, i.e. `~/.local/state/gpuev/history-HOST.db`.
#[must_use]
pub fn default_history() -> PathBuf {
    let place = Place::ours();
    place.file(&place.stem())
}

/// Where to record if nobody says, the best first: the [`default_history`], and one of this process alone. Their
/// folder is made.
///
/// # Errors
/// Where that is not possible.
pub fn default_history_to_record() -> Result<[PathBuf; 2]> {
    let place = Place::ours();
    make(&place.folder)?;
    let stem = place.stem();
    let own = format!("{stem}-{}", std::process::id());
    Ok([place.file(&stem), place.file(&own)])
}

/// A new history beside the [`default_history`], which is named by `prefix` and the time. Its folder is made.
///
/// # Errors
/// Where that is not possible.
pub fn new_history(prefix: &str) -> Result<PathBuf> {
    let place = Place::ours();
    make(&place.folder)?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    let names = (0..).map(|number| match number {
        0 => format!("{prefix}-{now}"),
        number => format!("{prefix}-{now}-{number}"),
    });
    let mut free = names.map(|name| place.file(&name)).filter(|path| !path.exists());
    Ok(free.next().unwrap_or_else(|| place.file(prefix)))
}

/// The history to read: the one that was written to last where this user records, or, where there is none, where
/// the system's service does. [`default_history`] where there is none at all.
#[must_use]
pub fn default_history_to_read() -> PathBuf {
    let ours = newest_in(&Place::ours().folder);
    ours.or_else(|| newest_in(Path::new(OF_SYSTEM))).unwrap_or_else(default_history)
}

/// The histories in `folder`, by name.
///
/// # Errors
/// Where the folder cannot be read.
pub fn histories_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |error| Error::io(format!("read the folder {}", folder.display()), error).with_path(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The history in `folder` that was written to last. What is written lies in the log beside it first.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let written = |path: &PathBuf| -> Option<SystemTime> {
        modified(path).max(modified(&beside(path, "-wal")))
    };
    histories_in(folder).ok()?.into_iter().max_by_key(written)
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::io(format!("make the folder {}", folder.display()), error)
            .with_hint("name a file with -o")
    })
}

/// The host's name up to its first dot, in characters that every file system takes.
fn host() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let short = name.split('.').next()?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    Some(short.chars().map(plain).collect()).filter(|name: &String| !name.is_empty())
}

/// Relative paths are to be passed over, says the XDG Base Directory Specification.
fn state_home() -> Option<PathBuf> {
    let folder = |name: &str| {
        let folder = PathBuf::from(std::env::var_os(name)?);
        folder.is_absolute().then_some(folder)
    };
    folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))
}
