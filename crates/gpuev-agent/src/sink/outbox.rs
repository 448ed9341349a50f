//! What stands before every sink: a bounded queue in memory, a thread of its own, retries. A sink that is slow, broken
//! or gone hurts nobody but itself.
//!
//! ```text
//! offer ─> queue ─> deliver ─> Sink
//!            └───> mirror (a table on disk, where losing is not allowed)
//! ```
//!
//! [`Outbox::offer`] takes a lock for as long as it takes to put a message in its place, and never waits for a disk or
//! a server. The queue in memory leads: what the mirror has not written yet, or cannot write, is delivered all the same.
//! What finds the queue full is counted, and where the sink writes records, a record `lost` stands in its place.

mod deliver;
mod notice;
mod queue;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use gpuev::time::Anchor;
use serde::{Deserialize, Serialize};

use super::bell::Bell;
use super::message::{Message, Numbering};
use super::mirror::{Mirror, Recovered};
use super::{Order, Sink};
use crate::quantity::{Period, Size};
use deliver::Deliverer;
use queue::{Offered, Queue, lock};

pub use notice::{Notice, Report};
pub use queue::SetAside;

/// What an earlier run left comes first, and tells what was delivered. A disk that hangs is not waited for longer.
const LOAD_PATIENCE: Duration = Duration::from_secs(2);
/// Dead letters and messages set aside that [`Stats`] name, the latest.
const NAMED: usize = 32;

/// How a sink's messages wait and are tried again: `queue.*` of each sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSettings {
    /// Messages that wait in memory, at most.
    pub messages: usize,
    /// Bytes of them, at most.
    pub memory: Size,
    /// Whether what waits is also kept on disk, for the next start: `0` is no, any other size is yes. Unset: yes where
    /// this kind of sink promises to lose nothing.
    pub spool: Option<Size>,
    /// Whether what is kept on disk survives a power cut.
    pub sync: SyncPolicy,
    /// The wait after the first failure; it doubles with each.
    pub retry_first: Period,
    /// The longest wait before a receiver that cannot be reached is tried again.
    pub retry_most: Period,
    /// The longest wait before a message that the receiver answered with an error is tried again.
    pub retry_message_most: Period,
    /// A message that could not be delivered for so long is a dead letter.
    pub give_up: Period,
}

/// When what is kept on disk is also on the medium, and not only in the kernel's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// After each write: it survives a power cut.
    #[default]
    Always,
    /// When the kernel thinks so: it survives `kill -9`, and half a minute may be lost with the power.
    Never,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            messages: 8192,
            memory: Size(8 << 20),
            spool: None,
            sync: SyncPolicy::Always,
            retry_first: Period::from_millis(500),
            retry_most: Period::from_secs(4),
            retry_message_most: Period::from_secs(60),
            give_up: Period::from_secs(86_400),
        }
    }
}

/// Counts of one sink. `accepted + recovered = delivered + superseded + dead_letters + waiting` at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The sink's name.
    pub sink: String,
    /// Messages taken into the queue.
    pub accepted: u64,
    /// Messages that an earlier run had left.
    pub recovered: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// States of alerts that a later one took the place of while they waited.
    pub superseded: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Messages that the sink will never take.
    pub dead_letters: u64,
    /// Receivers that did not get a message that others got.
    pub missed: u64,
    /// Messages that found no room.
    pub lost: u64,
    /// Messages that wait.
    pub waiting: u64,
    /// Of these, the messages that the receiver answered with an error and that are tried again.
    pub set_aside: u64,
    /// Messages that are held back until people may be told of their rules again, then as one summary.
    pub held_back: u64,
    /// Some of those that are set aside.
    pub set_aside_messages: Vec<SetAside>,
    /// The latest dead letters.
    pub last_dead_letters: Vec<DeadLetter>,
    /// Bytes of what waits.
    pub memory_bytes: u64,
    /// Whether what waits is to be kept on disk.
    pub is_kept: bool,
    /// Why it takes none at the moment, where it cannot be reached.
    pub failing: Option<String>,
    /// Why what it does from time to time does not work.
    pub upkeep_failing: Option<String>,
}

/// A message that its receiver will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message.
    pub id: Arc<str>,
    /// When it was given up, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// Why.
    pub error: String,
}

