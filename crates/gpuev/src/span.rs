//! What a thing cost: a start and its end as one span.
//!
//! [`Spans`] pairs the driver's starts and ends; it is pure and bounded, and the same live and in replay.
//! What cannot be paired is reported too, with the reason: a start whose end did not come, an end whose
//! start was never seen.
//!
//! # How starts and ends find each other
//!
//! | span | key (beside the GPU) | source |
//! |---|---|---|
//! | reset | sequence number | `amdgpu_amdkfd_pre_reset`, `_post_reset` |
//! | page fault | pid, address, node | `svm_range_restore_pages` |
//! | migration | pid, range, from, to | `svm_migrate_vma_to_vram`, `svm_migrate_vma_to_ram` |
//! | queue eviction | pid, node | `kfd_process_evict_queues`, `kfd_process_restore_queues` |
//! | process life | pid, or the thread where its process is not known | `kfd_create_process_device_data`, `kfd_process_destroy_pdds` |
//!
//! **The same key twice: an end belongs to the newest start.** The driver counts evictions of one process:
//! the queues run again only with as many restores as there were evictions, so they nest, and the outermost
//! span is the time without queues. Page faults and migrations of one range run under a lock of that
//! range: a second start while one is open says that the end of the first was lost or, before Linux 6.13
//! where a failed migration has no end, never written; the end that comes is the second's. A second start of
//! a process or of a reset closes the first as superseded: a pid lives once.
//!
//! **Order.** Lines of two CPUs can swap by some milliseconds. An end that the driver stamped is therefore
//! kept for [`Limits::reorder_ns`] before it counts as one without a start, and an end never closes a start
//! that is younger than itself. Ends without a driver's time are not kept: nothing would tell them from a
//! new life of the same pid.
//!
//! **Gaps.** A gap may hold the end of whatever is open on its GPU. Page faults, migrations and evictions
//! that are open expire with it, for their keys come again and the next end may belong to another start.
//! A reset's number and, for the length of a gap, a pid do not come again: these stay open and are
//! marked [`Span::across_gap`]. When the GPU is removed, all expire.

mod key;
mod open;
mod pairing;

pub use pairing::{Limits, Spans};

use gpuev_kfd::EventType;

use crate::{Access, Clock, Comm, EventTime, FaultOutcome, GpuId, Migration};

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpanKind {
    /// A GPU reset, from `GPU_PRE_RESET` to `GPU_POST_RESET`: the GPU is down.
    Reset,
    /// A recoverable page fault.
    PageFault,
    /// Memory on its way.
    Migration,
    /// A process's queues off the GPU.
    QueueEviction,
    /// A process using the GPU.
    Process,
}

impl SpanKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Reset, Self::PageFault, Self::Migration, Self::QueueEviction, Self::Process];

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "RESET",
            Self::PageFault => "PAGE_FAULT",
            Self::Migration => "MIGRATION",
            Self::QueueEviction => "QUEUE_EVICTION",
            Self::Process => "PROCESS",
        }
    }

    /// The kind that an event of this type begins or ends, if any.
    #[must_use]
    pub const fn of(event_type: EventType) -> Option<Self> {
        Some(match event_type {
            EventType::GpuPreReset | EventType::GpuPostReset => Self::Reset,
            EventType::PageFaultStart | EventType::PageFaultEnd => Self::PageFault,
            EventType::MigrateStart | EventType::MigrateEnd => Self::Migration,
            EventType::QueueEviction | EventType::QueueRestore => Self::QueueEviction,
            EventType::ProcessStart | EventType::ProcessEnd => Self::Process,
            _ => return None,
        })
    }

    /// The kind with this name, upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// One start and its end, or one of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which GPU.
    pub gpu: GpuId,
    /// Whose; `None` for a reset, and where only a thread's number is known.
    pub pid: Option<u32>,
    /// Which life of that pid.
    pub life: crate::Life,
    /// The thread that start or end name: that of a process's life only.
    pub tid: Option<u32>,
    /// The process's name, where known.
    pub process: Comm,
    /// When it began; `None` where the start was never seen.
    pub start: Option<EventTime>,
    /// When it ended; `None` where the end was never seen.
    pub end: Option<EventTime>,
    /// How it ended, or why it is reported without an end or start.
    pub outcome: Outcome,
    /// One of its events may be forged, see [`Event::doubtful`](crate::Event::doubtful).
    pub doubtful: bool,
    /// Events of this GPU may have been lost while it was open, or two processes have its pid: start and end may not
    /// be of one another.
    pub across_gap: bool,
    /// Another of the same key is open around it: an eviction within an eviction.
    pub nested: bool,
    /// What was done.
    pub data: SpanData,
}

