//! One thing that the agent noticed, with what was known at that moment.

mod json;
mod note;

use std::sync::Arc;

use gpuev::health::Health;
use gpuev::process::Process;
use gpuev::span::Span;
use gpuev::{Event, EventType, Gap, GpuId, Life, Severity};

pub(crate) use note::Noted;

/// One thing that the agent noticed. What rules look at and sinks get.
#[derive(Debug, Clone)]
pub struct Signal {
    /// What was noticed.
    pub what: What,
    /// When, in nanoseconds of `CLOCK_BOOTTIME`. Rules measure windows and durations on it.
    pub boot_ns: u64,
    /// When, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The GPU that it is about.
    pub gpu: GpuId,
    /// Which life of its pid it is of: numbers come again.
    pub life: Life,
    /// The process behind it as it was at that moment, where one is known.
    pub process: Option<Arc<Process>>,
    /// More than one process may be behind the pid that the driver wrote (PID namespaces): `process` is the
    /// likeliest.
    pub ambiguous: bool,
    /// The GPU's health at that moment, where it was sampled.
    pub health: Option<Arc<Health>>,
    /// What is known of a reset besides.
    pub reset: Option<Arc<ResetFacts>>,
}

/// What is known of a reset besides its event.
#[derive(Debug, Clone, Default)]
pub struct ResetFacts {
    /// The XGMI hive of the GPU: its GPUs are reset together.
    pub hive: Option<u64>,
    /// The processes that used the GPU when the reset began, by the number that the driver calls them; `None` where
    /// nobody saw its begin.
    pub victims: Option<Vec<Victim>>,
}

/// A process that used a GPU when that was reset.
#[derive(Debug, Clone)]
pub struct Victim {
    /// The number that the driver calls it.
    pub pid: u32,
    /// Who it is, where that is known.
    pub process: Option<Arc<Process>>,
}

/// What was noticed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// An event of the driver.
    Event(Event),
    /// Something may have happened and was not seen.
    Gap(Gap),
    /// A start with its end, or one of them that stayed alone.
    Span(Span),
    /// A periodic reading; it is in [`Signal::health`].
    Health,
    /// A counter of RAS errors rose.
    RasErrors(RasIncrease),
    /// Many alike events, told as one.
    Aggregate(Aggregate),
    /// A GPU came, left, or cannot be read.
    Gpu(GpuChange),
}

/// A counter of RAS errors rose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RasIncrease {
    /// The block, as the kernel names it: `umc`, `gfx`, `sdma`, ….
    pub block: String,
    /// Which counter.
    pub kind: RasKind,
    /// By how much it rose since the last reading.
    pub increase: u64,
    /// What it reads now.
    pub total: u64,
}

/// Which RAS counter of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RasKind {
    /// Errors that the hardware mended.
    Correctable,
    /// Errors that it could not mend.
    Uncorrectable,
    /// Errors that are contained until the data is used.
    Deferred,
}

impl RasKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Correctable, Self::Uncorrectable, Self::Deferred];

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Correctable => "correctable",
            Self::Uncorrectable => "uncorrectable",
            Self::Deferred => "deferred",
        }
    }
}

/// What became of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuChange {
    /// It is there, and its events are read.
    Found,
    /// It left the machine, or its partition mode changed.
    Lost,
    /// It is there and its events cannot be read.
    Unreadable,
    /// Its events are read, but it does not say how it is doing.
    Silent,
}

impl GpuChange {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Found, Self::Lost, Self::Unreadable, Self::Silent];

    /// The name in JSON and rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
            Self::Silent => "silent",
        }
    }
}

/// Many alike events of one GPU, one process and (at most) one second, told as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// Their type.
    pub event_type: EventType,
    /// The process that all of them are of.
    pub pid: Option<u32>,
    /// The thread that all of them name, where its process is not known.
    pub tid: Option<u32>,
    /// How many.
    pub count: u64,
    /// Bytes moved, for migrations.
    pub bytes: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME` of the first.
    pub from_boot_ns: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME` of the last.
    pub to_boot_ns: u64,
    /// How long their spans took, where the type ends one.
    pub latency: Option<Latency>,
    /// How many of their spans have no start or no end, and are not told singly.
    pub unpaired: u64,
    /// A few of them, whole.
    pub examples: Vec<Event>,
}

/// How long the spans of an [`Aggregate`] took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// How many spans.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_ns: u64,
    /// 99 of 100 took at most this.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// All together.
    pub sum_ns: u64,
}

impl Signal {
    /// What kind it is: `event`, `gap`, `span`, `health`, `ras`, `aggregate` or `gpu`, as in its JSON's
    /// `record`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.what {
            What::Event(_) => "event",
            What::Gap(_) => "gap",
            What::Span(_) => "span",
            What::Health => "health",
            What::RasErrors(_) => "ras",
            What::Aggregate(_) => "aggregate",
            What::Gpu(_) => "gpu",
        }
    }

    /// The event's, aggregate's or span's type: `VMFAULT`, `RESET`, …; `UNKNOWN` for an event that nobody has
    /// documented.
    #[must_use]
    pub fn type_name(&self) -> Option<&'static str> {
        match &self.what {
            What::Event(event) => Some(event.type_name()),
            What::Aggregate(aggregate) => Some(aggregate.event_type.name()),
            What::Span(span) => Some(span.kind().name()),
            _ => None,
        }
    }

    /// How many events it stands for.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        match &self.what {
            What::Event(_) => 1,
            What::Aggregate(aggregate) => aggregate.count,
            _ => 0,
        }
    }

    /// How bad it is by itself, before any rule.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.what {
            What::Event(event) => event.severity(),
            What::RasErrors(ras) if ras.kind == RasKind::Uncorrectable => Severity::Critical,
            What::Gpu(GpuChange::Lost | GpuChange::Unreadable | GpuChange::Silent) => {
                Severity::Critical
            }
            What::RasErrors(_) | What::Gap(_) => Severity::Warning,
            _ => Severity::Info,
        }
    }
}
