//! The time in which no agent looked: from the end of the last run, however it ended, to the begin of this one.
//!
//! A run that is killed cannot say when it ended. So while it runs it notes, once a second, up to when all that
//! happened is safe. What lies between that and the next run is a gap of each GPU.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gpuev::time::Anchor;
use gpuev::{Bdf, Error, Gap, GapCause, Gpu, Item, Machine, Result};
use gpuev_store::{History, Query};

use crate::latest::LatestWriter;

/// What arrived so long before a look at an empty queue has been through that queue: the draining thread
/// takes microseconds.
const SURELY_QUEUED_NS: u64 = 1_000_000_000;

/// The latest of a GPU is among the last, unless it is quiet while another is flooded: then its gap is longer
/// than it was.
const LAST_ITEMS: i64 = 4096;

/// A note is a boot id and a number, 36 and at most 20 digits.
const NOTE_LENGTH: usize = 64;

/// Notes up to when all is safe.
#[derive(Debug)]
pub struct AliveNote {
    note: LatestWriter<String>,
    boot_id: String,
    /// When the last item was received, when the queue was found empty, and up to when that means all.
    seen: Option<(u64, u64)>,
    safe_until_ns: u64,
}

impl AliveNote {
    /// The note in `state_dir`. A disk on which it cannot be written makes the next gap longer than it was, and delays
    /// nobody.
    ///
    /// # Errors
    /// No thread is left.
    pub fn open(state_dir: &Path, machine: &Machine) -> Result<Self> {
        let path = path(state_dir);
        let mut file = None;
        let note = LatestWriter::start("alive-note", move |note: String| {
            let written = write_note(&mut file, &path, &note);
            written.map_err(|error| error.to_string())
        });
        let note = note.map_err(|error| Error::io("start a thread", error))?;
        let boot_id = machine.boot_id().unwrap_or_default();
        Ok(Self { note, boot_id, seen: None, safe_until_ns: 0 })
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
            self.note.put(format!("{note:NOTE_LENGTH$}"));
        }
    }

    /// Up to when all is safe, in nanoseconds of `CLOCK_BOOTTIME`; 0 where that is not known yet.
    #[must_use]
    pub const fn safe_until_ns(&self) -> u64 {
        self.safe_until_ns
    }
}

fn write_note(file: &mut Option<File>, path: &Path, note: &str) -> std::io::Result<()> {
    let file = match file {
        Some(file) => file,
        none => none.insert(File::options().create(true).write(true).truncate(false).open(path)?),
    };
    file.write_all_at(note.as_bytes(), 0)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("alive")
}

/// Up to when earlier runs saw what happened.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// On every GPU, in nanoseconds of `CLOCK_BOOTTIME`; 0 where nobody looked since the machine was booted.
    all_until_ns: u64,
    /// On GPUs of which the history knows more. Not one time for all: what was read of one GPU may wait for the
    /// name of a process while later events of another are recorded.
    until_ns: HashMap<(Bdf, u32), u64>,
}

impl Seen {
    /// All of every GPU was seen up to `until_ns`.
    #[must_use]
    pub fn all_until_ns(until_ns: u64) -> Self {
        Self { all_until_ns: until_ns, until_ns: HashMap::new() }
    }

    /// What earlier runs saw, as they noted it in `state_dir` and recorded it in `history`. `None` where there was
    /// no run before.
    ///
    /// # Errors
    /// Where the history is there and cannot be read.
    pub fn before(
        machine: &Machine,
        state_dir: &Path,
        history: Option<&Path>,
    ) -> Result<Option<Self>> {
        let boot_id = machine.boot_id().unwrap_or_default();
        let note = std::fs::read_to_string(path(state_dir)).ok();
        let noted = note.as_deref().and_then(|note| {
            let (boot, until) = note.trim().split_once(' ')?;
            Some((boot.to_owned(), Self::all_until_ns(until.parse().ok()?)))
        });
        let recorded = match history {
            Some(path) if path.exists() => last_recorded(path)?,
            _ => None,
        };
        let runs: Vec<_> = noted.into_iter().chain(recorded).collect();
        if runs.is_empty() {
            return Ok(None);
        }
        let mut seen = Self::default();
        for (_, run) in runs.into_iter().filter(|(boot, _)| *boot == boot_id) {
            seen.all_until_ns = seen.all_until_ns.max(run.all_until_ns);
            seen.until_ns.extend(run.until_ns);
        }
        Ok(Some(seen))
    }

    fn add(&mut self, item: &Item) {
        // Of what is written behind an event the driver's time is later than the event's; it may have happened
        // before the event was received.
        let (gpu, until_ns) = match item {
            Item::Event(event) => (event.gpu, event.time.boot_ns),
            Item::Gap(gap) => (gap.gpu, gap.to_boot_ns),
        };
        let known = self.until_ns.entry((gpu.bdf, gpu.partition)).or_default();
        *known = (*known).max(until_ns);
    }

    /// The gap of a GPU from then up to now.
    #[must_use]
    pub fn gap(&self, gpu: &Gpu) -> Gap {
        let now = Anchor::now();
        let known = self.until_ns.get(&(gpu.id.bdf, gpu.id.partition)).copied().unwrap_or(0);
        Gap {
            gpu: gpu.id,
            cause: GapCause::Reopened,
            count: None,
            from_boot_ns: known.max(self.all_until_ns).min(now.boot_ns),
            to_boot_ns: now.boot_ns,
            unix_ns: now.unix_ns,
        }
    }
}

/// The boot of the history's last session, and what is known of it. When it ended says nothing: the GPUs were
/// let go before that. Nor does one that was killed before it had recorded how long nobody had looked.
fn last_recorded(path: &Path) -> Result<Option<(String, Seen)>> {
    let history = History::open(path)?;
    let (mut sessions, last_item) = (history.sessions()?, history.last_item()?);
    while sessions.len() > 1 && sessions.last().is_some_and(|one| one.first_item > last_item) {
        sessions.pop();
    }
    let Some(last) = sessions.pop() else { return Ok(None) };
    let mut seen = Seen::all_until_ns(last.session.started.boot_ns);
    let first = (last_item - LAST_ITEMS).max(last.first_item - 1);
    for item in history.items(&Query::new().after_item(first)) {
        seen.add(&item?);
    }
    Ok(Some((last.session.boot_id.unwrap_or_default(), seen)))
}
