//! A file of lines that is moved aside when it is large enough: `x`, `x.1`, `x.2`, ….

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Appends whole lines to a file of bounded size and keeps some older ones.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    limit: u64,
    keep: u32,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    /// Opens or makes `path`. Half a line at its end, which a crash left, is cut off: no reader could use it.
    /// It is moved aside before it is larger than `limit` bytes, and `keep` older ones stay.
    pub(super) fn open(path: &Path, limit: u64, keep: u32) -> io::Result<Self> {
        let mut file = open(path)?;
        let bytes = cut_half_line(&mut file)?;
        Ok(Self { path: path.to_owned(), limit, keep, file, bytes })
    }

    /// Appends `lines`, all of them or none. A file that somebody else moved away is begun anew.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.was_moved() {
            *self = Self::open(&self.path, self.limit, self.keep)?;
        }
        let added = lines.len() as u64;
        if self.bytes > 0 && self.bytes + added > self.limit {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            // On a full disk half of them may be there.
            let _best_effort = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += added;
        Ok(())
    }

    /// Brings what is written to the medium.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// By logrotate, or deleted, or cut.
    fn was_moved(&mut self) -> bool {
        let (Ok(there), Ok(ours)) = (fs::metadata(&self.path), self.file.metadata()) else {
            return true;
        };
        self.bytes = ours.len();
        (there.dev(), there.ino()) != (ours.dev(), ours.ino())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            let from = self.numbered(number);
            if from.exists() {
                fs::rename(from, self.numbered(number + 1))?;
            }
        }
        if self.keep > 0 {
            fs::rename(&self.path, self.numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

/// Cuts the file behind its last newline and tells how long it is.
fn cut_half_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - from).unwrap_or(0)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            end = from + newline as u64 + 1;
            break;
        }
        end = from;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}
