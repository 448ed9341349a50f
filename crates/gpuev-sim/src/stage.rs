//! What the files of a machine show of a story: sensors that follow the load, processes.

use std::time::{Duration, Instant};

use crate::machine::SimMachine;
use crate::scenario::{Effect, Job};
use crate::tree::process::SimProcess;

/// A GPU's sensors are written no more often.
const PAUSE: Duration = Duration::from_millis(100);
/// A GPU that nothing is heard of for so long is idle.
const REST: Duration = Duration::from_secs(2);
/// What each process of a story has on its GPU.
const VRAM_PER_JOB: u64 = 6 << 30;

/// The files' side of a story. Errors of writing are of no account: the events are the story.
pub(crate) struct Stage {
    machine: SimMachine,
    moods: Vec<Mood>,
}

/// How a GPU does.
struct Mood {
    busy_percent: u32,
    throttlers: u64,
    jobs: u64,
    last_heard: Instant,
    shown: Option<Instant>,
}

impl Stage {
    pub(crate) fn new(machine: &SimMachine) -> Self {
        let mood = |_| Mood {
            busy_percent: 0,
            throttlers: 0,
            jobs: 0,
            last_heard: Instant::now(),
            shown: None,
        };
        Stage { machine: machine.clone(), moods: machine.gpus().iter().map(mood).collect() }
    }

    pub(crate) fn show(&mut self, gpu: usize, effect: Effect) {
        let Some(mood) = self.moods.get_mut(gpu) else { return };
        match effect {
            Effect::None => return,
            Effect::Busy(percent) => {
                mood.busy_percent = percent;
                mood.throttlers = 0;
            }
            Effect::Throttled(bits) => {
                mood.busy_percent = 100;
                mood.throttlers = bits;
            }
            Effect::Starts(job) => {
                mood.jobs += 1;
                let _ = self.machine.add_process(&process(gpu, job));
            }
            Effect::Ends(job) => {
                mood.jobs = mood.jobs.saturating_sub(1);
                let _ = self.machine.remove_process(job.pid);
            }
        }
        mood.last_heard = Instant::now();
        self.write(gpu);
    }

    /// Lets GPUs of which nothing is heard cool down.
    pub(crate) fn breathe(&mut self) {
        for gpu in 0..self.moods.len() {
            let mood = &mut self.moods[gpu];
            if mood.last_heard.elapsed() > REST {
                mood.busy_percent = 0;
                mood.throttlers = 0;
            }
            self.write(gpu);
        }
    }

    /// Shows how things stand at the end.
    pub(crate) fn finish(&mut self) {
        for gpu in 0..self.moods.len() {
            self.moods[gpu].shown = None;
            self.write(gpu);
        }
    }

    fn write(&mut self, gpu: usize) {
        let mood = &mut self.moods[gpu];
        if mood.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        mood.shown = Some(Instant::now());
        let (busy, throttlers, vram) =
            (mood.busy_percent, mood.throttlers, mood.jobs * VRAM_PER_JOB);
        let _ = self.machine.follow(gpu, busy, throttlers, vram);
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
