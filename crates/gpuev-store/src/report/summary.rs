//! The result: what is in a report.

use gpuev::span::{Direction, Outcome, SpanKind};
use gpuev::{Comm, EventType, Filter, GapCause, GpuId, Life};

use super::duration::Durations;
use super::timeline::{TYPES, Timeline, type_index};

/// What a stream of events came to. Times are nanoseconds since 1970 (`unix_ns`) or lengths (`_ns`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// Where the events are from, oldest first; the first thousand.
    pub sources: Vec<Source>,
    /// How many sources there were.
    pub source_count: u64,
    /// When the first event or gap was; `None` where there is none.
    pub first_unix_ns: Option<i64>,
    /// When the last was.
    pub last_unix_ns: Option<i64>,
    /// How long at least one GPU was watched: the sources' lengths together, less what is blind on all GPUs.
    pub observed_ns: u64,
    /// Types of which not every event is counted: a recorder, or who asked, left some out.
    pub left_out: LeftOut,
    /// Of a source that its recorder did not end, and whose log is not beside the file: it may lack the last items.
    pub log_missing: bool,
    /// Two recorders watched one machine at the same time: what both recorded is counted twice.
    pub overlapping: bool,
    /// Files that cannot be read: the report is of the others.
    pub unreadable: Vec<String>,
    /// How many events.
    pub events: u64,
    /// How many of them a task name may have forged.
    pub doubtful: u64,
    /// Events by type.
    pub types: TypeCounts,
    /// The minute with the most events.
    pub peak_minute: Option<Peak>,
    /// By GPU, in order of index and address.
    pub gpus: Vec<GpuSummary>,
    /// Events by time.
    pub timeline: Timeline,
    /// The processes with the most events.
    pub processes: Ranking<ProcessSummary>,
    /// What has a beginning and an end, all kinds.
    pub spans: Vec<SpanSummary>,
    /// Resets by cause, the most frequent first.
    pub reset_causes: Vec<CauseSummary>,
    /// The last resets to end, in the order in which they began.
    pub resets: Vec<ResetSummary>,
    /// Throttling by reason over all GPUs, the longest first.
    pub throttling: Vec<ThrottleSummary>,
    /// Memory moved, by direction and trigger.
    pub migrations: Vec<MigrationSummary>,
    /// Ranges that were moved back and forth, the most often first.
    pub thrashing: Ranking<ThrashingRange>,
    /// Where page faults were most frequent.
    pub fault_hot_spots: Ranking<FaultHotSpot>,
    /// Evictions by trigger, the most frequent first.
    pub evictions: Vec<EvictionSummary>,
    /// Memory faults by process, the most frequent first.
    pub memory_faults: Ranking<MemoryFaults>,
    /// Gaps by cause.
    pub gaps: Vec<GapSummary>,
    /// Of a part of the time that was recorded, and is asked for, the history keeps nothing any more.
    pub not_kept: bool,
}

/// What is not counted because it was not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LeftOut {
    types: [bool; TYPES],
    /// A recorder left out something, of types, GPUs, processes or severities.
    pub by_recorder: bool,
    /// Who asked for the report left out something.
    pub by_query: bool,
}

impl LeftOut {
    /// Whether there may be more events of this type than are counted; `None` for unknown ones.
    #[must_use]
    pub fn some_of(&self, event_type: Option<EventType>) -> bool {
        self.types[type_index(event_type)]
    }

    /// Adds what `filter` leaves out.
    pub(super) fn add(&mut self, filter: &Filter) {
        let all = EventType::ALL.into_iter().map(Some).chain([None]);
        let some_pids = filter.parts().pids.is_some();
        for event_type in all {
            let left_out = some_pids || !filter.passes_all_of(event_type);
            self.types[type_index(event_type)] |= left_out;
        }
    }
}

impl Report {
    /// Whether nothing is missing: no gap, nothing that a recorder left out or the history does not keep.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_kept = !self.not_kept && !self.log_missing && self.unreadable.is_empty();
        self.gaps.is_empty() && !self.left_out.by_recorder && is_kept
    }

    /// Events that are known to be lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.gaps.iter().fold(0, |lost, gap| lost.saturating_add(gap.lost))
    }

    /// Events a minute, over the time watched; `None` where that is nothing.
    #[must_use]
    pub fn events_per_minute(&self) -> Option<f64> {
        per_minute(self.events, self.observed_ns)
    }

    /// What there is about a kind of span.
    #[must_use]
    pub fn span(&self, kind: SpanKind) -> Option<&SpanSummary> {
        self.spans.iter().find(|span| span.kind == kind)
    }
}

