//! Playing a scenario on a machine, in time.

use std::io;
use std::iter::Peekable;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::boot_ns;
use crate::event::DriverEvent;
use crate::line::Line;
use crate::machine::SimMachine;
use crate::scenario::{Scenario, ScenarioEvents};
use crate::stage::Stage;
use crate::truth::{Truth, Witness};

/// Events closer than this become readable together: shorter sleeps do not come true.
const TICK_NS: u64 = 100_000;
/// How late a player at the story's own pace may be before what is late is put off.
const LATE_NS: u64 = 20_000_000;
/// Longest sleep, so that stopping is prompt.
const NAP: Duration = Duration::from_millis(20);
/// Faster than this, files are left alone once the story has begun: writing those of a process
/// takes longer than an event.
const FASTEST_WITH_FILES: u64 = 10_000;
/// Events of the beginning, whose processes are always shown.
const BEGINNING: u64 = 256;

/// An event that a player raises: what a program that watches is to see of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Raised<'a> {
    /// Index of the GPU.
    pub gpu: usize,
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// What.
    pub event: &'a DriverEvent,
    /// The driver's message, its newline included.
    pub message: &'a [u8],
}

/// Who is told of each event before it is raised.
type Listener = Box<dyn FnMut(Raised<'_>) + Send>;

/// A scenario that is being played, in a thread of its own; dropping it stops it.
#[derive(Debug)]
pub struct Player {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Truth>>,
}

impl Player {
    fn start(
        machine: SimMachine,
        scenario: Scenario,
        listener: Option<Listener>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut performance = Performance::new(machine, scenario, Arc::clone(&stop))?;
        performance.listener = listener;
        let thread = std::thread::Builder::new()
            .name("gpuev-sim-play".to_owned())
            .spawn(move || performance.run())?;
        Ok(Player { stop, thread: Some(thread) })
    }

    /// Whether the scenario has come to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it now; gives what was raised.
    #[must_use]
    pub fn stop(mut self) -> Truth {
        self.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until the scenario ends; gives what was raised. One without count or duration has
    /// no end.
    #[must_use]
    pub fn join(mut self) -> Truth {
        self.wait()
    }

    fn wait(&mut self) -> Truth {
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wait();
    }
}

/// The thread's own.
struct Performance {
    machine: SimMachine,
    scenario: Scenario,
    stop: Arc<AtomicBool>,
    events: Peekable<ScenarioEvents>,
    witness: Witness,
    listener: Option<Listener>,
    stage: Stage,
    /// By GPU: what is to be raised at this tick, with its stamp.
    batches: Vec<Vec<(u64, DriverEvent)>>,
    raised: u64,
}

impl Performance {
    fn new(machine: SimMachine, scenario: Scenario, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let gpus = machine.gpus();
        Ok(Performance {
            events: scenario.events_on(&gpus).peekable(),
            stage: Stage::new(&machine)?,
            batches: gpus.iter().map(|_| Vec::with_capacity(256)).collect(),
            machine,
            scenario,
            stop,
            witness: Witness::default(),
            listener: None,
            raised: 0,
        })
    }

    fn run(mut self) -> Truth {
        self.play();
        // A reset that the story does not tell the end of is over with it.
        (0..self.batches.len()).for_each(|gpu| self.machine.set_in_reset(gpu, false));
        drop(self.stage);
        self.witness.tell()
    }

    fn play(&mut self) {
        // Sleeps end when they should, not some 50 us later.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let begun = Instant::now();
        let wall = self.scenario.duration_ns;
        let mut origin = begun;
        while let Some(due) = self.events.peek().map(|next| next.at_ns) {
            let due_at = origin + Duration::from_nanos(due);
            if !self.sleep_until(due_at) || nanos(begun.elapsed()) >= wall {
                return;
            }
            origin += self.put_off(due_at);
            self.tick(due);
        }
        // A story with a duration lasts as long, however quiet it is; one without an end has none.
        if wall < u64::MAX {
            self.sleep_until(begun + Duration::from_nanos(wall));
        } else if self.scenario.count == u64::MAX {
            while self.sleep_until(Instant::now() + NAP) {}
        }
    }

    /// Whether nobody called for the end meanwhile.
    fn sleep_until(&self, due: Instant) -> bool {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// How much later all that follows is to be: a player that was held up goes on from now, and
    /// what it did not raise in the meantime is missed.
    fn put_off(&mut self, due: Instant) -> Duration {
        let (later, missed) = held_up(nanos(due.elapsed()), self.scenario.rate);
        self.witness.miss(missed);
        Duration::from_nanos(later)
    }

    /// Raises what is due at `due` and shortly after.
    fn tick(&mut self, due: u64) {
        let kernel = self.machine.kernel();
        let with_files = self.scenario.rate.is_none_or(|rate| rate <= FASTEST_WITH_FILES);
        while let Some(next) = self.events.next_if(|next| next.at_ns < due + TICK_NS) {
            if with_files || self.raised < BEGINNING {
                self.stage.show(next.gpu, next.effect);
            }
            self.raised += 1;
            if kernel.raises(&next.event) {
                self.batches[next.gpu].push((0, next.event));
            }
        }
        for (gpu, batch) in self.batches.iter_mut().enumerate().filter(|(_, b)| !b.is_empty()) {
            for (ns, event) in batch.iter_mut() {
                *ns = boot_ns();
                self.witness.see(*ns, gpu, event);
            }
            if let Some(listener) = &mut self.listener {
                tell(listener, &self.machine, gpu, batch);
            }
            let locks = if self.scenario.locks { resets(batch) } else { None };
            if locks == Some(false) {
                self.machine.set_in_reset(gpu, false);
            }
            self.machine.emit_batch_at(gpu, batch.iter().map(|(ns, event)| (*ns, event)));
            if locks == Some(true) {
                self.machine.set_in_reset(gpu, true);
            }
            batch.clear();
        }
    }
}

/// Whether a reset goes on after these events, if they are about one. The driver locks KFD after it
/// told of the beginning, and unlocks it before it tells of the end.
fn resets(batch: &[(u64, DriverEvent)]) -> Option<bool> {
    batch.iter().rev().find_map(|(_, event)| match event {
        DriverEvent::PreReset { .. } => Some(true),
        DriverEvent::PostReset { .. } => Some(false),
        _ => None,
    })
}

/// Tells of what is about to be raised on a GPU. One that is not there raises nothing.
fn tell(listener: &mut Listener, machine: &SimMachine, gpu: usize, batch: &[(u64, DriverEvent)]) {
    let Ok(gpu_id) = machine.kfd_gpu_id(gpu) else { return };
    let mut line = Line::new();
    for (boot_ns, event) in batch {
        line.write(machine.kernel(), gpu_id, *boot_ns, event);
        let message = line.as_bytes();
        if !message.is_empty() {
            listener(Raised { gpu, boot_ns: *boot_ns, event, message });
        }
    }
}

/// What being late by `late` nanoseconds means: by how many all that follows is put off, and how
/// many events were not raised that should have been.
fn held_up(late: u64, rate: Option<u64>) -> (u64, u64) {
    let allowed = rate.map_or(LATE_NS, |rate| TICK_NS.max(1_000_000_000 / rate));
    if late <= allowed {
        return (0, 0);
    }
    let missed = u128::from(late) * u128::from(rate.unwrap_or(0)) / 1_000_000_000;
    (late, u64::try_from(missed).unwrap_or(u64::MAX))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl SimMachine {
    /// Plays a scenario, from now on, in a thread of its own: events, the sensors and processes
    /// that go with them.
    ///
    /// Events are on time or not at all: a player that the system held up goes on at its pace and
    /// counts what it [missed](Truth::missed). Up to 10,000 events a second the machine's files
    /// follow the story; above only those of its first processes.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn play(&self, scenario: Scenario) -> io::Result<Player> {
        Player::start(self.clone(), scenario, None)
    }

    /// As [`play`](Self::play), and tells `listener` of each event before any program can see it.
    ///
    /// # Errors
    /// As [`play`](Self::play).
    pub fn play_telling(
        &self,
        scenario: Scenario,
        listener: impl FnMut(Raised<'_>) + Send + 'static,
    ) -> io::Result<Player> {
        Player::start(self.clone(), scenario, Some(Box::new(listener)))
    }
}

#[cfg(test)]
mod tests {
    use super::held_up;

    #[test]
    fn who_is_held_up_goes_on_from_now_and_counts_what_was_missed() {
        assert_eq!(held_up(900_000, Some(1_000)), (0, 0), "within one tick");
        assert_eq!(held_up(100_000, Some(1_000_000)), (0, 0));
        assert_eq!(held_up(3_000_000, Some(1_000)), (3_000_000, 3));
        assert_eq!(held_up(3_000_000, Some(1_000_000)), (3_000_000, 3_000));
        assert_eq!(held_up(19_000_000, None), (0, 0));
        assert_eq!(held_up(30_000_000, None), (30_000_000, 0));
    }
}
