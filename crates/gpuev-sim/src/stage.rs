//! What the files of a machine show of a story: sensors that follow the load, processes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::SimMachine;
use crate::scenario::{Effect, Job};
use crate::tree::process::SimProcess;

/// A GPU's sensors are written no more often.
const PAUSE: Duration = Duration::from_millis(100);
/// A GPU that nothing is heard of for so long is idle.
const REST: Duration = Duration::from_secs(2);
/// A GPU that nothing is heard of for so long has cooled down.
const COLD: Duration = Duration::from_secs(6);
/// What each process of a story has on its GPU.
const VRAM_PER_JOB: u64 = 6 << 30;

/// The files' side of a story. Errors of writing are of no account: the events are the story.
///
/// Processes are shown at once, for whoever reads an event looks them up; sensors are written by
/// a thread of their own, since they take longer than events have between them.
pub(crate) struct Stage {
    machine: SimMachine,
    moods: Arc<Mutex<Vec<Mood>>>,
    painter: Option<JoinHandle<()>>,
}

/// How a GPU does.
#[derive(Clone, Copy)]
struct Mood {
    busy_percent: u32,
    throttlers: u64,
    jobs: u64,
    last_heard: Instant,
}

impl Stage {
    pub(crate) fn new(machine: &SimMachine) -> io::Result<Self> {
        let idle = Mood { busy_percent: 0, throttlers: 0, jobs: 0, last_heard: Instant::now() };
        let moods = Arc::new(Mutex::new(vec![idle; machine.gpus().len()]));
        let painter = std::thread::Builder::new().name("gpuev-sim-stage".to_owned()).spawn({
            let (machine, moods) = (machine.clone(), Arc::downgrade(&moods));
            move || paint(&machine, &moods)
        })?;
        Ok(Stage { machine: machine.clone(), moods, painter: Some(painter) })
    }

    pub(crate) fn show(&self, gpu: usize, effect: Effect) {
        match effect {
            Effect::None => return,
            Effect::Starts(job) => {
                let _ = self.machine.add_process(&process(gpu, job));
            }
            Effect::Ends(job) => {
                let _ = self.machine.remove_process(job.pid);
            }
            Effect::Busy(_) | Effect::Throttled(_) => {}
        }
        let mut moods = lock(&self.moods);
        if let Some(mood) = moods.get_mut(gpu) {
            mood.change(effect);
        }
    }
}

impl Drop for Stage {
    /// Shows how things stand at the end.
    fn drop(&mut self) {
        let moods = std::mem::take(&mut self.moods);
        let last = lock(&moods).clone();
        drop(moods);
        if let Some(painter) = self.painter.take() {
            painter.thread().unpark();
            let _ = painter.join();
        }
        write(&self.machine, &last);
    }
}

impl Mood {
    fn change(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Busy(percent) => {
                self.busy_percent = percent;
                self.throttlers = 0;
            }
            Effect::Throttled(bits) => {
                self.busy_percent = 100;
                self.throttlers = bits;
            }
            Effect::Starts(_) => self.jobs += 1,
            Effect::Ends(_) => self.jobs = self.jobs.saturating_sub(1),
        }
        self.last_heard = Instant::now();
    }
}

fn lock(moods: &Mutex<Vec<Mood>>) -> MutexGuard<'_, Vec<Mood>> {
    moods.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes sensors again and again until the story is over; GPUs of which nothing is heard cool
/// down.
fn paint(machine: &SimMachine, moods: &Weak<Mutex<Vec<Mood>>>) {
    loop {
        let Some(now) = moods.upgrade().map(|moods| {
            let mut moods = lock(&moods);
            for mood in moods.iter_mut().filter(|mood| mood.last_heard.elapsed() > REST) {
                mood.busy_percent = 0;
                mood.throttlers = 0;
            }
            moods.clone()
        }) else {
            return;
        };
        let begun = Instant::now();
        write(machine, &now);
        // A tenth of a processor at most, however many GPUs there are.
        std::thread::park_timeout(PAUSE.max(9 * begun.elapsed()));
    }
}

fn write(machine: &SimMachine, moods: &[Mood]) {
    for (gpu, mood) in moods.iter().enumerate() {
        if mood.busy_percent == 0 && mood.last_heard.elapsed() > COLD {
            continue;
        }
        let vram = mood.jobs * VRAM_PER_JOB;
        let _ = machine.follow(gpu, mood.busy_percent, mood.throttlers, vram);
    }
}

/// A process that was started in one of the ways that there are.
fn process(gpu: usize, job: Job) -> SimProcess {
    let Job { pid, comm, kind } = job;
    let process = SimProcess::new(pid, comm.as_bytes()).gpu(gpu).vram(VRAM_PER_JOB).uid(1000);
    match kind {
        0 => process.cmdline(["/usr/bin/python3", "train.py", "--epochs", "3"]).cgroup(format!(
            "0::/system.slice/slurmstepd.scope/job_{}/step_0/user/task_0",
            pid / 8
        )),
        1 => process.cgroup(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod\
             3f1c9a52_7b1e_4c8f_9d6b_2a5e8c7d1f00.slice/cri-containerd-\
             4d1f0b7c6a5e9382716f5e4d3c2b1a09f8e7d6c5b4a3928170f1e2d3c4b5a697.scope",
        ),
        2 => process.uid(0).cgroup(
            "0::/system.slice/docker-\
             9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0.scope",
        ),
        _ => process.cgroup("0::/user.slice/user-1000.slice/session-3.scope"),
    }
}
