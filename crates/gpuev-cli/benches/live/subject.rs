//! The programs that are measured, and what they cost while they run.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::load::Events;

/// A program that reads events.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// What the table calls it.
    pub(crate) name: &'static str,
    command: Vec<String>,
    /// What it is given.
    pub(crate) events: Events,
    /// Whether it can print latencies.
    pub(crate) tells_latency: bool,
    /// Whether it ends when the GPU throttles, and prints how many events and gaps there were.
    pub(crate) tells_counts: bool,
}

impl Subject {
    /// Every reader that is there; `programs` is the folder of those in C.
    pub(crate) fn all(programs: &Path, gpu_id: u32) -> Result<Vec<Self>, std::io::Error> {
        let this = std::env::current_exe()?.display().to_string();
        let in_c = |name: &str| programs.join(name).display().to_string();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let subject = |name, command: Vec<String>, tells_latency, tells_counts| Self {
            name,
            command,
            events: if name == VENDOR { Events::Throttling } else { Events::Faults },
            tells_latency,
            tells_counts,
        };
        let mut all = vec![
            subject("C loop", words(&[&in_c("minimal"), &gpu_id.to_string()]), true, false),
            subject(VENDOR, words(&[&in_c("rocm_smi")]), true, false),
            subject("EventReader", words(&[&this, "reader", "one"]), true, true),
            subject("Monitor", words(&[&this, "reader", "all"]), true, true),
            subject("watch --json", words(&[GPUEV, "watch", "--json"]), false, false),
        ];
        all.retain(|subject| Path::new(&subject.command[0]).is_file());
        Ok(all)
    }

    /// The program, to be run for ever.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// The vendor's library, as the table calls it.
pub(crate) const VENDOR: &str = "librocm_smi64";
/// The program `gpuev`.
pub(crate) const GPUEV: &str = env!("CARGO_BIN_EXE_gpuev");

/// What a process has cost so far, all its threads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) cpu_ns: u64,
    pub(crate) wake_ups: u64,
}

impl Cost {
    /// Reads it from `/proc`: the scheduler counts nanoseconds there (`Documentation/scheduler/sched-stats.rst`).
    pub(crate) fn of(pid: u32) -> std::io::Result<Self> {
        let mut cost = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.path();
            let times = fs::read_to_string(thread.join("schedstat"))?;
            cost.cpu_ns += times.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let status = fs::read_to_string(thread.join("status"))?;
            cost.wake_ups += field(&status, "voluntary_ctxt_switches:");
        }
        Ok(cost)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { cpu_ns: self.cpu_ns - before.cpu_ns, wake_ups: self.wake_ups - before.wake_ups }
    }
}

/// The most memory that a process has held, in KiB.
pub(crate) fn peak_kib(pid: u32) -> std::io::Result<u64> {
    Ok(field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:"))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
