//! What waits for sinks, on disk: a mirror of their queues for the next start.
//!
//! The queues in memory lead. They note here what waits and what is done with, and never wait for it: one thread
//! writes what was noted, many notes in one transaction, and what was done with before it was written costs nothing. A
//! disk that is full, hung or gone is told once and tried again; messages are delivered meanwhile as ever.

mod file;
mod old;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::message::Message;
use super::outbox::{Notice, Report, SyncPolicy};
use crate::backoff::Backoff;
use file::QueueFile;

/// Under which name trouble is told: it is that of all sinks.
const NAME: &str = "all";
/// Messages that may wait to be written. More are not kept, and counted.
const MOST_PENDING: usize = 65_536;
/// How long a disk that fails is left alone.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The queues of all sinks on disk.
pub struct Mirror {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What an earlier run left for a sink.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Messages that were not delivered, the oldest first.
    pub(super) waiting: Vec<Message>,
    /// Alerts, and the last revision of each that was delivered.
    pub(super) told: Vec<(Arc<str>, u64)>,
}

/// How well what waits is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MirrorStats {
    /// Bytes of the file.
    pub bytes: u64,
    /// Messages that were not kept, as too much waited to be written.
    pub unkept: u64,
    /// Why nothing is kept at the moment.
    pub failing: Option<String>,
}

type Load = (Arc<str>, Box<dyn FnOnce(Recovered) + Send>);

struct Shared {
    path: PathBuf,
    sync: SyncPolicy,
    report: Report,
    pending: Mutex<Pending>,
    bell: Bell,
    closed: AtomicBool,
}

/// What is not yet written.
#[derive(Default)]
struct Pending {
    notes: Notes,
    loads: Vec<Load>,
    /// Notes are being written at the moment.
    is_writing: bool,
    next: i64,
    stats: MirrorStats,
}

/// Changes of the file.
#[derive(Default)]
struct Notes {
    /// Messages that wait, by sink and id, each with its number.
    waits: HashMap<(Arc<str>, Arc<str>), (i64, Message)>,
    /// Messages that wait no more.
    gone: HashSet<(Arc<str>, Arc<str>)>,
    /// The last delivered revision by sink and alert.
    told: HashMap<(Arc<str>, Arc<str>), u64>,
    /// Dead letters by sink, with why.
    dead: Vec<(Arc<str>, Message, String)>,
}

impl Notes {
    fn is_empty(&self) -> bool {
        self.waits.is_empty()
            && self.gone.is_empty()
            && self.told.is_empty()
            && self.dead.is_empty()
    }

    fn is_gone(&mut self, key: (Arc<str>, Arc<str>)) {
        // Not written yet, it leaves no trace.
        if self.waits.remove(&key).is_none() {
            self.gone.insert(key);
        }
    }

    /// Puts back `older` notes that could not be written.
    fn put_back(&mut self, older: Self) {
        for (key, waits) in older.waits {
            // Written or not, it is not to be there.
            if !self.gone.remove(&key) {
                self.waits.insert(key, waits);
            }
        }
        self.gone.extend(older.gone);
        for (key, revision) in older.told {
            let told = self.told.entry(key).or_default();
            *told = revision.max(*told);
        }
        let newer = std::mem::replace(&mut self.dead, older.dead);
        self.dead.extend(newer);
    }
}

