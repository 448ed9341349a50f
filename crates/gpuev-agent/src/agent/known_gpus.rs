//! The GPUs of the machine on disk, written when they change by a thread that nobody waits for.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gpuev::{Error, Result};

use crate::inventory::{FILE, Inventory};
use crate::latest::LatestWriter;

/// Keeps the inventory.
pub(super) struct KnownGpus {
    writer: LatestWriter<Inventory>,
    written: Option<Inventory>,
}

impl KnownGpus {
    pub(super) fn start(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        let writer = LatestWriter::start("known-gpus", move |inventory: Inventory| {
            write(&path, &inventory).map_err(|error| error.to_string())
        });
        let writer = writer.map_err(|error| Error::io("start a thread", error))?;
        Ok(Self { writer, written: None })
    }

    /// Keeps `inventory`, where it has changed.
    pub(super) fn keep(&mut self, inventory: &Inventory) {
        if self.written.as_ref() != Some(inventory) {
            self.writer.put(inventory.clone());
            self.written = Some(inventory.clone());
        }
    }
}

fn write(path: &Path, inventory: &Inventory) -> std::io::Result<()> {
    let mut new: PathBuf = path.to_owned();
    new.set_extension("json.new");
    let options =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let mut file = options.open(&new)?;
    file.write_all(&serde_json::to_vec(inventory)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
