//! Many alike events, told as one.
//!
//! Of a type that is set so, each GPU tells up to a number of events in a second one by one; those that come
//! beyond are counted by process, and the second ends with one [`Aggregate`] for each. An aggregate holds a few
//! of its events whole, so a quiet process beside a noisy one loses nothing. What is worse than usual (a
//! migration that failed) is counted apart from the rest, so that it is seen among ten thousand good ones.

use std::collections::HashMap;

use gpuev::span::{Outcome, Span, SpanKind};
use gpuev::{Event, EventData, EventType, GpuId, Record, Severity};
use hdrhistogram::Histogram;

use crate::config::{EventMode, Events};
use crate::signal::{Aggregate, Latency};

/// How long is counted before it is told.
const WINDOW_NS: u64 = 1_000_000_000;

/// Processes that a GPU's second is counted by; with one more it ends early.
const MOST_GROUPS: usize = 256;

/// Events that an aggregate holds whole.
const EXAMPLES: usize = 3;

/// An hour: a span that took longer counts as that in the quantiles.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Decides which events are told one by one, and counts the others.
#[derive(Debug)]
pub struct Aggregator {
    modes: Events,
    windows: HashMap<Key, Window>,
}

/// What is counted together.
type Key = (GpuId, EventType, Severity);

/// A second of one type on one GPU.
#[derive(Debug, Default)]
struct Window {
    since_ns: u64,
    told: u64,
    spans_told: u64,
    groups: HashMap<Owner, Group>,
}

/// Who is behind an event: nobody, a process, or a thread whose process is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    pid: Option<u32>,
    tid: Option<u32>,
}

impl Owner {
    fn of(pid: Option<u32>, tid: Option<u32>) -> Self {
        Self { pid, tid: tid.filter(|_| pid.is_none()) }
    }
}

/// What one process had of it.
#[derive(Debug, Default)]
struct Group {
    count: u64,
    bytes: u64,
    from_boot_ns: u64,
    to_boot_ns: u64,
    durations: Option<Durations>,
    unpaired: u64,
    examples: Vec<Event>,
}

/// How long spans took. One significant digit: quantiles within 6 percent, in 3 KB.
#[derive(Debug)]
struct Durations {
    histogram: Histogram<u32>,
    sum_ns: u64,
    max_ns: u64,
}

/// An aggregate and its GPU.
pub type Told = (GpuId, Aggregate);

impl Aggregator {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(modes: Events) -> Self {
        Self { modes, windows: HashMap::new() }
    }

    /// Counts by other modes from now on. What is counted is told when its second is over.
    pub fn set_modes(&mut self, modes: Events) {
        self.modes = modes;
    }

    /// Whether the event, `record` being what its line says, is to be told by itself; else it is counted.
    pub fn event(
        &mut self,
        event: &Event,
        record: &Record<'_>,
        over: &mut impl FnMut(Told),
    ) -> bool {
        let Some(event_type) = event.event_type() else { return true };
        let EventMode::Aggregate { above } = self.modes.mode(event_type) else { return true };
        let key = (event.gpu, event_type, event.severity());
        let window = self.window(key, event.time.received_boot_ns, over);
        if window.told < above {
            window.told += 1;
            return true;
        }
        window.group(key, Owner::of(event.pid(), event.tid()), over).add(event, record);
        false
    }

    /// Whether the span is to be told by itself; else it is counted. `ended_by_told` says whether the event
    /// that ended it was told by itself.
    pub fn span(
        &mut self,
        span: &Span,
        ended_by_told: bool,
        now_ns: u64,
        over: &mut impl FnMut(Told),
    ) -> bool {
        let Some(event_type) = ending(span.kind()) else { return true };
        let EventMode::Aggregate { above } = self.modes.mode(event_type) else { return true };
        let as_usual = span.outcome.is_paired() && span.outcome != Outcome::Failed;
        if as_usual && ended_by_told {
            return true;
        }
        let key = (span.gpu, event_type, Severity::Info);
        let window = self.window(key, now_ns, over);
        if !as_usual && window.spans_told < above {
            window.spans_told += 1;
            return true;
        }
        let group = window.group(key, Owner::of(span.pid, span.tid), over);
        match span.duration_ns().filter(|_| span.outcome.is_paired()) {
            Some(duration_ns) => {
                group.durations.get_or_insert_with(Durations::new).add(duration_ns);
            }
            None => group.unpaired += 1,
        }
        group.cover(span.time().map_or(now_ns, |time| time.boot_ns));
        false
    }

