//! Who does what in a story: each actor has turns, and at each plans events.
//!
//! An actor plans its next turn after all that it does in this one, so that what it starts it
//! ends, and no two of its starts are alike at one time.

use super::Story;
use super::events::{Effect, Job, Plan, ScenarioEvents};
use crate::event::{Comm, DriverEvent, LOCATION_UNDEFINED, ResetCause, throttler, trigger};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Longer than anything an actor has planned for a process.
const WINDING_UP: u64 = SECOND;
/// 2 MiB, what the driver moves at once.
const PAGES: u64 = 0x200;
/// Pages that a story works on, before it begins anew.
const PAGES_IN_USE: u64 = 1 << 24;

/// A thing that happens again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// A process comes.
    Job,
    /// The eldest process goes.
    JobEnds,
    /// A page fault of the GPU.
    Fault,
    /// A memory violation.
    Violation,
    /// A process starts, faults and ends.
    Crash,
    /// Memory goes to the GPU and back.
    Migration,
    /// Queues of one process, or of several, are put off and come back.
    Eviction,
    /// The clocks are held down.
    Thermal,
    /// A hang and a reset.
    Reset,
    /// One step of a training job.
    Step,
    /// A checkpoint of a training job.
    Checkpoint,
}

/// Who is in a story, with the mean time between two turns.
fn cast(story: Story) -> &'static [(Actor, u64)] {
    match story {
        Story::Idle => &[],
        Story::Thermal => &[(Actor::Job, 40 * SECOND), (Actor::Thermal, SECOND)],
        Story::Reset => &[(Actor::Job, 5 * SECOND), (Actor::Reset, 6 * SECOND)],
        Story::FaultStorm => &[
            (Actor::Job, 30 * SECOND),
            (Actor::Fault, 2 * MILLISECOND),
            (Actor::Violation, 5 * SECOND),
        ],
        Story::MigrationThrash => &[(Actor::Job, 60 * SECOND), (Actor::Migration, 5 * MILLISECOND)],
        Story::EvictionCascade => &[(Actor::Job, 5 * SECOND), (Actor::Eviction, 200 * MILLISECOND)],
        Story::CrashLoop => &[(Actor::Crash, 100 * MILLISECOND)],
        Story::Training => &[(Actor::Step, 250 * MILLISECOND), (Actor::Checkpoint, 10 * SECOND)],
        Story::Mixed => &[
            (Actor::Job, 10 * SECOND),
            (Actor::Fault, 50 * MILLISECOND),
            (Actor::Migration, 100 * MILLISECOND),
            (Actor::Eviction, 500 * MILLISECOND),
            (Actor::Violation, 10 * SECOND),
            (Actor::Thermal, 5 * SECOND),
            (Actor::Reset, 20 * SECOND),
        ],
    }
}

fn period(story: Story, actor: Actor) -> u64 {
    let found = cast(story).iter().find(|(one, _)| *one == actor);
    found.map_or(30 * SECOND, |(_, period)| *period)
}

/// Gives every actor its first turn.
pub(super) fn enter(events: &mut ScenarioEvents) {
    let story = events.scenario.story;
    for gpu in 0..events.gpus.len() {
        if story == Story::Training {
            // A job is on all GPUs at once.
            events.plan(0, gpu, Plan::Turn(Actor::Job));
        }
        let device = events.gpus[gpu].device;
        let partition = events.gpus[..gpu].iter().any(|state| state.device == device);
        for &(actor, period) in cast(story) {
            if partition && matches!(actor, Actor::Thermal | Actor::Reset) {
                // These befall the physical GPU; its first partition speaks for all.
                continue;
            }
            let first = match actor {
                Actor::Job => events.rng.below(MILLISECOND),
                _ => MILLISECOND + events.rng.below(period),
            };
            events.plan(first, gpu, Plan::Turn(actor));
        }
    }
}

/// Lets an actor have its turn.
pub(super) fn turn(events: &mut ScenarioEvents, actor: Actor, gpu: usize, now: u64) {
    let back = events.gpus[gpu].down_until_ns;
    if now < back {
        events.plan(back + MILLISECOND, gpu, Plan::Turn(actor));
        return;
    }
    let done = match actor {
        Actor::Job => job(events, gpu, now),
        Actor::JobEnds => return job_ends(events, gpu, now),
        Actor::Fault => fault(events, gpu, now),
        Actor::Violation => violation(events, gpu, now),
        Actor::Crash => crash(events, gpu, now),
        Actor::Migration => migration(events, gpu, now),
        Actor::Eviction => eviction(events, gpu, now),
        Actor::Thermal => throttled(events, gpu, now, &HOT),
        Actor::Reset => reset(events, gpu, now),
        Actor::Step => step(events, gpu, now),
        Actor::Checkpoint => checkpoint(events, gpu, now),
    };
    let pause = period(events.scenario.story, actor);
    let pause = events.rng.around(pause);
    events.plan(done + pause, gpu, Plan::Turn(actor));
}

