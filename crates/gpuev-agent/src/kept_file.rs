//! Small files of the state folder: old or new and never half, and put aside where they cannot be used.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes the file anew: a reader finds the old text or the new one, even after a power failure in the middle.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    // What the agent keeps is nobody else's business: commands and users are in it.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// As [`replace`]; makes the folder where there is none.
pub(crate) fn replace_in_folder(path: &Path, text: &[u8]) -> io::Result<()> {
    let replaced = replace(path, text);
    match path.parent() {
        Some(folder) if replaced.is_err() && !folder.exists() => {
            fs::create_dir_all(folder)?;
            replace(path, text)
        }
        _ => replaced,
    }
}

/// Renames the file to `….damaged`, for a person to look at. Returns where it is.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// `queue.db` and `-wal` give `queue.db-wal`.
pub(crate) fn beside(path: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