/// `count` in `ns` as a rate; `None` where no time passed.
#[allow(clippy::cast_precision_loss)] // a rate is shown with four digits
pub(super) fn per_minute(count: u64, ns: u64) -> Option<f64> {
    (ns > 0).then(|| count as f64 * 60e9 / ns as f64)
}

/// Where events are from: a session of a recorder, a file, a simulation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// A file's path or what else it is called.
    pub name: String,
    /// The machine, where known.
    pub host: Option<String>,
    /// Its kernel.
    pub kernel: Option<String>,
    /// Which boot of it: times of `CLOCK_BOOTTIME` can be compared within one.
    pub boot_id: Option<String>,
    /// Whose events were seen.
    pub scope: Option<String>,
    /// What its recorder left out.
    pub filter: Filter,
    /// When watching began; `None` for the time of the first item.
    pub from_unix_ns: Option<i64>,
    /// When it ended, or was last known to go on; `None` for the time of the last item.
    pub to_unix_ns: Option<i64>,
    /// The beginning by `CLOCK_BOOTTIME`, where known: how long somebody watched is measured on it.
    pub from_boot_ns: Option<u64>,
    /// The end by `CLOCK_BOOTTIME`.
    pub to_boot_ns: Option<u64>,
    /// How it ended.
    pub end: SourceEnd,
    /// The GPUs that were watched, whether anything happened to them or not.
    pub gpus: Vec<GpuId>,
    /// Those of them that came later, and when by `CLOCK_BOOTTIME`.
    pub came_later: Vec<(GpuId, u64)>,
    /// Stretches, by `CLOCK_BOOTTIME`, of which nothing is kept.
    pub not_kept: Vec<(u64, u64)>,
}

/// How a source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SourceEnd {
    /// Nobody says.
    #[default]
    Unknown,
    /// It goes on.
    Live,
    /// It ended as it should.
    Closed,
    /// It was killed: it went on at least up to its last sign of life.
    Killed,
}

impl SourceEnd {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Live => "live",
            Self::Closed => "closed",
            Self::Killed => "killed",
        }
    }
}

/// How many events of each type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TypeCounts(pub(super) [u64; TYPES]);

impl TypeCounts {
    /// How many of a type; `None` for unknown ones.
    #[must_use]
    pub fn of(&self, event_type: Option<EventType>) -> u64 {
        self.0[type_index(event_type)]
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What there is more than `before`, of which this has all.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place].saturating_sub(before.0[place])))
    }

    /// Types that there are events of, in the driver's order, with their numbers; `None` for unknown ones.
    pub fn iter(&self) -> impl Iterator<Item = (Option<EventType>, u64)> + '_ {
        let types = EventType::ALL.into_iter().map(Some).chain([None]);
        types.zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// The name of a type in every output.
pub(super) fn type_name(event_type: Option<EventType>) -> &'static str {
    event_type.map_or("UNKNOWN", EventType::name)
}

/// A minute and its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Its beginning.
    pub unix_ns: i64,
    /// How many events.
    pub events: u64,
}

/// What happened on one GPU.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GpuSummary {
    /// The machine that it is in, where the report is of several.
    pub host: Option<String>,
    /// Which.
    pub gpu: GpuId,
    /// Events by type.
    pub types: TypeCounts,
    /// Resets that began or, where that was not seen, ended.
    pub resets: u64,
    /// How many of them were seen to begin and to end.
    pub resets_timed: u64,
    /// How long those took.
    pub down_ns: u64,
    /// How long it was watched: what is said of it is of this time.
    pub watched_ns: u64,
    /// Time throttled, at most.
    pub throttled_ns: u64,
    /// Throttle interrupts that the driver counted between the first and the last event.
    pub throttle_interrupts: u64,
    /// Gaps.
    pub gaps: u64,
    /// Events that are known to be lost.
    pub lost: u64,
}

/// A process: a number comes again, in another boot and in another life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Which boot of the machine, counted from 0: in another, the same number is another process.
    pub boot: u32,
    /// Thread group id, 0 where no process is told.
    pub pid: u32,
    /// Which life of it.
    pub life: Life,
}

/// The first of a list, and what is not in it.
#[derive(Debug, Clone)]
pub struct Ranking<T> {
    /// The first.
    pub entries: Vec<T>,
    /// How many more are known.
    pub more: u64,
    /// A number of an entry may lack as much; also, who is not known has no more. 0 where all is exact.
    pub missing_at_most: u64,
}