const NAMES: [&str; 8] = [
    "python3",
    "torchrun",
    "pt_main_thread",
    "vllm",
    "VLLM::EngineCore",
    "gmx_mpi",
    "rank 3: train",
    "rochpl",
];

fn new_job(events: &mut ScenarioEvents) -> Job {
    let pid = events.next_pid;
    events.next_pid = 4200 + (pid + 1 - 4200) % 4_000_000;
    let name = events.rng.pick(&NAMES).unwrap_or("python3");
    let kind = u8::try_from(events.rng.below(4)).unwrap_or(0);
    Job { pid, comm: Comm::from(name), kind }
}

fn job(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let story = events.scenario.story;
    let wanted = if story == Story::EvictionCascade { 6 } else { 2 };
    if events.gpus[gpu].jobs.len() >= wanted {
        events.plan(now, gpu, Plan::Turn(Actor::JobEnds));
    }
    if story == Story::Training {
        training_job(events, gpu, now);
        return now;
    }
    // A cascade needs a crowd from the beginning.
    let count = if events.gpus[gpu].jobs.is_empty() { wanted / 2 } else { 1 };
    for _ in 0..count {
        let job = new_job(events);
        starts(events, gpu, now, job);
    }
    now
}

/// One process for each GPU, all at one time: the first GPU's turn starts them all.
fn training_job(events: &mut ScenarioEvents, gpu: usize, now: u64) {
    if gpu != 0 {
        return;
    }
    let first = events.gpus.iter().all(|state| state.jobs.is_empty());
    let begin = if first { now } else { now + 2 * WINDING_UP };
    for rank in 0..events.gpus.len() {
        job_ends(events, rank, now);
        let job = Job { comm: Comm::from("torchrun"), kind: 0, ..new_job(events) };
        let start = begin + rank as u64 * 3 * MILLISECOND;
        starts(events, rank, start, job);
        // Weights go to the GPU before the first step.
        for part in 0..8 {
            let at = start + 20 * MILLISECOND + part * 15 * MILLISECOND;
            prefetch(events, rank, at, job);
        }
    }
}

fn starts(events: &mut ScenarioEvents, gpu: usize, at: u64, job: Job) {
    let event = DriverEvent::ProcessStart { pid: job.pid(), comm: job.comm };
    events.plan(at, gpu, Plan::Raise(event, Effect::Starts(job)));
}

fn job_ends(events: &mut ScenarioEvents, gpu: usize, now: u64) {
    if events.gpus[gpu].jobs.is_empty() {
        return;
    }
    let job = events.gpus[gpu].jobs.remove(0);
    ends(events, gpu, now + WINDING_UP, job);
}

fn ends(events: &mut ScenarioEvents, gpu: usize, at: u64, job: Job) {
    let event = DriverEvent::ProcessEnd { pid: job.pid(), comm: job.comm };
    events.plan(at, gpu, Plan::Raise(event, Effect::Ends(job)));
}

fn anyone(events: &mut ScenarioEvents, gpu: usize) -> Option<Job> {
    let state = &events.gpus[gpu];
    events.rng.pick(&state.jobs)
}

/// Fresh memory: no two things that go on at one time are about the same pages.
fn pages(events: &mut ScenarioEvents, gpu: usize) -> u64 {
    let state = &mut events.gpus[gpu];
    let page = state.next_page;
    state.next_page = 0x7_f000_0000 + (page + PAGES - 0x7_f000_0000) % PAGES_IN_USE;
    page
}

fn fault(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let Some(job) = anyone(events, gpu) else { return now };
    let (pid, page) = (job.pid(), pages(events, gpu));
    let write = events.rng.once_in(2);
    let busy = Effect::Busy(90);
    events.plan(now, gpu, Plan::Raise(DriverEvent::PageFaultStart { pid, page, write }, busy));
    let migrated = events.rng.once_in(3);
    let mut at = now + events.rng.around(40 * MICROSECOND);
    if migrated {
        let cause = trigger::MIGRATE_PAGEFAULT_GPU;
        at = migrates(events, gpu, at, &Move { job, page, to_gpu: true, cause });
    }
    events.raise(at, gpu, DriverEvent::PageFaultEnd { pid, page, migrated });
    at
}

