//! What really happened in a scenario: what a program that watched it is judged by.

use std::collections::{BTreeMap, HashMap};

use crate::event::{Comm, DriverEvent};

/// Spans that are kept one by one; of more only the counts are.
const MOST_SPANS: usize = 1 << 17;
/// Numbers of events, 0 included.
const EVENT_IDS: usize = 16;
/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

/// What a scenario or a player raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truth {
    /// Number of events by index of the GPU and number of the event.
    pub counts: BTreeMap<(usize, u32), u64>,
    /// What began and, in most cases, ended, in order of beginning.
    pub spans: Vec<SpanTruth>,
    /// Spans that there was no room for in `spans`.
    pub spans_left_out: u64,
    /// Events that were not raised because the player was held up: it never catches up with a
    /// burst.
    pub missed: u64,
    /// Nanoseconds from the beginning to the last event.
    pub lasted_ns: u64,
}

/// Something that began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanTruth {
    /// Index of the GPU.
    pub gpu: usize,
    /// Host's number of the process; 0 if it is about none.
    pub pid: u32,
    /// What it was.
    pub kind: SpanKind,
    /// When it began; `CLOCK_BOOTTIME` for a player, else from the scenario's beginning.
    pub start_ns: u64,
    /// When it ended, if it did.
    pub end_ns: Option<u64>,
}

/// What a span was, with what its end told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanKind {
    /// The GPU was down.
    Reset {
        /// Number of the reset.
        sequence: u32,
    },
    /// A page fault was served.
    Fault {
        /// The page.
        page: u64,
        /// It was a write.
        write: bool,
        /// The page was moved.
        migrated: bool,
    },
    /// Memory moved, or failed to.
    Migration {
        /// First page.
        page: u64,
        /// Bytes.
        bytes: u64,
        /// 0 or a negative errno.
        error: i32,
    },
    /// Queues stood still.
    Eviction {
        /// `EVICT_*` of [`trigger`](crate::trigger).
        trigger: i32,
        /// Restores that had to be tried again.
        rescheduled: u32,
    },
    /// A process lived.
    Process {
        /// Its name.
        comm: Comm,
    },
}

/// What a start and its end have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Reset(usize, u32),
    Fault(usize, u32, u64),
    Migration(usize, u32, u64),
    Eviction(usize, u32),
    Process(usize, u32),
}

impl Truth {
    /// Number of events of all GPUs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Number of events of one GPU with this number.
    #[must_use]
    pub fn count(&self, gpu: usize, id: u32) -> u64 {
        self.counts.get(&(gpu, id)).copied().unwrap_or(0)
    }

    /// Number of events of all GPUs with this number.
    #[must_use]
    pub fn count_of(&self, id: u32) -> u64 {
        self.counts.iter().filter(|((_, one), _)| *one == id).map(|(_, count)| count).sum()
    }

    /// The truth of events with their times, as those of
    /// [`Scenario::events`](crate::Scenario::events).
    pub fn of(events: impl IntoIterator<Item = crate::ScenarioEvent>) -> Self {
        let mut witness = Witness::default();
        for one in events {
            witness.see(one.at_ns, one.gpu, &one.event);
        }
        witness.tell()
    }
}

/// Sees every event and remembers.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    truth: Truth,
    /// By GPU and number of the event: a story may have a million a second.
    counts: Vec<[u64; EVENT_IDS]>,
    open: HashMap<Key, usize>,
    first_ns: Option<u64>,
}

impl Witness {
    pub(crate) fn see(&mut self, ns: u64, gpu: usize, event: &DriverEvent) {
        let first = *self.first_ns.get_or_insert(ns);
        self.truth.lasted_ns = self.truth.lasted_ns.max(ns.saturating_sub(first));
        self.count(gpu, event.id());
        match begins(gpu, event) {
            Some((key, kind)) => self.begin(ns, gpu, event, key, kind),
            None => self.end(ns, gpu, event),
        }
    }

    pub(crate) fn miss(&mut self, events: u64) {
        self.truth.missed += events;
    }

