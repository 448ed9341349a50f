//! Records as JSON lines in a file that is rotated.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Kind, Message};
use super::outbox::OutboxSettings;
use super::rotate::RotatingFile;
use super::settings::{Context, SinkSettings};
use super::{Failure, Filter, Order, Sink};
use crate::quantity::{Period, Size};

/// `[sinks.file.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The file. Its folder must be there.
    pub path: PathBuf,
    /// It is moved to `PATH.1` before it is larger than this.
    #[serde(default = "max_size")]
    pub max_size: Size,
    /// How many older ones are kept.
    #[serde(default = "keep")]
    pub keep: u32,
    /// How often it is brought to the medium; 0 leaves that to the kernel.
    #[serde(default = "sync_every")]
    pub sync_every: Period,
    /// What is written. Unset: all records but readings, and every change of an alert.
    #[serde(default)]
    pub send: Filter,
    /// How messages wait. Nothing is kept on disk unless `queue.spool` says so: the file is on disk as well.
    #[serde(default)]
    pub queue: OutboxSettings,
}

const fn max_size() -> Size {
    Size(100 << 20)
}

const fn keep() -> u32 {
    5
}

const fn sync_every() -> Period {
    Period::from_secs(5)
}

impl SinkSettings for FileSettings {
    const KIND: &'static str = "file";
    const PROMISES: bool = false;

    fn defaults() -> Filter {
        Filter::of(Kind::ALL.into_iter().filter(|kind| *kind != Kind::Health))
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, _context: &Context) -> Result<Box<dyn Sink>, String> {
        Ok(Box::new(FileSink { settings: self.clone(), file: None, unsynced: false }))
    }
}

struct FileSink {
    settings: FileSettings,
    file: Option<RotatingFile>,
    unsynced: bool,
}

impl FileSink {
    fn failure(&self, error: impl Display) -> Failure {
        let path = self.settings.path.display();
        Failure::unreachable(format!(
            "{path}: {error}; its folder must exist, be writable for the agent and have room"
        ))
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let FileSettings { path, max_size, keep, .. } = &self.settings;
                none.insert(RotatingFile::open(path, max_size.0, *keep)?)
            }
        };
        file.write(lines)
    }
}

impl Sink for FileSink {
    fn batch(&self) -> usize {
        256
    }

    fn order(&self) -> Order {
        Order::Lines
    }

    fn tells_loss(&self) -> bool {
        true
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        let mut lines = Vec::with_capacity(batch.iter().map(|m| m.json.len() + 1).sum());
        for message in batch {
            lines.extend_from_slice(message.json.as_bytes());
            lines.push(b'\n');
        }
        if let Err(error) = self.write(&lines) {
            self.file = None;
            return Err(self.failure(error));
        }
        self.unsynced = true;
        Ok(0)
    }

    fn upkeep_every(&self) -> Option<Duration> {
        let every = self.settings.sync_every.0;
        (self.unsynced && every > Duration::ZERO).then_some(every)
    }

    fn upkeep(&mut self) -> Result<(), Failure> {
        let synced = self.file.as_ref().map_or(Ok(()), RotatingFile::sync);
        synced.map_err(|error| self.failure(error))?;
        self.unsynced = false;
        Ok(())
    }
}