    /// Ends the seconds that are over at `now_ns`, by `CLOCK_BOOTTIME`.
    pub fn tick(&mut self, now_ns: u64, over: &mut impl FnMut(Told)) {
        self.windows.retain(|key, window| {
            let goes_on = now_ns < window.since_ns.saturating_add(WINDOW_NS);
            if !goes_on {
                window.tell(*key, over);
            }
            goes_on
        });
    }

    /// Ends all, e.g. because nothing more comes.
    pub fn finish(&mut self, over: &mut impl FnMut(Told)) {
        for (key, mut window) in self.windows.drain() {
            window.tell(key, over);
        }
    }

    fn window(&mut self, key: Key, now_ns: u64, over: &mut impl FnMut(Told)) -> &mut Window {
        let window = self
            .windows
            .entry(key)
            .or_insert_with(|| Window { since_ns: now_ns, ..Window::default() });
        if now_ns >= window.since_ns.saturating_add(WINDOW_NS) {
            window.tell(key, over);
            *window = Window { since_ns: now_ns, ..Window::default() };
        }
        window
    }
}

impl Window {
    fn group(&mut self, key: Key, owner: Owner, over: &mut impl FnMut(Told)) -> &mut Group {
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&owner) {
            self.tell(key, over);
        }
        self.groups.entry(owner).or_default()
    }

    fn tell(&mut self, (gpu, event_type, _): Key, over: &mut impl FnMut(Told)) {
        for (Owner { pid, tid }, group) in self.groups.drain() {
            let aggregate = Aggregate {
                event_type,
                pid,
                tid,
                count: group.count,
                bytes: group.bytes,
                from_boot_ns: group.from_boot_ns,
                to_boot_ns: group.to_boot_ns,
                latency: group.durations.as_ref().map(Durations::latency),
                unpaired: group.unpaired,
                examples: group.examples,
            };
            over((gpu, aggregate));
        }
    }
}

impl Group {
    fn add(&mut self, event: &Event, record: &Record<'_>) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(moved_bytes(record));
        self.cover(event.time.boot_ns);
        if self.examples.len() < EXAMPLES {
            self.examples.push(event.clone());
        }
    }

    fn cover(&mut self, boot_ns: u64) {
        if self.to_boot_ns == 0 {
            self.from_boot_ns = boot_ns;
        }
        self.from_boot_ns = self.from_boot_ns.min(boot_ns);
        self.to_boot_ns = self.to_boot_ns.max(boot_ns);
    }
}

impl Durations {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 1)
            .expect("the bounds and one digit should make a histogram");
        Self { histogram, sum_ns: 0, max_ns: 0 }
    }

    fn add(&mut self, duration_ns: u64) {
        self.histogram.saturating_record(duration_ns.max(1));
        self.sum_ns = self.sum_ns.saturating_add(duration_ns);
        self.max_ns = self.max_ns.max(duration_ns);
    }

    fn latency(&self) -> Latency {
        let quantile = |q| self.histogram.value_at_quantile(q).min(self.max_ns);
        Latency {
            count: self.histogram.len(),
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            max_ns: self.max_ns,
            sum_ns: self.sum_ns,
        }
    }
}

/// The type of event that ends a span of this kind, where such events may be aggregated.
fn ending(kind: SpanKind) -> Option<EventType> {
    match kind {
        SpanKind::PageFault => Some(EventType::PageFaultEnd),
        SpanKind::Migration => Some(EventType::MigrateEnd),
        SpanKind::QueueEviction => Some(EventType::QueueRestore),
        SpanKind::Reset => Some(EventType::GpuPostReset),
        SpanKind::Process => Some(EventType::ProcessEnd),
        _ => None,
    }
}

fn moved_bytes(record: &Record<'_>) -> u64 {
    match EventData::of(record) {
        EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
            migration.size
        }
        EventData::UnmapFromGpu { size, .. } => size,
        _ => 0,
    }
}