/// How a span ended, or why it has no end or start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is over: the reset, the migration, the eviction, the process.
    Completed,
    /// The migration failed; [`SpanData::Migration`] has the error.
    Failed,
    /// The page fault was resolved by moving the page.
    Migrated,
    /// The page fault was resolved by mapping the page where it is.
    Mapped,
    /// Its start was never seen: it began before we looked, or was lost.
    StartMissing,
    /// No end in the time that its kind has at most, see [`Limits`].
    Timeout,
    /// The same began again, as often as it cannot nest.
    Superseded,
    /// A gap may hold its end.
    Gap,
    /// The GPU was removed.
    GpuRemoved,
    /// Its process ended first.
    ProcessEnded,
    /// More were open than are kept, and it was the oldest.
    Capacity,
    /// The stream ended first.
    Open,
    /// Its other half was not wanted.
    Filtered,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Completed,
        Self::Failed,
        Self::Migrated,
        Self::Mapped,
        Self::StartMissing,
        Self::Timeout,
        Self::Superseded,
        Self::Gap,
        Self::GpuRemoved,
        Self::ProcessEnded,
        Self::Capacity,
        Self::Open,
        Self::Filtered,
    ];

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Migrated => "migrated",
            Self::Mapped => "mapped",
            Self::StartMissing => "start_missing",
            Self::Timeout => "timeout",
            Self::Superseded => "superseded",
            Self::Gap => "gap",
            Self::GpuRemoved => "gpu_removed",
            Self::ProcessEnded => "process_ended",
            Self::Capacity => "capacity",
            Self::Open => "open",
            Self::Filtered => "filtered",
        }
    }

    /// The outcome with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// Whether both start and end were seen.
    #[must_use]
    pub const fn is_paired(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Migrated | Self::Mapped)
    }
}

/// What a span adds by kind. Addresses and sizes are bytes; nodes are KFD's GPU ids, 0 being system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanData {
    /// A reset.
    Reset {
        /// Counts this GPU's resets.
        sequence: u32,
        /// Why.
        cause: Cause,
    },
    /// A page fault.
    PageFault {
        /// First byte of the page.
        address: u64,
        /// GPU.
        node: u32,
        /// `None` where the start was never seen.
        access: Option<Access>,
    },
    /// A migration.
    Migration {
        /// What moved where and why.
        migration: Migration,
        /// 0 or a negative errno; `None` before Linux 6.13 and where the end was never seen.
        error: Option<i32>,
    },
    /// An eviction.
    QueueEviction {
        /// GPU.
        node: u32,
        /// Why, see [`crate::names::eviction_trigger`]; `None` where the start was never seen.
        trigger: Option<i32>,
        /// How often the restore failed and was scheduled again. Where evictions nest, counted on the
        /// innermost.
        reschedules: u32,
    },
    /// A process.
    Process,
}

/// Why a GPU was reset, in the driver's words, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause {
    length: u8,
    bytes: [u8; 63],
}

impl Cause {
    /// The first 63 bytes of `text`; the driver's longest is about 35.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = [0; 63];
        let taken = text.len().min(bytes.len());
        bytes[..taken].copy_from_slice(&text[..taken]);
        Self { length: u8::try_from(taken).unwrap_or(63), bytes }
    }

    /// The text, if there is one.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        (self.length > 0).then(|| &self.bytes[..usize::from(self.length)])
    }
}

/// Which way memory moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From system memory to a GPU.
    ToGpu,
    /// From a GPU to system memory.
    ToSystem,
    /// From a GPU to another.
    BetweenGpus,
}

impl Direction {
    /// Which way `migration` goes.
    #[must_use]
    pub const fn of(migration: &Migration) -> Self {
        match (migration.from, migration.to) {
            (_, 0) => Self::ToSystem,
            (0, _) => Self::ToGpu,
            _ => Self::BetweenGpus,
        }
    }

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToGpu => "to_gpu",
            Self::ToSystem => "to_system",
            Self::BetweenGpus => "between_gpus",
        }
    }
}

impl Span {
    /// What it is of.
    #[must_use]
    pub const fn kind(&self) -> SpanKind {
        match self.data {
            SpanData::Reset { .. } => SpanKind::Reset,
            SpanData::PageFault { .. } => SpanKind::PageFault,
            SpanData::Migration { .. } => SpanKind::Migration,
            SpanData::QueueEviction { .. } => SpanKind::QueueEviction,
            SpanData::Process => SpanKind::Process,
        }
    }

    /// Nanoseconds from start to end; `None` where one of them is missing.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        Some(self.end?.boot_ns.saturating_sub(self.start?.boot_ns))
    }

    /// Whose clock its times and duration are of. By [`Clock::Receipt`] a duration may be off by the delay
    /// of reading.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let driver = |time: Option<EventTime>| time.is_none_or(|at| at.clock == Clock::Driver);
        if driver(self.start) && driver(self.end) { Clock::Driver } else { Clock::Receipt }
    }

    /// When it is placed on a time line: its start, or its end where the start was never seen.
    #[must_use]
    pub fn time(&self) -> Option<EventTime> {
        self.start.or(self.end)
    }

    /// Bytes moved a second, of a migration that succeeded in more than no time.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<u64> {
        let SpanData::Migration { migration, .. } = self.data else { return None };
        if self.outcome != Outcome::Completed {
            return None;
        }
        let rate = u128::from(migration.size) * 1_000_000_000;
        let rate = rate.checked_div(u128::from(self.duration_ns()?))?;
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

impl From<FaultOutcome> for Outcome {
    fn from(outcome: FaultOutcome) -> Self {
        match outcome {
            FaultOutcome::Migrated => Self::Migrated,
            FaultOutcome::Mapped => Self::Mapped,
        }
    }
}
