//! The events of a scenario, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Scenario;
use super::actors::{self, Actor};
use super::rng::Rng;
use crate::event::{Comm, DriverEvent, Pid};

/// One event of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScenarioEvent {
    /// Nanoseconds from the beginning.
    pub at_ns: u64,
    /// Index of the GPU.
    pub gpu: usize,
    /// What happens.
    pub event: DriverEvent,
    /// What else changes with it.
    pub(crate) effect: Effect,
}

/// What the machine's files show of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// The GPU works so hard, in per cent.
    Busy(u32),
    /// It is too hot; these hold the clocks down.
    Throttled(u64),
    Starts(Job),
    Ends(Job),
}

/// A process of the story. One that runs on several GPUs is several of these with one pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) pid: u32,
    pub(crate) comm: Comm,
    /// One of a few ways to be started: a Slurm job, a pod, a container, a session.
    pub(crate) kind: u8,
}

impl Job {
    pub(crate) fn pid(&self) -> Pid {
        self.pid.into()
    }
}

/// What is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// An actor has its turn.
    Turn(Actor),
    /// An event.
    Raise(DriverEvent, Effect),
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    at_ns: u64,
    /// Of plans for the same time, the older comes first.
    number: u64,
    gpu: usize,
    plan: Plan,
}

impl Planned {
    fn key(&self) -> (u64, u64) {
        (self.at_ns, self.number)
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The events of a scenario; see [`Scenario::events`].
#[derive(Clone, Debug)]
pub struct ScenarioEvents {
    pub(super) scenario: Scenario,
    pub(super) rng: Rng,
    pub(super) gpus: Vec<GpuState>,
    pub(super) next_pid: u32,
    plans: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    raised: u64,
    /// When the burst began that goes on.
    burst_ns: u64,
}

/// What a story remembers of a GPU.
#[derive(Clone, Debug)]
pub(super) struct GpuState {
    /// Which physical GPU.
    pub(super) device: usize,
    /// KFD's id.
    pub(super) kfd_id: u32,
    pub(super) jobs: Vec<Job>,
    pub(super) resets: u32,
    pub(super) throttles: u64,
    pub(super) next_page: u64,
    /// It is being reset until then.
    pub(super) down_until_ns: u64,
}

impl ScenarioEvents {
    /// On GPUs given by their physical GPU and KFD's id.
    pub(super) fn new(scenario: Scenario, gpus: impl Iterator<Item = (usize, u32)>) -> Self {
        let gpu = |(device, kfd_id)| GpuState {
            device,
            kfd_id,
            jobs: Vec::new(),
            resets: 0,
            throttles: 0,
            next_page: 0x7_f000_0000,
            down_until_ns: 0,
        };
        let mut events = ScenarioEvents {
            scenario,
            rng: Rng::new(scenario.seed),
            gpus: gpus.map(gpu).collect(),
            next_pid: 4200,
            plans: BinaryHeap::with_capacity(256),
            planned: 0,
            raised: 0,
            burst_ns: 0,
        };
        actors::enter(&mut events);
        events
    }

    pub(super) fn plan(&mut self, at_ns: u64, gpu: usize, plan: Plan) {
        self.planned += 1;
        self.plans.push(Reverse(Planned { at_ns, number: self.planned, gpu, plan }));
    }

    pub(super) fn raise(&mut self, at_ns: u64, gpu: usize, event: DriverEvent) {
        self.plan(at_ns, gpu, Plan::Raise(event, Effect::None));
    }

    /// The time of the next event at the pace that was asked for; all of a burst have one.
    fn paced(&mut self, story_ns: u64) -> u64 {
        if !self.raised.is_multiple_of(self.scenario.burst) {
            return self.burst_ns;
        }
        self.burst_ns = match self.scenario.rate {
            None => story_ns,
            Some(rate) => {
                let ns = u128::from(self.raised) * 1_000_000_000 / u128::from(rate);
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        };
        self.burst_ns
    }
}

impl Iterator for ScenarioEvents {
    type Item = ScenarioEvent;

    fn next(&mut self) -> Option<ScenarioEvent> {
        if self.raised >= self.scenario.count {
            return None;
        }
        loop {
            let Reverse(Planned { at_ns, gpu, plan, .. }) = self.plans.pop()?;
            match plan {
                Plan::Turn(actor) => actors::turn(self, actor, gpu, at_ns),
                Plan::Raise(event, effect) => {
                    let at_ns = self.paced(at_ns);
                    if at_ns >= self.scenario.duration_ns {
                        return None;
                    }
                    self.raised += 1;
                    if let Effect::Starts(job) = effect {
                        self.gpus[gpu].jobs.push(job);
                    }
                    return Some(ScenarioEvent { at_ns, gpu, event, effect });
                }
            }
        }
    }
}
