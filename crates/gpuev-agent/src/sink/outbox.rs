//! What stands before every sink: a bounded queue, threads of its own, retries, and a spool on disk where
//! losing is not allowed. A sink that is slow, broken or gone hurts nobody but itself.
//!
//! ```text
//! offer ─> queue ─────────────────────────> deliver ─> Sink      (losing is allowed)
//! offer ─> queue ─> write ─> spool on disk ─> deliver ─> Sink    (it is not)
//! ```
//!
//! [`Outbox::offer`] takes a lock for as long as it takes to append to a queue, and never waits for a disk or
//! a server. What finds the queue or the spool full is counted, and where the sink writes records, a record
//! `lost` stands in its place.

mod backlog;
mod deliver;
mod queue;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use serde::{Deserialize, Serialize};

use super::Sink;
use super::message::{Message, Numbering};
use super::spool::{Spool, SyncPolicy};
use crate::quantity::{Period, Size};
use backlog::Backlog;
use deliver::Deliverer;
use queue::{Bell, Offered, Queue, lock};

/// How a sink's messages wait and are tried again: `queue.*` of each sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSettings {
    /// Messages that wait in memory, at most.
    pub messages: usize,
    /// Bytes of them, at most.
    pub memory: Size,
    /// Bytes that wait on disk, at most. 0: nothing is written to disk, and a restart loses what waits.
    /// Unset: 64 MiB where this kind of sink promises to lose nothing, else 0.
    pub spool: Option<Size>,
    /// Whether what is spooled survives a power cut.
    pub sync: SyncPolicy,
    /// The wait after the first failure; it doubles with each.
    pub retry_first: Period,
    /// The longest wait between two tries.
    pub retry_most: Period,
    /// A message that could not be delivered for so long is put aside as a dead letter, so that it does not
    /// hold up those behind it for ever.
    pub give_up: Period,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            messages: 8192,
            memory: Size(8 << 20),
            spool: None,
            sync: SyncPolicy::Always,
            retry_first: Period::from_millis(500),
            retry_most: Period::from_secs(60),
            give_up: Period::from_secs(86_400),
        }
    }
}

/// What an operator should know about a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It does not take messages any more; they wait.
    Failing {
        /// Why.
        error: String,
    },
    /// It takes them again.
    Recovered {
        /// How often it failed.
        failures: u64,
    },
    /// It will never take this message, which is put aside.
    DeadLetter {
        /// Which message.
        id: Arc<str>,
        /// Why.
        error: String,
    },
    /// It took a message, and some of those who should have got it did not.
    Missed {
        /// Who, and why.
        error: String,
    },
    /// Its queue is full: messages are lost from here on.
    Full,
    /// Its spool cannot be written; messages wait in memory.
    Spool {
        /// Why.
        error: String,
    },
    /// Records in its spool could not be read.
    Damaged {
        /// How many.
        count: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { error } => write!(f, "does not take messages, they wait: {error}"),
            Self::Recovered { failures } => {
                write!(f, "takes messages again after {failures} tries")
            }
            Self::DeadLetter { id, error } => write!(f, "message {id} is put aside: {error}"),
            Self::Missed { error } => write!(f, "delivers to some only: {error}"),
            Self::Full => f.write_str("its queue is full, messages are lost"),
            Self::Spool { error } => {
                write!(f, "its spool cannot be written, messages wait in memory: {error}")
            }
            Self::Damaged { count } => write!(f, "{count} records of its spool are damaged"),
        }
    }
}

/// Who is told: gets the sink's name and what there is to know. Called by the sink's threads.
pub type Report = Arc<dyn Fn(&str, &Notice) + Send + Sync>;

/// Counts of one sink. `accepted + recovered = delivered + dead_letters + waiting` at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The sink's name.
    pub sink: String,
    /// Messages taken into the queue.
    pub accepted: u64,
    /// Messages found in the spool at the start.
    pub recovered: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Messages that the sink will never take.
    pub dead_letters: u64,
    /// Receivers that did not get a message that others got.
    pub missed: u64,
    /// Messages that found no room, or were damaged on disk.
    pub lost: u64,
    /// Messages that wait, in memory or on disk.
    pub waiting: u64,
    /// Bytes of them in memory.
    pub memory_bytes: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Why it takes none at the moment, where it does not.
    pub failing: Option<String>,
}

