//! The time in which no agent looked: from the end of the last run, however it ended, to the begin of this one.
//!
//! A run that is killed cannot say when it ended. So while it runs it notes, once a second, up to when all that
//! happened is safe. What lies between that and the next run is a gap of each GPU.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gpuev::time::Anchor;
use gpuev::{Error, Gap, GapCause, Gpu, Item, Machine, Result};
use gpuev_store::{History, Query};

/// What arrived so long before a look at an empty queue has been through that queue: the draining thread
/// takes microseconds.
const SURELY_QUEUED_NS: u64 = 1_000_000_000;

/// The latest item is among the last: those that wait for a name are some milliseconds late.
const LAST_ITEMS: i64 = 4096;

/// A note is a boot id and a number, 36 and at most 20 digits.
const NOTE_LENGTH: usize = 64;

/// Notes up to when all is safe.
#[derive(Debug)]
pub struct AliveNote {
    file: File,
    boot_id: String,
    /// When the last item was received, when the queue was found empty, and up to when that means all.
    seen: Option<(u64, u64)>,
    safe_until_ns: u64,
}

impl AliveNote {
    /// The note in `state_dir`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn open(state_dir: &Path, machine: &Machine) -> Result<Self> {
        let path = path(state_dir);
        let file = File::options().create(true).write(true).truncate(false).open(&path);
        let file = file.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let boot_id = machine.boot_id().unwrap_or_default();
        Ok(Self { file, boot_id, seen: None, safe_until_ns: 0 })
    }

    /// The queue is empty at `now_ns`, and the last that was taken from it was received at `received_ns`.
    pub fn queue_is_empty(&mut self, received_ns: u64, now_ns: u64) {
        if self.seen.is_none() {
            self.seen = Some((received_ns, now_ns.saturating_sub(SURELY_QUEUED_NS)));
        }
    }

    /// All that was received up to `safe_ns` is on disk.
    pub fn on_disk(&mut self, safe_ns: u64) {
        if let Some((received_ns, until_ns)) = self.seen
            && safe_ns >= received_ns
        {
            self.seen = None;
            self.safe_until_ns = self.safe_until_ns.max(until_ns);
            let note = format!("{} {until_ns}", self.boot_id);
            // A note that cannot be written makes the next gap longer than it was.
            let _longer_gap = self.file.write_all_at(format!("{note:NOTE_LENGTH$}").as_bytes(), 0);
        }
    }

    /// Up to when all is safe, in nanoseconds of `CLOCK_BOOTTIME`; 0 where that is not known yet.
    #[must_use]
    pub const fn safe_until_ns(&self) -> u64 {
        self.safe_until_ns
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("alive")
}

/// Since when nobody has looked, in nanoseconds of `CLOCK_BOOTTIME`: 0 where it was not since the machine was
/// booted; `None` where there was no run before.
///
/// # Errors
/// Where the history is there and cannot be read.
pub fn blind_since_ns(
    machine: &Machine,
    state_dir: &Path,
    history: Option<&Path>,
) -> Result<Option<u64>> {
    let boot_id = machine.boot_id().unwrap_or_default();
    let note = std::fs::read_to_string(path(state_dir)).ok();
    let noted = note.as_deref().and_then(|note| {
        let (boot, until) = note.trim().split_once(' ')?;
        Some((boot.to_owned(), until.parse::<u64>().ok()?))
    });
    let recorded = match history {
        Some(path) if path.exists() => last_recorded(path)?,
        _ => None,
    };
    let runs: Vec<_> = noted.into_iter().chain(recorded).collect();
    let of_this_boot = runs.iter().filter(|(boot, _)| *boot == boot_id).map(|(_, until)| *until);
    Ok(if runs.is_empty() { None } else { Some(of_this_boot.max().unwrap_or(0)) })
}

/// The boot of the history's last session, and the latest that it knows.
fn last_recorded(path: &Path) -> Result<Option<(String, u64)>> {
    let history = History::open(path)?;
    let Some(last) = history.sessions()?.pop() else { return Ok(None) };
    let session = last.session;
    let mut until_ns = session.ended.map_or(session.started.boot_ns, |ended| ended.boot_ns);
    let first = (history.last_item()? - LAST_ITEMS).max(last.first_item - 1);
    for item in history.items(&Query::new().after_item(first)) {
        until_ns = until_ns.max(match item? {
            Item::Event(event) => event.time.received_boot_ns,
            Item::Gap(gap) => gap.to_boot_ns,
        });
    }
    Ok(Some((session.boot_id.unwrap_or_default(), until_ns)))
}

/// The gap of a GPU in which nobody looked, up to now.
#[must_use]
pub fn blind_gap(gpu: &Gpu, since_ns: u64) -> Gap {
    let now = Anchor::now();
    Gap {
        gpu: gpu.id,
        cause: GapCause::Reopened,
        count: None,
        from_boot_ns: since_ns.min(now.boot_ns),
        to_boot_ns: now.boot_ns,
        unix_ns: now.unix_ns,
    }
}