    pub(crate) fn tell(self) -> Truth {
        let mut truth = self.truth;
        for (gpu, counts) in self.counts.iter().enumerate() {
            let seen = (0..).zip(counts).filter(|(_, count)| **count > 0);
            truth.counts.extend(seen.map(|(id, count)| ((gpu, id), *count)));
        }
        truth
    }

    fn count(&mut self, gpu: usize, id: u32) {
        if self.counts.len() <= gpu {
            self.counts.resize(gpu + 1, [0; EVENT_IDS]);
        }
        if let Some(count) = self.counts[gpu].get_mut(id as usize) {
            *count += 1;
        }
    }

    fn begin(&mut self, ns: u64, gpu: usize, event: &DriverEvent, key: Key, kind: SpanKind) {
        if self.truth.spans.len() == MOST_SPANS {
            self.truth.spans_left_out += 1;
            return;
        }
        let pid = event.pid().map_or(0, |pid| pid.host);
        self.open.insert(key, self.truth.spans.len());
        self.truth.spans.push(SpanTruth { gpu, pid, kind, start_ns: ns, end_ns: None });
    }

    fn end(&mut self, ns: u64, gpu: usize, event: &DriverEvent) {
        let Some(key) = ends(gpu, event) else { return };
        if let DriverEvent::QueueRestore { rescheduled: true, .. } = event {
            if let Some(span) = self.open.get(&key).and_then(|at| self.truth.spans.get_mut(*at)) {
                span.learn(event);
            }
            return;
        }
        if let Some(span) = self.open.remove(&key).and_then(|at| self.truth.spans.get_mut(at)) {
            span.end_ns = Some(ns);
            span.learn(event);
        }
    }
}

impl SpanTruth {
    /// What an end says beyond that it is one.
    fn learn(&mut self, event: &DriverEvent) {
        match (&mut self.kind, event) {
            (
                SpanKind::Fault { migrated, .. },
                DriverEvent::PageFaultEnd { migrated: moved, .. },
            ) => {
                *migrated = *moved;
            }
            (SpanKind::Migration { error, .. }, DriverEvent::MigrateEnd { error: code, .. }) => {
                *error = *code;
            }
            (
                SpanKind::Eviction { rescheduled, .. },
                DriverEvent::QueueRestore { rescheduled: true, .. },
            ) => *rescheduled += 1,
            _ => {}
        }
    }
}

fn begins(gpu: usize, event: &DriverEvent) -> Option<(Key, SpanKind)> {
    Some(match *event {
        DriverEvent::PreReset { sequence, .. } => {
            (Key::Reset(gpu, sequence), SpanKind::Reset { sequence })
        }
        DriverEvent::PageFaultStart { pid, page, write } => {
            (Key::Fault(gpu, pid.host, page), SpanKind::Fault { page, write, migrated: false })
        }
        DriverEvent::MigrateStart { pid, page, pages, .. } => {
            let bytes = pages.saturating_mul(PAGE_BYTES);
            (Key::Migration(gpu, pid.host, page), SpanKind::Migration { page, bytes, error: 0 })
        }
        DriverEvent::QueueEviction { pid, trigger } => {
            (Key::Eviction(gpu, pid.host), SpanKind::Eviction { trigger, rescheduled: 0 })
        }
        DriverEvent::ProcessStart { pid, comm } => {
            (Key::Process(gpu, pid.host), SpanKind::Process { comm })
        }
        _ => return None,
    })
}

fn ends(gpu: usize, event: &DriverEvent) -> Option<Key> {
    Some(match *event {
        DriverEvent::PostReset { sequence, .. } => Key::Reset(gpu, sequence),
        DriverEvent::PageFaultEnd { pid, page, .. } => Key::Fault(gpu, pid.host, page),
        DriverEvent::MigrateEnd { pid, page, .. } => Key::Migration(gpu, pid.host, page),
        DriverEvent::QueueRestore { pid, .. } => Key::Eviction(gpu, pid.host),
        DriverEvent::ProcessEnd { pid, .. } => Key::Process(gpu, pid.host),
        _ => return None,
    })
}
