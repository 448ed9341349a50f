//! The files of a simulated machine: `sys`, `proc`, `etc` and `dev` under one folder.
//!
//! As in sysfs, folders of devices are under `sys/devices` and all else is links to them.

pub(crate) mod device;
pub(crate) mod found;
pub(crate) mod hwmon;
pub(crate) mod process;
pub(crate) mod system;
pub(crate) mod topology;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

/// A file that nobody may read, root included, for lack of an exception: a sysctl.
const UNREADABLE: &str = "/proc/sys/vm/compact_memory";

/// Where trees may be, the best first: in memory, unless the user wishes otherwise. Some hundred
/// files a GPU take a disk a hundred times as long.
pub(crate) fn parents() -> Vec<PathBuf> {
    let temporary = std::env::temp_dir();
    match std::env::var_os("TMPDIR") {
        Some(_) => vec![temporary],
        None => vec![PathBuf::from("/dev/shm"), temporary],
    }
}

const PREFIX: &str = "gpuev-sim-";
/// A tree younger than this may not be locked yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Removes trees that killed processes left behind: nobody holds their lock.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let named =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
    for entry in entries.flatten().filter(named) {
        let age = entry.metadata().and_then(|meta| meta.modified()).map(|time| time.elapsed());
        if !matches!(age, Ok(Ok(age)) if age > YOUNG) {
            continue;
        }
        let free = fs::File::open(entry.path()).is_ok_and(|dir| {
            rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        if free {
            // Somebody else's that may not be removed stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder that is removed when this is dropped.
pub(crate) struct Tree {
    dir: TempDir,
    /// Held as long as the tree is in use, however its process ends.
    _lock: fs::File,
    written: AtomicU64,
}

impl Tree {
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = fs::File::open(dir.path())?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let tree = Tree { dir, _lock: lock, written: AtomicU64::new(0) };
        fs::create_dir(tree.root())?;
        fs::create_dir(tree.scratch())?;
        // Other users may be put on the machine, too.
        fs::set_permissions(tree.dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(tree)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// For files that are not yet to be seen.
    fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// Where `path` is, which must not lead out of the tree.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let relative = path.strip_prefix("/").unwrap_or(path);
        if relative.components().all(inside) {
            return Ok(self.root().join(relative));
        }
        let what = format!("{} leads out of the simulated machine", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    /// Puts a file in place at once: whoever reads sees the old content or the new.
    pub(crate) fn write(
        &self,
        path: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        let place = self.path(path)?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let draft = self.scratch().join(number.to_string());
        fs::write(&draft, content)?;
        fs::rename(&draft, &place).or_else(|_| {
            // The first file of its folder.
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::rename(&draft, &place)
        })
    }

    pub(crate) fn mkdir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        fs::create_dir_all(self.path(path)?)
    }

    /// A link at `path` to `target`, both from the root; written relative, as sysfs does.
    pub(crate) fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let above = path.split('/').zip(target.split('/')).take_while(|(a, b)| a == b).count();
        let up = path.split('/').count() - 1 - above;
        let down: Vec<&str> = target.split('/').skip(above).collect();
        self.symlink(path, &format!("{}{}", "../".repeat(up), down.join("/")))
    }

    /// A link with this very text.
    pub(crate) fn symlink(&self, path: &str, text: &str) -> io::Result<()> {
        let place = self.path(path)?;
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        self.remove(path)?;
        symlink(text, place)
    }

    /// A file that gives "not permitted" to everybody.
    pub(crate) fn deny(&self, path: &str) -> io::Result<()> {
        self.symlink(path, UNREADABLE)
    }

    /// Removes a file, a link or a folder with all in it; no error if there is none.
    pub(crate) fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let place = self.path(path)?;
        let removed = match fs::symlink_metadata(&place) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&place),
            Ok(_) => fs::remove_file(&place),
            Err(error) => Err(error),
        };
        removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    }
}

/// Writes several files of one folder.
pub(crate) fn write_all<C: AsRef<[u8]>>(
    tree: &Tree,
    dir: &str,
    files: impl IntoIterator<Item = (&'static str, C)>,
) -> io::Result<()> {
    files.into_iter().try_for_each(|(name, content)| tree.write(format!("{dir}/{name}"), content))
}