fn violation(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let Some(job) = anyone(events, gpu) else { return now };
    // Many waves run into the same hole.
    for wave in 0..1 + events.rng.below(4) {
        let event = DriverEvent::VmFault { pid: job.pid(), comm: job.comm };
        events.raise(now + wave * 30 * MICROSECOND, gpu, event);
    }
    now
}

/// A life of some milliseconds.
fn crash(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let job = new_job(events);
    let start = DriverEvent::ProcessStart { pid: job.pid(), comm: job.comm };
    events.plan(now, gpu, Plan::Raise(start, Effect::Busy(60)));
    let waves = 1 + events.rng.below(64);
    let fault = DriverEvent::VmFault { pid: job.pid(), comm: job.comm };
    for wave in 0..waves {
        events.raise(now + MILLISECOND + wave * 30 * MICROSECOND, gpu, fault);
    }
    let end = now + 5 * MILLISECOND;
    events.raise(end, gpu, DriverEvent::ProcessEnd { pid: job.pid(), comm: job.comm });
    end
}

/// Memory of a process on its way.
struct Move {
    job: Job,
    page: u64,
    to_gpu: bool,
    cause: i32,
}

/// A start and an end; gives the time of the end. One in 64 fails for lack of memory.
fn migrates(events: &mut ScenarioEvents, gpu: usize, at: u64, what: &Move) -> u64 {
    let id = events.gpus[gpu].kfd_id;
    let (from, to) = if what.to_gpu { (0, id) } else { (id, 0) };
    let Move { job, page, cause: trigger, .. } = *what;
    let pid = job.pid();
    let prefetch = if trigger == trigger::MIGRATE_PREFETCH { id } else { LOCATION_UNDEFINED };
    let preferred = LOCATION_UNDEFINED;
    let pages = PAGES;
    let start =
        DriverEvent::MigrateStart { pid, page, pages, from, to, prefetch, preferred, trigger };
    events.raise(at, gpu, start);
    let end = at + events.rng.around(160 * MICROSECOND);
    let error = if events.rng.once_in(64) { -12 } else { 0 };
    events.raise(end, gpu, DriverEvent::MigrateEnd { pid, page, pages, from, to, trigger, error });
    end
}

fn prefetch(events: &mut ScenarioEvents, gpu: usize, at: u64, job: Job) {
    let page = pages(events, gpu);
    migrates(events, gpu, at, &Move { job, page, to_gpu: true, cause: trigger::MIGRATE_PREFETCH });
}

fn migration(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let Some(job) = anyone(events, gpu) else { return now };
    let page = pages(events, gpu);
    let there = Move { job, page, to_gpu: true, cause: trigger::MIGRATE_PAGEFAULT_GPU };
    let at = migrates(events, gpu, now, &there);
    let cause = if events.rng.once_in(4) {
        trigger::MIGRATE_TTM_EVICTION
    } else {
        trigger::MIGRATE_PAGEFAULT_CPU
    };
    let unmapped = at + events.rng.around(100 * MICROSECOND);
    let event = DriverEvent::UnmapFromGpu {
        pid: job.pid(),
        page,
        pages: PAGES,
        trigger: trigger::UNMAP_MMU_NOTIFY_MIGRATE,
    };
    events.raise(unmapped, gpu, event);
    let back = Move { job, page, to_gpu: false, cause };
    migrates(events, gpu, unmapped + 10 * MICROSECOND, &back)
}

fn eviction(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let crowd = events.gpus[gpu].jobs.clone();
    let causes = [trigger::EVICT_SVM, trigger::EVICT_USERPTR, trigger::EVICT_TTM];
    let cause = events.rng.pick(&causes).unwrap_or(trigger::EVICT_TTM);
    let first = events.rng.place(crowd.len());
    // Memory that is taken back is everybody's; a pointer of one's own is not.
    let hit = if cause == trigger::EVICT_TTM { crowd.len() } else { crowd.len().min(1) };
    let mut done = now;
    for (place, job) in crowd.iter().cycle().skip(first).take(hit).enumerate() {
        let at = now + place as u64 * 200 * MICROSECOND;
        done = done.max(evicted(events, gpu, at, *job, cause));
    }
    done
}

