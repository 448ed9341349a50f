//! Opening a history: what may hang, and what is done about a file that cannot be used.

use std::fs;
use std::path::PathBuf;

use gpuev::{Error, ErrorKind, Gap, Item, Result};
use gpuev_store::{Retention, Session, Writer};

use crate::kept_file::beside;

/// What there is to do.
pub(super) struct Opening {
    pub(super) file: PathBuf,
    pub(super) is_own: bool,
    pub(super) is_damaged: bool,
    pub(super) session: Session,
    pub(super) retention: Retention,
    pub(super) gaps: Vec<Gap>,
}

/// A history in which a session has begun.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Writer,
    /// Of a file that was put aside: what is told of that.
    pub(super) put_aside: Option<String>,
}

impl Opening {
    pub(super) fn run(self) -> Result<Opened> {
        let mut put_aside = None;
        if let (true, Some(folder)) = (self.is_own, self.file.parent()) {
            fs::create_dir_all(folder)
                .map_err(|error| Error::io(format!("create {}", folder.display()), error))?;
        }
        if self.is_own && self.is_damaged && self.file.exists() {
            put_aside = Some(self.put_aside("damaged", "it is damaged")?);
        }
        let mut writer = match Writer::open(&self.file, &self.session) {
            Err(error) if self.is_own && self.file.is_file() => {
                let suffix = match error.kind() {
                    ErrorKind::InvalidInput => "damaged",
                    ErrorKind::NotSupported => "newer",
                    _ => return Err(error),
                };
                put_aside = Some(self.put_aside(suffix, &error.to_string())?);
                Writer::open(&self.file, &self.session)?
            }
            opened => opened?,
        }
        .with_retention(self.retention);
        for gap in &self.gaps {
            writer.append(&Item::Gap(gap.clone()))?;
        }
        writer.commit()?;
        Ok(Opened { writer, put_aside })
    }

    /// Renames the file, with its log, for a person to look at. One of each kind is kept.
    fn put_aside(&self, suffix: &str, why: &str) -> Result<String> {
        let aside = beside(&self.file, format!(".{suffix}"));
        for part in ["-wal", "-shm", ""] {
            let (from, to) = (beside(&self.file, part), beside(&aside, part));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("rename {}", from.display()), error));
                }
                Err(_) if !part.is_empty() => {
                    // The log of the one that was put aside before.
                    let _none = fs::remove_file(&to);
                }
                _ => {}
            }
        }
        let (file, aside) = (self.file.display(), aside.display());
        Ok(format!("{why}; {file} is now {aside}, and a new history begins"))
    }
}
