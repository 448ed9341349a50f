//! The live stream: the latest signals and alerts, each with a number, for any number of readers.
//!
//! Readers hold a position and nothing else: the stream keeps so many bytes for all of them. Whoever is slower
//! than that, or comes back later, is told how many he missed, and goes on from the oldest that is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuev::Severity;
use tokio::sync::Notify;

/// What an entry costs beside its text.
const OVERHEAD: usize = 64;

/// The latest signals and alerts.
#[derive(Debug)]
pub struct Live {
    ring: Mutex<Ring>,
    changed: Notify,
    run: u64,
}

#[derive(Debug)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
    /// Number of the next entry.
    next: u64,
    closed: bool,
}

/// One signal or alert of the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts from 1 in this run of the agent.
    pub number: u64,
    /// `event`, `gap`, `span`, …, or `alert`.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Its JSON.
    pub json: Arc<str>,
}

/// A place in the stream of one run of the agent. Written as `RUN-NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    run: u64,
    number: u64,
}

/// What lies behind a position.
#[derive(Debug, Clone)]
pub struct Portion {
    /// What is there, in order.
    pub entries: Vec<Entry>,
    /// What is not there any more.
    pub missed: Missed,
    /// Where to go on.
    pub position: Position,
    /// Nothing more will come.
    pub closed: bool,
}

/// How much a reader missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Nothing,
    /// So many.
    Entries(u64),
    /// The agent was started anew in between: nobody counted.
    Unknown,
}

impl Position {
    /// Reads `RUN-NUMBER`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (run, number) = text.split_once('-')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
    }

    /// The place of an entry of the same run.
    #[must_use]
    pub fn at(self, entry: &Entry) -> Self {
        Self { number: entry.number, ..self }
    }

    /// The place before an entry of the same run.
    #[must_use]
    pub fn before(self, entry: &Entry) -> Self {
        Self { number: entry.number - 1, ..self }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

impl Live {
    /// An empty stream that keeps at most `limit` bytes. `run` is another number for each run of the agent.
    #[must_use]
    pub fn new(limit: usize, run: u64) -> Self {
        let ring = Ring { entries: VecDeque::new(), bytes: 0, limit, next: 1, closed: false };
        Self { ring: Mutex::new(ring), changed: Notify::new(), run }
    }

    /// Adds what happened.
    pub fn publish(&self, kind: &'static str, severity: Severity, json: &Arc<str>) {
        let mut ring = self.lock();
        let entry = Entry { number: ring.next, kind, severity, json: Arc::clone(json) };
        ring.next += 1;
        ring.bytes += entry.json.len() + OVERHEAD;
        ring.entries.push_back(entry);
        while ring.bytes > ring.limit
            && let Some(oldest) = ring.entries.pop_front()
        {
            ring.bytes -= oldest.json.len() + OVERHEAD;
        }
        drop(ring);
        self.changed.notify_waiters();
    }

    /// Nothing more will come: readers are let go.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Where the stream is now.
    #[must_use]
    pub fn now(&self) -> Position {
        Position { run: self.run, number: self.lock().next - 1 }
    }

    /// At most `most` entries behind `position`.
    #[must_use]
    pub fn after(&self, position: Position, most: usize) -> Portion {
        let ring = self.lock();
        let last = ring.next - 1;
        let first_kept = ring.entries.front().map_or(ring.next, |entry| entry.number);
        let (wanted, missed) = if position.run != self.run || position.number > last {
            (first_kept, Missed::Unknown)
        } else if position.number + 1 < first_kept {
            (first_kept, Missed::Entries(first_kept - position.number - 1))
        } else {
            (position.number + 1, Missed::Nothing)
        };
        let skip = usize::try_from(wanted - first_kept).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = ring.entries.iter().skip(skip).take(most).cloned().collect();
        let number = entries.last().map_or(wanted - 1, |entry| entry.number);
        let closed = ring.closed && number == last;
        Portion { entries, missed, position: Position { run: self.run, number }, closed }
    }

    /// Waits until there may be something behind `position`.
    pub async fn changed_after(&self, position: Position) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Listening first, so that nothing is published unheard between looking and waiting.
        changed.as_mut().enable();
        if self.is_end(position) {
            changed.await;
        }
    }

    /// Whether there is nothing behind `position` yet.
    fn is_end(&self, position: Position) -> bool {
        let ring = self.lock();
        position.run == self.run && position.number == ring.next - 1 && !ring.closed
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
