//! Several histories read as one: files, and folders of files.
//!
//! A session has one id wherever it is copied to, and an item one number in its session. So what several files hold
//! of one session is one session here, and each of its items is read once, from the file that has it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use gpuev::process::Process;
use gpuev::{Error, ErrorKind, Result};

use crate::history::History;
use crate::location::histories_in;
use crate::plan::Plan;
use crate::recorded::RecordedSession;

/// Histories that are read as one, in the order in which their sessions began.
#[derive(Debug)]
pub struct Histories {
    pub(crate) files: Vec<History>,
    unreadable: Vec<(PathBuf, Error)>,
}

impl From<History> for Histories {
    fn from(history: History) -> Self {
        Self { files: vec![history], unreadable: Vec::new() }
    }
}

impl Histories {
    /// Opens the histories that `paths` name. Of a folder, those in it: what cannot be read there is left out, and
    /// told by [`unreadable`](Self::unreadable).
    ///
    /// # Errors
    /// Where a file that is named cannot be read, and where there is none at all.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut histories = Self { files: Vec::new(), unreadable: Vec::new() };
        let mut known = HashSet::new();
        for path in paths.iter().map(AsRef::as_ref) {
            if !path.is_dir() {
                histories.add(path, &mut known)?;
                continue;
            }
            for path in histories_in(path)? {
                if let Err(error) = histories.add(&path, &mut known) {
                    histories.unreadable.push((path, error));
                }
            }
        }
        if histories.files.is_empty() {
            return Err(histories.nothing(paths));
        }
        Ok(histories)
    }

    /// Opens one file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open_file(path: &Path) -> Result<Self> {
        History::open(path).map(Self::from)
    }

    /// A file that has two names is read once.
    fn add(&mut self, path: &Path, known: &mut HashSet<PathBuf>) -> Result<()> {
        let history = History::open(path)?;
        if known.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            self.files.push(history);
        }
        Ok(())
    }

    fn nothing<P: AsRef<Path>>(&mut self, paths: &[P]) -> Error {
        if !self.unreadable.is_empty() {
            return self.unreadable.swap_remove(0).1;
        }
        let names = paths.iter().map(|path| path.as_ref().display().to_string());
        let what = format!("{}: no history in it", names.collect::<Vec<_>>().join(", "));
        Error::new(ErrorKind::InvalidInput, what).with_hint(
            "`gpuev record -o FILE` makes one; the name of a history in a folder ends with .db",
        )
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[History] {
        &self.files
    }

    /// Files of a folder that cannot be read, and why.
    #[must_use]
    pub fn unreadable(&self) -> &[(PathBuf, Error)] {
        &self.unreadable
    }

    /// The names of the files, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.files[..] {
            [one] => one.path().display().to_string(),
            files => format!("{} histories", files.len()),
        }
    }

    /// The sessions in the order in which they are read, each once. Of one file their numbers are the file's.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn sessions(&self) -> Result<Vec<RecordedSession>> {
        let plan = Plan::of(&self.files)?;
        Ok(plan.sessions().map(|recorded| recorded.as_ref().clone()).collect())
    }

    /// The processes of a session that were described when they were first seen, each with the number by which
    /// events name it, oldest first.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn processes(&self, recorded: &RecordedSession) -> Result<Vec<(u32, Process)>> {
        let mut processes = Vec::new();
        for (file, session) in &recorded.parts {
            if let Some(history) = self.files.get(*file) {
                processes.extend(history.processes(*session)?);
            }
        }
        Ok(processes)
    }

    /// Where a session lies, for people.
    pub(crate) fn name_of(&self, recorded: &RecordedSession) -> String {
        let parts = recorded.parts.iter().filter_map(|(file, _)| self.files.get(*file));
        let names: Vec<String> = parts.map(|file| file.path().display().to_string()).collect();
        if names.is_empty() { self.name() } else { names.join(", ") }
    }
}
