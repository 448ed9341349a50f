//! What is kept over a restart, in a file that is old or new and never half.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gpuev::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::kept_file;
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
        self.save_with(kept_file::replace, state)
    }

    /// As [`save`](Self::save); makes the folder where that is not there.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub(crate) fn save_in_folder(&self, state: &State) -> Result<()> {
        self.save_with(kept_file::replace_in_folder, state)
    }

    fn save_with(
        &self,
        replace: impl FnOnce(&Path, &[u8]) -> io::Result<()>,
        state: &State,
    ) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(io::Error::other);
        let saved = text.and_then(|text| replace(&self.path, &text));
        saved.map_err(|error| self.failed("write", error))
    }

    /// Renames the file to `….damaged`, for a person to look at, so that a new one can be begun. Returns where
    /// it is.
    ///
    /// # Errors
    /// Where it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf> {
        kept_file::set_aside(&self.path).map_err(|error| self.failed("rename", error))
    }

    fn failed(&self, call: &str, error: io::Error) -> Error {
        Error::io(format!("{call} {}", self.path.display()), error).with_hint(
            "alerts are kept there over a restart: look to the folder's rights and space",
        )
    }
}