/// What an outbox needs besides its sink.
#[derive(Clone)]
pub struct OutboxStart {
    /// The sink's name in notices, metrics and the spool's folder.
    pub name: String,
    /// How messages wait.
    pub settings: OutboxSettings,
    /// The spool's folder; `None`: nothing is written to disk.
    pub spool: Option<PathBuf>,
    /// Who numbers messages.
    pub numbering: Arc<Numbering>,
    /// Who is told.
    pub report: Report,
}

/// A sink with its queue and threads. Dropped without [`stop`](Self::stop), it stops at once; what waits in
/// memory is lost then.
pub struct Outbox {
    shared: Arc<Shared>,
    deliverer: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

/// What the threads of an outbox share.
struct Shared {
    name: String,
    settings: OutboxSettings,
    /// The sink writes records, `lost` among them.
    tells_loss: bool,
    numbering: Arc<Numbering>,
    report: Report,
    queue: Mutex<Queue>,
    /// Set where there is a spool, until the outbox is stopped.
    backlog: Mutex<Option<Backlog>>,
    folder: Option<PathBuf>,
    bell: Bell,
    /// No more is offered.
    closed: AtomicBool,
    /// Everything is on disk that will be.
    written: AtomicBool,
    /// Until when to go on delivering after `closed`.
    deadline: Mutex<Option<Instant>>,
    ended: AtomicBool,
    counts: Counts,
    failing: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    recovered: AtomicU64,
    delivered: AtomicU64,
    failures: AtomicU64,
    dead_letters: AtomicU64,
    missed: AtomicU64,
    lost: AtomicU64,
    damaged: AtomicU64,
    spooled: AtomicU64,
    spool_bytes: AtomicU64,
    full: AtomicBool,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

impl Outbox {
    /// Starts the threads of a sink.
    ///
    /// # Errors
    /// The spool cannot be opened, or a thread cannot be started.
    pub fn start(sink: Box<dyn Sink>, start: OutboxStart) -> io::Result<Self> {
        let OutboxStart { name, settings, spool, numbering, report } = start;
        let limit = settings.spool.unwrap_or(super::SPOOL).0;
        let folder = spool.filter(|_| limit > 0);
        let spool = match &folder {
            Some(folder) => Some(Spool::open(folder, limit, settings.sync)?),
            None => None,
        };
        let memory = usize::try_from(settings.memory.0).unwrap_or(usize::MAX);
        let queue = Mutex::new(Queue::new(settings.messages, memory));
        let shared = Arc::new(Shared {
            name,
            settings,
            tells_loss: sink.tells_loss(),
            numbering,
            report,
            queue,
            backlog: Mutex::new(None),
            folder,
            bell: Bell::default(),
            closed: AtomicBool::new(false),
            written: AtomicBool::new(false),
            deadline: Mutex::new(None),
            ended: AtomicBool::new(false),
            counts: Counts::default(),
            failing: Mutex::new(None),
        });
        if let Some(spool) = spool {
            add(&shared.counts.recovered, spool.messages());
            shared.note_size(&spool);
            *lock(&shared.backlog) = Some(Backlog::new(spool));
        }
        let mut outbox = Self { shared, deliverer: None, writer: None };
        outbox.start_threads(sink)?;
        Ok(outbox)
    }

    fn start_threads(&mut self, sink: Box<dyn Sink>) -> io::Result<()> {
        let thread =
            |role: &str| thread::Builder::new().name(format!("{role}-{}", self.shared.name));
        if self.shared.is_spooled() {
            let shared = self.shared.clone();
            self.writer = Some(thread("spool").spawn(move || backlog::write(&shared))?);
        }
        let mut deliverer = Deliverer::new(self.shared.clone(), sink);
        self.deliverer = Some(thread("sink").spawn(move || deliverer.run())?);
        Ok(())
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Queues `message`; never waits. One that finds no room is counted as lost.
    pub fn offer(&self, message: &Message) {
        self.shared.offer(message);
    }

    /// The counts as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Whether everything that was offered is delivered or put aside.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stats().waiting == 0
    }

