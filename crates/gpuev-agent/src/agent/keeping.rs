//! The alerts on disk: kept before they are told, where the disk answers in time.

use std::path::Path;
use std::time::Duration;

use gpuev::{Error, Result};

use super::say;
use crate::alert::{State, StateFile};
use crate::detached;
use crate::latest::{LatestWriter, Written};

/// How long telling waits for the disk. Somebody should be told within five seconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// Keeps the state of alerts.
pub(super) struct Keeping {
    file: StateFile,
    writer: LatestWriter<State>,
    /// The last that was given to a disk that did not answer in time.
    late: Option<u64>,
    failure: Option<String>,
}

impl Keeping {
    pub(super) fn start(path: &Path) -> Result<Self> {
        let file = StateFile::at(path);
        let writes = file.clone();
        let writer = LatestWriter::start("alert-state", move |state: State| {
            writes.save_in_folder(&state).map_err(|error| error.to_string())
        });
        let writer = writer.map_err(|error| Error::io("start a thread", error))?;
        Ok(Self { file, writer, late: None, failure: None })
    }

    /// What was kept by earlier runs. What is damaged is put aside, and a disk that does not answer is not waited for:
    /// alerts begin anew then, which is said.
    pub(super) fn load(&self) -> Option<State> {
        let file = self.file.clone();
        let loaded = detached::start("alert-load", move || {
            file.load().unwrap_or_else(|error| {
                match file.set_aside() {
                    Ok(aside) => {
                        say(&format!(
                            "{error}; it is now {}, and alerts begin anew",
                            aside.display()
                        ));
                    }
                    Err(stays) => say(&format!("{error}; {stays}; alerts begin anew")),
                }
                None
            })
        });
        let loaded = loaded.map_err(|error| format!("start a thread: {error}"));
        let loaded = loaded.and_then(|loaded| {
            let late = |_| "the disk with the alerts of before does not answer".to_owned();
            loaded.recv_timeout(DEADLINE).map_err(late)
        });
        loaded.unwrap_or_else(|why| {
            say(&format!("{why}; alerts begin anew"));
            None
        })
    }

    /// Keeps `state`; whether it is on disk now. A disk that was late once is not waited for until it has caught up.
    pub(super) fn keep(&mut self, state: State) -> bool {
        let number = self.writer.put(state);
        let patience = match self.late {
            Some(late) if self.writer.wait(late, Duration::ZERO) == Written::Late => Duration::ZERO,
            _ => DEADLINE,
        };
        let written = self.writer.wait(number, patience);
        self.late = (written == Written::Late).then_some(number);
        self.note(written)
    }

    fn note(&mut self, written: Written) -> bool {
        let failure = match written {
            Written::Yes => None,
            Written::Failed(error) => Some(error),
            Written::Late => Some("the disk does not answer".to_owned()),
        };
        match (&failure, &self.failure) {
            (Some(why), None) => {
                say(&format!("{why}; a restart will not know of what is told now"));
            }
            (None, Some(_)) => say("alerts are kept on disk again"),
            _ => {}
        }
        self.failure = failure;
        self.failure.is_none()
    }

    /// Looks whether a disk that was late has caught up.
    pub(super) fn look_again(&mut self) {
        if let Some(late) = self.late {
            let written = self.writer.wait(late, Duration::ZERO);
            if written != Written::Late {
                self.late = None;
                self.note(written);
            }
        }
    }

    /// Why nothing is kept, where nothing is.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}