impl Mirror {
    /// Begins to mirror in the file at `path`, which is made where there is none. Never waits for the disk. What
    /// older versions left in folders below `spools` is taken over.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        path: &Path,
        spools: &Path,
        sync: SyncPolicy,
        report: Report,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            sync,
            report,
            pending: Mutex::default(),
            bell: Bell::default(),
            closed: AtomicBool::new(false),
        });
        let (for_thread, spools) = (Arc::clone(&shared), spools.to_owned());
        let thread = std::thread::Builder::new().name("sink-queues".to_owned());
        let thread = thread.spawn(move || Writer::new(for_thread, spools).run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has `give` called with what an earlier run left for `sink`, when that is read.
    pub(super) fn load(&self, sink: &str, give: impl FnOnce(Recovered) + Send + 'static) {
        self.shared.pending().loads.push((sink.into(), Box::new(give)));
        self.shared.bell.ring();
    }

    /// `message` waits for `sink`.
    pub(super) fn waits(&self, sink: &str, message: &Message) {
        let mut pending = self.shared.pending();
        if pending.notes.waits.len() >= MOST_PENDING {
            pending.stats.unkept += 1;
            return;
        }
        pending.next += 1;
        let number = pending.next;
        let key = (sink.into(), message.id.clone());
        pending.notes.waits.insert(key, (number, message.clone()));
        drop(pending);
        self.shared.bell.ring();
    }

    /// `message` waits for `sink` no more: it was delivered, or a newer one took its place.
    pub(super) fn is_gone(&self, sink: &str, message: &Message) {
        self.shared.pending().notes.is_gone((sink.into(), message.id.clone()));
        self.shared.bell.ring();
    }

    /// `sink` took `message`: it is not to come again.
    pub(super) fn delivered(&self, sink: &str, message: &Message) {
        if let Some(alert) = message.alert_id() {
            let mut pending = self.shared.pending();
            let told = pending.notes.told.entry((sink.into(), alert.clone())).or_default();
            *told = message.revision().max(*told);
        }
        self.is_gone(sink, message);
    }

    /// `sink` will never take `message`.
    pub(super) fn dead_letter(&self, sink: &str, message: &Message, error: &str) {
        let dead = (sink.into(), message.clone(), error.to_owned());
        self.shared.pending().notes.dead.push(dead);
        self.is_gone(sink, message);
    }

    /// Whether all that was noted is written.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let pending = self.shared.pending();
        pending.notes.is_empty() && pending.loads.is_empty() && !pending.is_writing
    }

    /// How well what waits is kept.
    #[must_use]
    pub fn stats(&self) -> MirrorStats {
        self.shared.pending().stats.clone()
    }

    /// Ends it, once all is written or at `deadline`: a disk that hangs is not waited for.
    pub fn close(&self, deadline: Instant) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.bell.ring();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.close(Instant::now() + Duration::from_secs(2));
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notice: &Notice) {
        (self.report)(NAME, notice);
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    spools: PathBuf,
    file: Option<QueueFile>,
    rest: Backoff,
}

impl Writer {
    fn new(shared: Arc<Shared>, spools: PathBuf) -> Self {
        Self { shared, spools, file: None, rest: Backoff::new(REST.0, REST.1) }
    }

    fn run(mut self) {
        loop {
            let heard = self.shared.bell.heard();
            let closed = self.shared.closed.load(Ordering::Acquire);
            match self.work() {
                Ok(true) => {}
                Ok(false) if closed => return,
                Ok(false) => self.shared.bell.wait(heard, None),
                Err(_) if closed => return,
                Err(error) => self.is_failing(&error),
            }
        }
    }

    /// Writes what was noted and reads what is asked for; whether there was anything.
    fn work(&mut self) -> Result<bool, String> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, aside) = QueueFile::open(&self.shared.path, self.shared.sync)?;
                if let Some(aside) = aside {
                    self.shared.tell(&Notice::NotKept { error: aside });
                }
                let file = none.insert(file);
                if let Some((messages, damaged)) = old::take_over(&self.spools, file)? {
                    self.shared.tell(&Notice::TakenOver { messages, damaged });
                }
                file
            }
        };
        let (notes, loads) = {
            let mut pending = self.shared.pending();
            pending.is_writing = true;
            (std::mem::take(&mut pending.notes), std::mem::take(&mut pending.loads))
        };
        let worked = !notes.is_empty() || !loads.is_empty();
        let read = loads.iter().map(|(sink, _)| {
            let mut found = file.read(sink)?;
            found
                .waiting
                .retain(|message| !notes.gone.contains(&(sink.clone(), message.id.clone())));
            Ok(found)
        });
        let done = read.collect::<Result<Vec<_>, _>>().and_then(|found| {
            if notes.is_empty() { Ok(found) } else { file.write(&notes).map(|()| found) }
        });
        match done {
            Ok(found) => {
                loads.into_iter().zip(found).for_each(|((_, give), recovered)| give(recovered));
                self.is_well();
                Ok(worked)
            }
            Err(error) => {
                // Opened anew, it may work again.
                self.file = None;
                let mut pending = self.shared.pending();
                pending.is_writing = false;
                pending.notes.put_back(notes);
                let newer = std::mem::replace(&mut pending.loads, loads);
                pending.loads.extend(newer);
                Err(error)
            }
        }
    }

    fn is_well(&mut self) {
        self.rest.reset();
        let bytes = std::fs::metadata(&self.shared.path).map_or(0, |file| file.len());
        let mut pending = self.shared.pending();
        pending.is_writing = false;
        pending.stats.bytes = bytes;
        let failed = pending.stats.failing.take();
        drop(pending);
        if failed.is_some() {
            self.shared.tell(&Notice::KeptAgain);
        }
    }

    /// Tells it once, and leaves the disk alone for a while.
    fn is_failing(&mut self, error: &str) {
        let error = format!("{}: {error}", self.shared.path.display());
        let before = self.shared.pending().stats.failing.replace(error.clone());
        if before.is_none() {
            self.shared.tell(&Notice::NotKept { error });
        }
        let until = Instant::now() + self.rest.next();
        while Instant::now() < until && !self.shared.closed.load(Ordering::Acquire) {
            self.shared.bell.wait(self.shared.bell.heard(), Some(until));
        }
    }
}