    /// Queues what an earlier run, which offered it in this order, may not have brought to the spool any more:
    /// what comes behind the last that is there. Nothing where losing is allowed.
    pub(super) fn offer_again(&self, messages: &[Message]) {
        if !self.shared.is_spooled() || messages.is_empty() {
            return;
        }
        let known = self.shared.ids_on_disk();
        let missing = messages.rsplit(|message| known.contains(&message.id)).next();
        missing.into_iter().flatten().for_each(|message| self.offer(message));
    }

    /// Whether all that was offered is where a crash does not reach it, or will never be.
    pub(super) fn is_settled(&self) -> bool {
        !self.shared.is_spooled() || lock(&self.shared.queue).size().0 == 0
    }

    /// Takes no more, writes the spool, goes on delivering for at most `patience` and ends the threads. A
    /// thread that is in the middle of a call to a dead server is left behind. What is in the spool comes
    /// with the next start; what waits in memory is given back.
    #[must_use]
    pub fn stop(self, patience: Duration) -> Vec<Message> {
        let deadline = Instant::now() + patience;
        self.close(deadline);
        self.end(deadline).0
    }

    /// What is left after [`close`](Self::close) in memory, and the last counts.
    pub(super) fn end(mut self, deadline: Instant) -> (Vec<Message>, Stats) {
        self.join(deadline);
        let stats = self.stats();
        (lock(&self.shared.queue).take_all().into(), stats)
    }

    /// Takes no more and goes on until `deadline`.
    pub(super) fn close(&self, deadline: Instant) {
        *lock(&self.shared.deadline) = Some(deadline);
        self.shared.closed.store(true, Ordering::Release);
        self.shared.bell.ring();
    }

    /// After [`close`](Self::close): what is in memory goes to disk whatever it takes; a disk that fails is not
    /// waited for.
    pub(super) fn write_rest(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }

    fn join(&mut self, deadline: Instant) {
        self.write_rest();
        let shared = &self.shared;
        while !shared.ended.load(Ordering::Acquire) && Instant::now() < deadline {
            let heard = shared.bell.heard();
            if shared.ended.load(Ordering::Acquire) {
                break;
            }
            shared.bell.wait(heard, Some(deadline));
        }
        // The folder is free for the next, even if a thread is left behind.
        lock(&shared.backlog).take();
        if shared.ended.load(Ordering::Acquire)
            && let Some(deliverer) = self.deliverer.take()
        {
            let _panicked = deliverer.join();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.shared.is_closed() {
            let now = Instant::now();
            self.close(now);
            self.join(now);
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    fn offer(&self, message: &Message) {
        let offered = lock(&self.queue).offer(message, |missing| self.marker(missing));
        match offered {
            Offered::Full => {
                add(&self.counts.lost, 1);
                self.tell_full();
            }
            Offered::Taken => add(&self.counts.accepted, 1),
            Offered::First => {
                add(&self.counts.accepted, 1);
                self.bell.ring();
            }
        }
    }

    /// The record that stands for `missing` messages, where the sink writes such.
    fn marker(&self, missing: u64) -> Option<Message> {
        self.tells_loss.then(|| self.numbering.of_loss(&self.name, missing))
    }

    /// Once, until there is room again.
    fn tell_full(&self) {
        if !self.counts.full.swap(true, Ordering::Relaxed) {
            (self.report)(&self.name, &Notice::Full);
        }
    }

    fn is_spooled(&self) -> bool {
        self.folder.is_some()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (queued, memory) = lock(&self.queue).size();
        let number = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let counts = &self.counts;
        Stats {
            sink: self.name.clone(),
            accepted: read(&counts.accepted),
            recovered: read(&counts.recovered),
            delivered: read(&counts.delivered),
            failures: read(&counts.failures),
            dead_letters: read(&counts.dead_letters),
            missed: read(&counts.missed),
            lost: read(&counts.lost),
            waiting: number(queued) + read(&counts.spooled),
            memory_bytes: number(memory),
            spool_bytes: read(&counts.spool_bytes),
            failing: lock(&self.failing).clone(),
        }
    }
}
