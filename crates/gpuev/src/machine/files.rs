//! Bounded reading of small kernel files.
//!
//! What should be a file of sysfs or procfs may be anything once the root is not `/`: a gigabyte, a FIFO, a
//! folder. Nothing here waits, and nothing reads more than it was told to.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// One page: the kernel never gives more for one sysfs text attribute.
pub(crate) const PAGE: usize = 4096;

/// The first `limit` bytes of a regular file.
///
/// # Errors
/// What the operating system says; `InvalidInput` for what is not a regular file.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK the open of a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // The size that the kernel gives for its own files is a guess, and 0 in /proc.
    let size = usize::try_from(stat.st_size).unwrap_or(0).max(PAGE);
    let mut bytes = Vec::with_capacity(size.min(limit));
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    File::from(fd).take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One text attribute, without the blanks around it; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// As [`read`].
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let bytes = read(path, PAGE)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// One text attribute that says something.
pub(crate) fn non_empty(path: &Path) -> Option<String> {
    text(path).ok().filter(|text| !text.is_empty())
}

/// One decimal number; `None` for whatever is not one.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path).ok()?.parse().ok()
}