/// An eviction and its end; one restore in eight has to be tried again. Gives the time of the end.
fn evicted(events: &mut ScenarioEvents, gpu: usize, at: u64, job: Job, cause: i32) -> u64 {
    let pid = job.pid();
    events.raise(at, gpu, DriverEvent::QueueEviction { pid, trigger: cause });
    let mut end = at + events.rng.around(20 * MILLISECOND);
    while events.rng.once_in(8) && end < at + WINDING_UP / 4 {
        events.raise(end, gpu, DriverEvent::QueueRestore { pid, rescheduled: true });
        end += events.rng.around(20 * MILLISECOND);
    }
    events.raise(end, gpu, DriverEvent::QueueRestore { pid, rescheduled: false });
    end
}

/// What holds the clocks of a hot machine down.
const HOT: [u64; 5] = [
    throttler::TEMP_HOTSPOT,
    throttler::TEMP_HOTSPOT | throttler::TEMP_MEM,
    throttler::TEMP_EDGE,
    throttler::PPT0,
    throttler::PPT0 | throttler::TDC_GFX,
];

/// What holds the clocks of a busy machine down that is well.
const AT_THE_LIMIT: [u64; 2] = [throttler::PPT0, throttler::PPT0 | throttler::TDC_GFX];

fn throttled(events: &mut ScenarioEvents, gpu: usize, now: u64, causes: &[u64]) -> u64 {
    let throttlers = events.rng.pick(causes).unwrap_or(throttler::PPT0);
    // The driver counts every interrupt and tells of one in a while.
    let interrupts = 1 + events.rng.below(20);
    let state = &mut events.gpus[gpu];
    state.throttles += interrupts;
    let event = DriverEvent::Thermal { throttlers, count: state.throttles };
    events.plan(now, gpu, Plan::Raise(event, Effect::Throttled(throttlers)));
    now
}

fn reset(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let device = events.gpus[gpu].device;
    let causes = [
        ResetCause::JobHangOnRing(Comm::from("gfx_0.0.0")),
        ResetCause::JobHang,
        ResetCause::RasError,
        ResetCause::MesHang,
        ResetCause::HwsHang,
        ResetCause::UserTrigger,
    ];
    let cause = events.rng.pick(&causes);
    let down = 800 * MILLISECOND + events.rng.around(SECOND);
    let nodes: Vec<usize> =
        (0..events.gpus.len()).filter(|node| events.gpus[*node].device == device).collect();
    for node in nodes {
        let state = &mut events.gpus[node];
        state.resets += 1;
        state.down_until_ns = now + down;
        let (sequence, dead) = (state.resets, std::mem::take(&mut state.jobs));
        let event = DriverEvent::PreReset { sequence, cause };
        events.plan(now, node, Plan::Raise(event, Effect::Busy(0)));
        events.raise(now + down, node, DriverEvent::PostReset { sequence, cause: None });
        for job in dead {
            ends(events, node, now + down + 5 * MILLISECOND, job);
        }
        // Life goes on with somebody else.
        let next = new_job(events);
        starts(events, node, now + down + 50 * MILLISECOND, next);
    }
    now + down
}

fn step(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let Some(job) = anyone(events, gpu) else { return now };
    let (pid, page) = (job.pid(), pages(events, gpu));
    let event = DriverEvent::PageFaultStart { pid, page, write: true };
    events.plan(now, gpu, Plan::Raise(event, Effect::Busy(97)));
    let at = now + events.rng.around(30 * MICROSECOND);
    let cause = trigger::MIGRATE_PAGEFAULT_GPU;
    let end = migrates(events, gpu, at, &Move { job, page, to_gpu: true, cause });
    events.raise(end, gpu, DriverEvent::PageFaultEnd { pid, page, migrated: true });
    if events.rng.once_in(200) {
        throttled(events, gpu, end, &AT_THE_LIMIT);
    }
    end
}

fn checkpoint(events: &mut ScenarioEvents, gpu: usize, now: u64) -> u64 {
    let Some(job) = anyone(events, gpu) else { return now };
    let end = evicted(events, gpu, now, job, trigger::EVICT_SUSPEND);
    let (pid, page) = (job.pid(), pages(events, gpu));
    let event =
        DriverEvent::UnmapFromGpu { pid, page, pages: PAGES, trigger: trigger::UNMAP_FROM_CPU };
    events.raise(end, gpu, event);
    end
}
