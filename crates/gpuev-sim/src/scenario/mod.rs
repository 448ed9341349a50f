//! Stories that a machine plays: what its GPUs go through, event by event, repeatable.

mod actors;
mod events;
mod rng;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use events::{Effect, Job};
pub use events::{ScenarioEvent, ScenarioEvents};

use crate::gpu::{SimGpu, gpu_id};

/// What a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Story {
    /// Nothing happens.
    Idle,
    /// A hot machine: throttling, more often than in life.
    Thermal,
    /// GPUs hang and are reset; who worked on them dies.
    Reset,
    /// Page faults without end, and now and then a memory violation.
    FaultStorm,
    /// Memory goes to the GPU and back, again and again; some of it fails.
    MigrationThrash,
    /// Too many processes on each GPU: they put each other's queues off.
    EvictionCascade,
    /// A training job's life on all GPUs: start, warm-up, steps, checkpoints, end; then the next. The machine
    /// is well: what throttles is the power limit.
    Training,
    /// Processes that start, run into memory that is not theirs and end, again and again: nothing
    /// but short lines, and the fatal ones last.
    CrashLoop,
    /// Some of everything.
    Mixed,
}

impl Story {
    /// Every story.
    pub const ALL: [Story; 9] = [
        Story::Idle,
        Story::Thermal,
        Story::Reset,
        Story::FaultStorm,
        Story::MigrationThrash,
        Story::EvictionCascade,
        Story::Training,
        Story::CrashLoop,
        Story::Mixed,
    ];

    /// The name used on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Story::Idle => "idle",
            Story::Thermal => "thermal",
            Story::Reset => "reset",
            Story::FaultStorm => "fault-storm",
            Story::MigrationThrash => "migration-thrash",
            Story::EvictionCascade => "eviction-cascade",
            Story::Training => "training",
            Story::CrashLoop => "crash-loop",
            Story::Mixed => "mixed",
        }
    }
}

/// A story with its seed, pace and length.
///
/// The same scenario on the same GPUs gives the same events. It has no end unless
/// [`count`](Scenario::count) or [`duration`](Scenario::duration) say so.
///
/// ```
/// use gpuev_sim::Scenario;
///
/// let storm = Scenario::by_name("fault-storm")?.seed(7).rate(100_000).count(1_000);
/// let last = storm.events(2).last().map(|last| last.at_ns);
/// assert_eq!(last, Some(9_990_000));
/// # Ok::<(), gpuev_sim::UnknownScenario>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub(crate) story: Story,
    pub(crate) seed: u64,
    pub(crate) rate: Option<u64>,
    pub(crate) count: u64,
    pub(crate) duration_ns: u64,
    pub(crate) burst: u64,
    pub(crate) locks: bool,
}

/// The fastest that a scenario may be: events a second.
pub const MAX_RATE: u64 = 1_000_000;

impl Scenario {
    /// A story at its own pace, without end, with seed 1.
    #[must_use]
    pub const fn new(story: Story) -> Self {
        Scenario {
            story,
            seed: 1,
            rate: None,
            count: u64::MAX,
            duration_ns: u64::MAX,
            burst: 1,
            locks: false,
        }
    }

    /// The story with this name.
    ///
    /// # Errors
    /// None has this name; the error lists those there are.
    pub fn by_name(name: &str) -> Result<Self, UnknownScenario> {
        let story = Story::ALL.into_iter().find(|story| story.name() == name);
        story.map(Scenario::new).ok_or_else(|| UnknownScenario(name.to_owned()))
    }

    /// The names of all stories.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Story::ALL.into_iter().map(Story::name)
    }

    /// What it is about.
    #[must_use]
    pub const fn story(&self) -> Story {
        self.story
    }

    /// Another seed: the same kind of story, told otherwise.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Events a second over all GPUs, evenly, from 1 to [`MAX_RATE`]; without this, the pace is
    /// the story's own. The order of events stays the same.
    #[must_use]
    pub const fn rate(mut self, per_second: u64) -> Self {
        let rate = if per_second > MAX_RATE { MAX_RATE } else { per_second };
        self.rate = Some(if rate == 0 { 1 } else { rate });
        self
    }

    /// Ends after so many events.
    #[must_use]
    pub const fn count(mut self, events: u64) -> Self {
        self.count = events;
        self
    }

    /// Ends after so long.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Raises so many events at once, then none until it is the turn of the next that many: the
    /// pace stays the same, and a reader finds them all at one time.
    #[must_use]
    pub const fn burst(mut self, events: u64) -> Self {
        self.burst = if events == 0 { 1 } else { events };
        self
    }

    /// Whether KFD is locked while one of the story's resets goes on, as the driver's is: nobody
    /// may open `/dev/kfd` until it is over.
    #[must_use]
    pub const fn locks(mut self, locks: bool) -> Self {
        self.locks = locks;
        self
    }

    /// The events on a machine with so many GPUs, at once: their times are those of the story,
    /// in nanoseconds from its beginning.
    #[must_use]
    pub fn events(&self, gpus: usize) -> ScenarioEvents {
        ScenarioEvents::new(*self, (0..gpus).map(|gpu| (gpu, gpu_id(gpu))))
    }

    /// As [`Scenario::events`] on the GPUs of a machine: partitions are reset together.
    pub(crate) fn events_on(&self, gpus: &[SimGpu]) -> ScenarioEvents {
        ScenarioEvents::new(*self, gpus.iter().map(|gpu| (gpu.device, gpu.kfd_gpu_id)))
    }
}

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Scenario::by_name(name)
    }
}

/// A name that no scenario has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScenario(String);

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no scenario '{}'; there are:", self.0)?;
        Scenario::names().try_for_each(|name| write!(f, " {name}"))
    }
}

impl std::error::Error for UnknownScenario {}
