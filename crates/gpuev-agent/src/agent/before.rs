//! What earlier runs left on disk, where the disk answers.

use std::path::Path;
use std::time::Duration;

use gpuev::{Error, Machine, Result};

use super::say;
use crate::blind::Seen;
use crate::detached;
use crate::inventory::{self, Inventory};
use crate::kept_file;

/// How long the start waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of earlier runs.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Up to when they saw what happened; `None` where there was no run, or the disk does not tell.
    pub(super) seen: Option<Seen>,
    /// The GPUs that there were.
    pub(super) inventory: Option<Inventory>,
    /// Why the state folder cannot be used.
    pub(super) lack: Option<String>,
}

impl Before {
    /// Makes the state folder where there is none, and reads what is in it.
    pub(super) fn look(machine: &Machine, state_dir: &Path, history: Option<&Path>) -> Self {
        let (machine, folder) = (machine.clone(), state_dir.to_owned());
        let history = history.map(Path::to_owned);
        let look = move || Self::look_now(&machine, &folder, history.as_deref());
        let looked = detached::start("gpuev-before", look);
        let looked = looked.map_err(|error| format!("start a thread: {error}"));
        let before = looked.and_then(|looked| {
            looked.recv_timeout(PATIENCE).map_err(|_| "the disk does not answer".to_owned())
        });
        let before = before.unwrap_or_else(|why| Self { lack: Some(why), ..Self::default() });
        if let Some(why) = &before.lack {
            let folder = state_dir.display();
            say(&format!("{folder} cannot be used: {why}; a restart will not know of this run"));
        }
        before
    }

    fn look_now(machine: &Machine, state_dir: &Path, history: Option<&Path>) -> Self {
        let made: Result<()> = std::fs::create_dir_all(state_dir).map_err(|error| {
            Error::io(format!("create {}", state_dir.display()), error)
                .with_hint("agent.state_dir names another folder")
        });
        let lack = made.err().map(|error| error.to_string());
        // Of a history that cannot be read the recording tells. The note beside it says enough.
        let seen = Seen::before(machine, state_dir, history)
            .or_else(|_| Seen::before(machine, state_dir, None))
            .unwrap_or_default();
        let boot_id = machine.boot_id().unwrap_or_default();
        Self { seen, inventory: inventory(state_dir, &boot_id), lack }
    }
}

/// The GPUs that there were. A file that is damaged or newer is put aside: the GPUs of now are what counts then.
fn inventory(state_dir: &Path, boot_id: &str) -> Option<Inventory> {
    let path = state_dir.join(inventory::FILE);
    let text = std::fs::read_to_string(&path).ok()?;
    let why = match Inventory::read(&text, boot_id) {
        Ok(inventory) => return Some(inventory),
        Err(why) => why,
    };
    let moved = match kept_file::set_aside(&path) {
        Ok(aside) => format!("it is now {}", aside.display()),
        Err(error) => format!("it cannot be renamed: {error}"),
    };
    let path = path.display();
    say(&format!("{path} cannot be used: {why}; {moved}; GPUs that are missing now are not told"));
    None
}
