//! Recording what happens, in a thread of its own.

mod notebook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gpuev::process::{Process, Processes, Resolution};
use gpuev::{Error, ErrorKind, Item, Result, Subscription};

use crate::writer::Writer;

use notebook::Inbox;
pub use notebook::Notebook;

/// An item is on disk at most so long after it was taken: half of what may be lost, the rest is for the disk.
const COMMIT_AFTER: Duration = Duration::from_millis(500);

/// `/proc` tells when a process began in hundredths of a second.
const START_TICK_NS: u64 = 10_000_000;

/// Between looks at the clock.
const ITEMS_BETWEEN_LOOKS: u32 = 256;

/// Writes what a subscription gives. The subscription's queue is the buffer: when the disk is slow it fills,
/// and what it drops is a gap; nobody waits.
#[derive(Debug)]
pub struct Recorder {
    thread: JoinHandle<Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    gaps: AtomicU64,
    lost: AtomicU64,
    safe_boot_ns: AtomicU64,
    bytes: AtomicU64,
    log_held: AtomicBool,
}

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Events taken.
    pub events: u64,
    /// Gaps taken.
    pub gaps: u64,
    /// Events that those gaps count; some do not know how many.
    pub lost: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`: of what was received up to then, all that was taken is safe from a crash.
    pub safe_boot_ns: u64,
    /// Bytes on disk as of the last commit.
    pub bytes: u64,
    /// A reader holds one snapshot for so long that the log (`-wal`) grows: it cannot be moved into the file.
    pub log_held: bool,
}

impl Recorder {
    /// Starts the thread. It ends when the subscription does, i.e. when its monitor is dropped. What
    /// `processes` knows of those that appear is noted with them.
    ///
    /// # Errors
    /// Where no thread is left.
    pub fn start(writer: Writer, subscription: Subscription, processes: Processes) -> Result<Self> {
        Self::start_with(writer, subscription, (processes, Inbox::default()))
    }

    /// As [`start`](Self::start); what is put into the notebook is written too. It ends when the subscription
    /// has ended and the notebook is dropped.
    ///
    /// # Errors
    /// Where no thread or descriptor is left.
    pub fn start_with_notebook(
        writer: Writer,
        subscription: Subscription,
        processes: Processes,
    ) -> Result<(Self, Notebook)> {
        let (notebook, inbox) = notebook::new()?;
        let recorder = Self::start_with(writer, subscription, (processes, inbox))?;
        Ok((recorder, notebook))
    }

    fn start_with(
        writer: Writer,
        subscription: Subscription,
        (processes, inbox): (Processes, Inbox),
    ) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let thread = std::thread::Builder::new()
            .name("gpuev-record".to_owned())
            .spawn({
                let counts = Arc::clone(&counts);
                move || record(writer, subscription, (&processes, inbox), &counts)
            })
            .map_err(|error| Error::io("start the recording thread", error))?;
        Ok(Self { thread, counts })
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.counts.progress()
    }

    /// Whether it has ended: the subscription did, or writing failed, which [`finish`](Self::finish) tells.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the subscription has ended and all is written.
    ///
    /// # Errors
    /// Why writing failed. What was committed before is there.
    pub fn finish(self) -> Result<Progress> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Stopped, "the recording thread panicked"))
        })?;
        Ok(self.counts.progress())
    }
}

impl Counts {
    fn progress(&self) -> Progress {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Progress {
            events: count(&self.events),
            gaps: count(&self.gaps),
            lost: count(&self.lost),
            safe_boot_ns: count(&self.safe_boot_ns),
            bytes: count(&self.bytes),
            log_held: self.log_held.load(Ordering::Relaxed),
        }
    }

    fn measure(&self, writer: &Writer) {
        self.bytes.store(writer.size_bytes(), Ordering::Relaxed);
        self.log_held.store(writer.is_log_held(), Ordering::Relaxed);
    }

    fn add(&self, item: &Item) {
        match item {
            Item::Event(_) => self.events.fetch_add(1, Ordering::Relaxed),
            Item::Gap(gap) => {
                self.lost.fetch_add(gap.count.unwrap_or(0), Ordering::Relaxed);
                self.gaps.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

fn record(
    mut writer: Writer,
    mut items: Subscription,
    (processes, mut inbox): (&Processes, Inbox),
    counts: &Counts,
) -> Result<()> {
    counts.measure(&writer);
    let mut written = Written::default();
    while !items.is_finished() {
        let idle = writer.tick()?;
        if let Some(first) = inbox.wait(&mut items, idle)? {
            written = record_burst(&mut writer, &mut items, first, counts)?;
        }
        inbox.write_until(written.received_ns, &mut writer)?;
        describe(&mut writer, processes)?;
        writer.commit()?;
        counts.safe_boot_ns.fetch_max(written.whole_until_ns, Ordering::Release);
        counts.measure(&writer);
    }
    inbox.write_rest(&mut writer)?;
    writer.close()
}

/// How far a recording is by the clock of receipt.
#[derive(Default)]
struct Written {
    /// When the latest item was received that is written.
    received_ns: u64,
    /// Up to when all is written: items of one read have one time, and some of the last may be still to come.
    whole_until_ns: u64,
}

/// Writes `first` and what follows it within the time that a commit may wait.
fn record_burst(
    writer: &mut Writer,
    items: &mut Subscription,
    first: Item,
    counts: &Counts,
) -> Result<Written> {
    let due = Instant::now() + COMMIT_AFTER;
    let mut next = Some(first);
    let mut unlooked = 0;
    let mut received_ns = 0;
    while let Some(item) = next {
        counts.add(&item);
        // The latest: one that waits for its name is some milliseconds late.
        received_ns = received_ns.max(match &item {
            Item::Event(event) => event.time.received_boot_ns,
            Item::Gap(gap) => gap.to_boot_ns,
        });
        writer.append(&item)?;
        unlooked += 1;
        if unlooked >= ITEMS_BETWEEN_LOOKS {
            unlooked = 0;
            if Instant::now() >= due {
                return Ok(Written { received_ns, whole_until_ns: received_ns.saturating_sub(1) });
            }
        }
        next = items.try_next();
        if next.is_none() {
            next = items.wait(Some(due.saturating_duration_since(Instant::now())));
        }
    }
    Ok(Written { received_ns, whole_until_ns: received_ns })
}

/// Notes who the new processes are, while they still run.
fn describe(writer: &mut Writer, processes: &Processes) -> Result<()> {
    for new in writer.take_undescribed() {
        // By now another process may have the number: it began after what is recorded.
        let was_there = |process: &Process| {
            process.start_boot_ns.is_none_or(|began| began <= new.seen_boot_ns + START_TICK_NS)
        };
        if let Resolution::Exact(pid) = processes.resolve(new.key.pid, new.key.name)
            && let Some(process) = processes.describe(pid).filter(was_there)
        {
            writer.describe(new.number, &process)?;
        }
    }
    Ok(())
}