/// What an outbox needs besides its sink.
#[derive(Clone)]
pub struct OutboxStart {
    /// The sink's name in notices, metrics and on disk.
    pub name: String,
    /// How messages wait.
    pub settings: OutboxSettings,
    /// Where what waits is kept for the next start; `None`: nowhere.
    pub mirror: Option<Arc<Mirror>>,
    /// Who numbers messages.
    pub numbering: Arc<Numbering>,
    /// Who is told.
    pub report: Report,
}

/// A sink with its queue and thread. Dropped without [`stop`](Self::stop), it stops at once; what waits is lost then,
/// but for what is kept on disk.
pub struct Outbox {
    shared: Arc<Shared>,
    deliverer: Option<JoinHandle<()>>,
}

/// What the threads of an outbox share.
pub(super) struct Shared {
    name: String,
    settings: OutboxSettings,
    order: Order,
    /// The sink writes records, `lost` among them.
    tells_loss: bool,
    numbering: Arc<Numbering>,
    report: Report,
    queue: Mutex<Queue>,
    mirror: Option<Arc<Mirror>>,
    bell: Bell,
    /// Until when to wait for what an earlier run left; nothing is delivered before. `None`: it is here.
    loads_until: Mutex<Option<Instant>>,
    /// No more is offered.
    closed: AtomicBool,
    /// Another has what waited: what becomes of it here is nobody's business.
    abandoned: AtomicBool,
    /// Until when to go on delivering after `closed`.
    deadline: Mutex<Option<Instant>>,
    ended: AtomicBool,
    counts: Counts,
    failing: Mutex<Option<String>>,
    upkeep_failing: Mutex<Option<String>>,
    last_dead_letters: Mutex<VecDeque<DeadLetter>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    recovered: AtomicU64,
    delivered: AtomicU64,
    superseded: AtomicU64,
    failures: AtomicU64,
    dead_letters: AtomicU64,
    missed: AtomicU64,
    lost: AtomicU64,
    full: AtomicBool,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn number(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

impl Outbox {
    /// Starts the thread of a sink. What an earlier run left comes from the mirror when that has read it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(sink: Box<dyn Sink>, start: OutboxStart) -> io::Result<Self> {
        let OutboxStart { name, settings, mirror, numbering, report } = start;
        let memory = usize::try_from(settings.memory.0).unwrap_or(usize::MAX);
        let order = sink.order();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(order, settings.messages, memory)),
            name,
            settings,
            order,
            tells_loss: sink.tells_loss(),
            numbering,
            report,
            loads_until: Mutex::new(mirror.is_some().then(|| Instant::now() + LOAD_PATIENCE)),
            mirror,
            bell: Bell::default(),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            deadline: Mutex::new(None),
            ended: AtomicBool::new(false),
            counts: Counts::default(),
            failing: Mutex::new(None),
            upkeep_failing: Mutex::new(None),
            last_dead_letters: Mutex::default(),
        });
        if let Some(mirror) = &shared.mirror {
            let waits: Weak<Shared> = Arc::downgrade(&shared);
            mirror.load(&shared.name, move |recovered| {
                if let Some(shared) = waits.upgrade() {
                    shared.recover(recovered);
                }
            });
        }
        let thread = thread::Builder::new().name(format!("sink-{}", shared.name));
        let mut deliverer = Deliverer::new(shared.clone(), sink);
        let deliverer = Some(thread.spawn(move || deliverer.run())?);
        Ok(Self { shared, deliverer })
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

    /// Whether what waits is to be kept on disk.
    pub(super) fn is_kept(&self) -> bool {
        self.shared.mirror.is_some()
    }

    /// The counts as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Whether everything that was offered is delivered or put aside for good.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        lock(&self.shared.queue).len() == 0
    }

    /// Takes no more, goes on delivering for at most `patience` and ends the thread. A thread that is in the middle of
    /// a call to a dead server is left behind. What waits is given back; where it is kept on disk, it also comes with
    /// the next start.
    #[must_use]
    pub fn stop(self, patience: Duration) -> Vec<Message> {
        let deadline = Instant::now() + patience;
        self.close(deadline);
        self.end(deadline).0
    }

    /// What is left after [`close`](Self::close), and the last counts.
    pub(super) fn end(mut self, deadline: Instant) -> (Vec<Message>, Stats) {
        self.join(deadline);
        let stats = self.stats();
        (lock(&self.shared.queue).take_all(), stats)
    }

    /// Takes no more and goes on until `deadline`.
    pub(super) fn close(&self, deadline: Instant) {
        *lock(&self.shared.deadline) = Some(deadline);
        self.shared.closed.store(true, Ordering::Release);
        self.shared.bell.ring();
    }

    fn join(&mut self, deadline: Instant) {
        let shared = &self.shared;
        while !shared.ended.load(Ordering::Acquire) && Instant::now() < deadline {
            let heard = shared.bell.heard();
            if shared.ended.load(Ordering::Acquire) {
                break;
            }
            shared.bell.wait(heard, Some(deadline));
        }
        // Also if a thread is left behind: what it still does is not written down.
        shared.abandoned.store(true, Ordering::Release);
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
        let mut dropped = Vec::new();
        let mut queue = lock(&self.queue);
        let offered = queue.offer(message, |missing| self.marker(missing), &mut dropped);
        drop(queue);
        match offered {
            Offered::Known => return,
            Offered::Full => {
                add(&self.counts.lost, 1);
                return self.tell_full();
            }
            Offered::Taken => add(&self.counts.accepted, 1),
            Offered::Replaced => {
                add(&self.counts.accepted, 1);
                self.note_superseded(1);
            }
        }
        self.mirror(|mirror, sink| mirror.waits(sink, message));
        for message in &dropped {
            self.mirror(|mirror, sink| mirror.is_gone(sink, message));
        }
        if offered == Offered::Taken && !dropped.is_empty() {
            add(&self.counts.lost, number(dropped.len()));
            self.tell_full();
        }
        self.bell.ring();
    }

    /// What an earlier run left.
    fn recover(&self, recovered: Recovered) {
        let mut queue = lock(&self.queue);
        let mut dropped = Vec::new();
        queue.were_told(recovered.told, &mut dropped);
        let taken = queue.recover(recovered.waiting, &mut dropped);
        drop(queue);
        for message in &dropped {
            self.mirror(|mirror, sink| mirror.is_gone(sink, message));
        }
        add(&self.counts.recovered, taken);
        *lock(&self.loads_until) = None;
        self.bell.ring();
    }

    /// The record that stands for `missing` messages, where the sink writes such.
    fn marker(&self, missing: u64) -> Option<Message> {
        self.tells_loss.then(|| self.numbering.of_loss(&self.name, missing))
    }

    /// Once, until there is room again.
    fn tell_full(&self) {
        if !self.counts.full.swap(true, Ordering::Relaxed) {
            self.tell(&Notice::Full);
        }
    }

    fn tell(&self, notice: &Notice) {
        (self.report)(&self.name, notice);
    }

    fn note_superseded(&self, count: usize) {
        add(&self.counts.superseded, number(count));
    }

    /// Has the mirror note something, where there is one and this outbox still speaks for its sink.
    fn mirror(&self, note: impl FnOnce(&Mirror, &str)) {
        if let Some(mirror) = self.mirror.as_deref().filter(|_| !self.is_abandoned()) {
            note(mirror, &self.name);
        }
    }

    fn dead_letters(&self, message: &Message, error: &str) {
        let mut letters = lock(&self.last_dead_letters);
        let unix_ns = Anchor::now().unix_ns;
        letters.push_back(DeadLetter { id: message.id.clone(), unix_ns, error: error.to_owned() });
        if letters.len() > NAMED {
            letters.pop_front();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let queue = lock(&self.queue);
        let (waiting, bytes, aside) = (queue.len(), queue.bytes(), queue.aside(NAMED));
        let held_back = number(queue.held());
        drop(queue);
        let counts = &self.counts;
        Stats {
            sink: self.name.clone(),
            accepted: read(&counts.accepted),
            recovered: read(&counts.recovered),
            delivered: read(&counts.delivered),
            superseded: read(&counts.superseded),
            failures: read(&counts.failures),
            dead_letters: read(&counts.dead_letters),
            missed: read(&counts.missed),
            lost: read(&counts.lost),
            waiting: number(waiting),
            set_aside: number(aside.1),
            held_back,
            set_aside_messages: aside.0,
            last_dead_letters: lock(&self.last_dead_letters).iter().cloned().collect(),
            memory_bytes: number(bytes),
            is_kept: self.mirror.is_some(),
            failing: lock(&self.failing).clone(),
            upkeep_failing: lock(&self.upkeep_failing).clone(),
        }
    }
}