/// What a process did.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ProcessSummary {
    /// Which.
    pub who: Who,
    /// Its name.
    pub name: Comm,
    /// Events by type.
    pub types: TypeCounts,
    /// Its first event.
    pub first_unix_ns: i64,
    /// Its last.
    pub last_unix_ns: i64,
    /// How long it used a GPU: the longest of its GPUs. `None` where beginning or end was not seen.
    pub lived_ns: Option<u64>,
    /// Events were missing between that beginning and that end: they may be of two lives.
    pub lived_guessed: bool,
    /// It was not seen to end.
    pub open: bool,
    /// How long its queues were off a GPU: evictions nest, and each moment counts once for each GPU.
    pub evicted_ns: u64,
}

/// What began and ended, of one kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpanSummary {
    /// Which kind.
    pub kind: SpanKind,
    /// Those of which both beginning and end were seen, with failed ones. Of evictions, which nest, the outermost.
    pub durations: Durations,
    /// Of some source beginnings or ends were left out, so that they are not paired.
    pub unpaired_by_filter: bool,
    /// How many by outcome, those that there are.
    pub outcomes: Vec<(Outcome, u64)>,
}

impl SpanSummary {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().find(|(one, _)| *one == outcome).map_or(0, |(_, count)| *count)
    }

    /// How many lack beginning or end.
    #[must_use]
    pub fn unpaired(&self) -> u64 {
        let unpaired = self.outcomes.iter().filter(|(outcome, _)| !outcome.is_paired());
        unpaired.map(|(_, count)| count).sum()
    }
}

/// Resets of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CauseSummary {
    /// Why, in the driver's words without what they name; `None` where it did not say.
    pub cause: Option<&'static str>,
    /// How many.
    pub resets: u64,
    /// How many of them were seen to begin and to end.
    pub timed: u64,
    /// How long those took.
    pub down_ns: u64,
}

/// One reset.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ResetSummary {
    /// Of which GPU.
    pub gpu: GpuId,
    /// When it began or, where that was not seen, ended.
    pub unix_ns: i64,
    /// The GPU's own count.
    pub sequence: u32,
    /// Why, in the driver's words.
    pub cause: gpuev::span::Cause,
    /// How long it took, where beginning and end were seen.
    pub down_ns: Option<u64>,
    /// Events were missing in between.
    pub across_gap: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// Throttling for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThrottleSummary {
    /// The throttler's name; `None` for one that has none.
    pub reason: Option<&'static str>,
    /// Events with it.
    pub events: u64,
    /// GPUs with it.
    pub gpus: u64,
    /// How long those were watched.
    pub watched_ns: u64,
    /// Time throttled over all GPUs, at most.
    pub throttled_ns: u64,
}

/// Memory moved in one direction for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationSummary {
    /// Which way.
    pub direction: Direction,
    /// Why; `None` for a trigger of a later kernel.
    pub trigger: Option<&'static str>,
    /// Migrations that ended well.
    pub moved: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Migrations that failed.
    pub failed: u64,
}

/// Memory that was moved back and forth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThrashingRange {
    /// Whose.
    pub who: Who,
    /// Its name.
    pub name: Comm,
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// How often the direction turned.
    pub bounces: u64,
    /// How often it was moved.
    pub moves: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Moves by trigger, those that there are; `None` for triggers of a later kernel.
    pub triggers: Vec<(Option<&'static str>, u64)>,
}

/// Page faults of one process in one range of 2 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultHotSpot {
    /// Whose.
    pub who: Who,
    /// Its name.
    pub name: Comm,
    /// First byte.
    pub address: u64,
    /// How many.
    pub faults: u64,
    /// How many of them wanted to write.
    pub writes: u64,
    /// How many were resolved by moving the page.
    pub migrated: u64,
    /// How long all of them took.
    pub total_ns: u64,
}

/// Evictions for one reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EvictionSummary {
    /// Why; `None` for a trigger of a later kernel.
    pub trigger: Option<&'static str>,
    /// How many began.
    pub evictions: u64,
    /// How often a restore had to be tried again.
    pub reschedules: u64,
    /// Those of which the end was seen, the outermost: evictions nest.
    pub durations: Durations,
}

/// Memory faults of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryFaults {
    /// Whose.
    pub who: Who,
    /// Its name.
    pub name: Comm,
    /// How many.
    pub faults: u64,
    /// The first.
    pub first_unix_ns: i64,
    /// The last.
    pub last_unix_ns: i64,
}

/// Gaps of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapSummary {
    /// Where events were lost.
    pub cause: GapCause,
    /// How many gaps.
    pub gaps: u64,
    /// Events lost in those that were counted.
    pub lost: u64,
    /// Gaps that nobody counted.
    pub of_unknown_size: u64,
    /// How long they were together.
    pub total_ns: u64,
    /// The beginning of the first.
    pub first_unix_ns: i64,
    /// The end of the last.
    pub last_unix_ns: i64,
}
