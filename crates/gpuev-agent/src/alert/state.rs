//! What is kept over a restart, in a file that is old or new and never half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gpuev::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::rule::SavedRule;

use super::{AlertChange, SavedBook};

const VERSION: u32 = 1;
/// Alerts and windows are bounded; a longer file is not one of ours.
const LONGEST: u64 = 256 << 20;

/// Alerts, silences, and what rules have counted: what is kept over a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    version: u32,
    pub(crate) boot_id: String,
    pub(crate) rules: Vec<SavedRule>,
    pub(crate) book: SavedBook,
    /// Changes that sinks were about to be told: the book says that they are told, and a crash may have been
    /// faster.
    #[serde(default)]
    pub(crate) on_the_way: Vec<AlertChange>,
}

impl State {
    pub(crate) fn new(boot_id: &str, rules: Vec<SavedRule>, book: SavedBook) -> Self {
        Self { version: VERSION, boot_id: boot_id.to_owned(), rules, book, on_the_way: Vec::new() }
    }
}

/// The file that keeps a [`State`].
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// What it keeps; `None` where there is no file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no state that this version can go on from. What is damaged can be put
    /// aside with [`set_aside`](Self::set_aside).
    pub fn load(&self) -> Result<Option<State>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open", error)),
        };
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).map_err(|error| self.failed("read", error))?;
        let state: State = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} is no state of alerts: {error}", self.path.display());
            Error::new(ErrorKind::InvalidInput, what).with_hint("it is damaged: set it aside")
        })?;
        if state.version != VERSION {
            let what = format!("{} is of version {}", self.path.display(), state.version);
            return Err(Error::new(ErrorKind::NotSupported, what)
                .with_hint(format!("this gpuev reads version {VERSION}: set the file aside")));
        }
        Ok(Some(state))
    }

    /// Keeps `state`: whoever reads it, even after a power failure in the middle, finds the old state or the
    /// new one.
    ///
    /// # Errors
    /// Where the file cannot be written; the old one stays.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state)
            .map_err(|error| self.failed("write", io::Error::other(error)))?;
        let new = self.beside("new");
        let written = write_whole(&new, &text)
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| sync_folder(&self.path));
        written.map_err(|error| self.failed("write", error))
    }

    /// As [`save`](Self::save); makes the folder where that is not there.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub(crate) fn save_in_folder(&self, state: &State) -> Result<()> {
        let saved = self.save(state);
        match self.path.parent() {
            Some(folder) if saved.is_err() && !folder.exists() => {
                fs::create_dir_all(folder)
                    .map_err(|error| self.failed("create the folder of", error))?;
                self.save(state)
            }
            _ => saved,
        }
    }

    /// Renames the file to `….damaged`, for a person to look at, so that a new one can be begun. Returns where
    /// it is.
    ///
    /// # Errors
    /// Where it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let aside = self.beside("damaged");
        fs::rename(&self.path, &aside).map_err(|error| self.failed("rename", error))?;
        Ok(aside)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn failed(&self, call: &str, error: io::Error) -> Error {
        Error::io(format!("{call} {}", self.path.display()), error).with_hint(
            "alerts are kept there over a restart: look to the folder's rights and space",
        )
    }
}

/// What alerts say is nobody else's business: commands and users are in them.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
