//! Where the sockets are of programs that watch GPUs without being the agent: one for each, in a folder of its user.
//!
//! The folder is the user's alone, so that nobody else sees who watches, and may not ask for anything. Root finds all of
//! them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use gpuev::time::boot_now_ns;
use gpuev::{Error, ErrorKind, Result};

/// Names another folder, for those who ask too.
const VARIABLE: &str = "GPUEV_RUNTIME_DIR";
/// Root's folder. Not that of the agent's service, which the service manager removes with it.
const OF_ROOT: &str = "/run/gpuev-watch";
/// What any folder may hold: nobody watches with more programs.
const MOST_SOCKETS: usize = 256;

/// A program that can be asked, as far as its socket tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its socket.
    pub socket: PathBuf,
    /// Whose program it is.
    pub uid: u32,
}

/// The path of a socket for this process, in a folder that is made for it.
///
/// # Errors
/// Where there is no folder that only this user can write to.
pub fn own_socket() -> Result<PathBuf> {
    let mut problem = None;
    for folder in own_folders(fs::exists) {
        match prepare(&folder) {
            Ok(()) => {
                let name = format!("{}-{:x}.sock", std::process::id(), boot_now_ns());
                return Ok(folder.join(name));
            }
            Err(error) => {
                let failed = Error::io(format!("use the folder {}", folder.display()), error);
                problem.get_or_insert(failed);
            }
        }
    }
    Err(problem.unwrap_or_else(|| Error::new(ErrorKind::Io, "there is no folder for sockets")))
}

/// The sockets of all programs that this user may ask: its own, and for root those of all users. What is left of programs
/// that were killed is among them.
#[must_use]
pub fn find() -> Vec<Found> {
    let own = rustix::process::geteuid().as_raw();
    let mut folders = own_folders(fs::exists);
    if own == 0 && std::env::var_os(VARIABLE).is_none() {
        folders.extend(below("/run/user").map(|folder| folder.join("gpuev")));
        let is_users = |folder: &PathBuf| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gpuev-"))
        };
        folders.extend(below("/tmp").filter(is_users));
    }
    folders.sort();
    folders.dedup();
    let may_ask = |uid: u32| own == 0 || uid == own;
    folders.iter().flat_map(|folder| sockets_in(folder)).filter(|one| may_ask(one.uid)).collect()
}

/// Where this user's sockets may be, best first.
fn own_folders(exists: impl Fn(PathBuf) -> io::Result<bool>) -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return vec![folder.into()];
    }
    let uid = rustix::process::geteuid().as_raw();
    let mut folders = Vec::new();
    if uid == 0 {
        folders.push(PathBuf::from(OF_ROOT));
    }
    let session = std::env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    if exists(session.clone()).unwrap_or(false) {
        folders.push(session.join("gpuev"));
    }
    folders.push(PathBuf::from(format!("/tmp/gpuev-{uid}")));
    folders
}

/// Makes the folder, or sees that it is this user's alone.
fn prepare(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    let is_ours = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o022 == 0;
    if is_ours { Ok(()) } else { Err(io::Error::other("others may write to it")) }
}

fn below(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Nothing behind a link, which anybody may have made in a folder of all.
fn sockets_in(folder: &Path) -> Vec<Found> {
    let Ok(about) = fs::symlink_metadata(folder) else { return Vec::new() };
    if !about.is_dir() {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_SOCKETS);
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.map(|entry| Found { socket: entry.path(), uid: about.uid() }).collect()
}
