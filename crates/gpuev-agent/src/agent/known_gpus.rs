//! The GPUs of the machine on disk, written when they change by a thread that nobody waits for.

use std::path::Path;
use std::time::Duration;

use gpuev::{Error, Result};

use crate::inventory::{FILE, Inventory};
use crate::kept_file;
use crate::latest::{LatestWriter, Written};

/// Keeps the inventory.
pub(super) struct KnownGpus {
    writer: LatestWriter<Inventory>,
    /// What was given to the writer last, and its number there.
    given: Option<(Inventory, u64)>,
}

impl KnownGpus {
    pub(super) fn start(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        let writer = LatestWriter::start("known-gpus", move |inventory: Inventory| {
            let text = serde_json::to_vec(&inventory).map_err(|error| error.to_string())?;
            kept_file::replace_in_folder(&path, &text).map_err(|error| error.to_string())
        });
        let writer = writer.map_err(|error| Error::io("start a thread", error))?;
        Ok(Self { writer, given: None })
    }

    /// Keeps `inventory`, where it has changed or could not be written.
    pub(super) fn keep(&mut self, inventory: &Inventory) {
        let is_kept = self.given.as_ref().is_some_and(|(given, number)| {
            let written = self.writer.wait(*number, Duration::ZERO);
            given == inventory && !matches!(written, Written::Failed(_))
        });
        if !is_kept {
            let number = self.writer.put(inventory.clone());
            self.given = Some((inventory.clone(), number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_could_not_be_written_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        fs::write(&state_dir, "in the way").unwrap();
        let (mut known, inventory) =
            (KnownGpus::start(&state_dir).unwrap(), Inventory::new("boot"));
        let mut keep = || {
            known.keep(&inventory);
            let number = known.given.as_ref().unwrap().1;
            (number, known.writer.wait(number, Duration::from_secs(60)))
        };
        assert!(matches!(keep(), (1, Written::Failed(_))));
        fs::remove_file(&state_dir).unwrap();
        assert_eq!(keep(), (2, Written::Yes));
        assert_eq!(keep(), (2, Written::Yes), "it has not changed");
        assert!(state_dir.join(FILE).exists());
    }
}
