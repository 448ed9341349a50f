//! What a flood costs the agent: processor time of its threads, and memory, with history, rules and HTTP on.
//!
//! `cargo bench -p gpuev-agent --bench flood -- [EVENTS_A_SECOND] [SECONDS]`. The simulated driver runs in the
//! same process; its threads are not counted, its memory is what there was before the agent. The history is
//! small, so that it is full when measuring begins: from then on, as after hours of a large one, each event that
//! is written also has an old one deleted. What each thread took is told on standard error.

#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gpuev::{KfdVersion, Machine, OpenWith, Scope};
use gpuev_agent::quantity::Size;
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Client, Kernel, Scenario, SimMachine, Story};

/// The floods that page faults and migrations make.
const STORY: Story = Story::MigrationThrash;

/// The history is full after about two seconds.
const HISTORY: Size = Size(24 << 20);

/// Until caches, queues and the history are full.
const WARMING_UP: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let rate = arguments.first().copied().unwrap_or(100_000);
    let seconds = arguments.get(1).copied().unwrap_or(20);
    let sim = SimMachine::builder().gpus(1).kernel(Kernel::V7_3).build();
    let sim = sim.expect("a machine should be simulated");
    let state = tempfile::tempdir().expect("a folder should be made");
    let mut config = Config::default();
    config.agent.state_dir = state.path().to_owned();
    config.http.listen = "127.0.0.1:0".to_owned();
    config.history.max_size = HISTORY;
    let before = memory_bytes("VmRSS:");
    let agent = Agent::start(&machine_of(&sim), &config).expect("the agent should start");
    let player = sim.play(Scenario::new(STORY).rate(rate)).expect("the story should begin");
    std::thread::sleep(WARMING_UP);
    let (begun, threads, events) = (Instant::now(), cpu_seconds(), seen(&sim));
    std::thread::sleep(Duration::from_secs(seconds));
    let (took, events) = (begun.elapsed().as_secs_f64(), seen(&sim) - events);
    let cpu = spent_since(&threads);
    let memory = memory_bytes("VmHWM:").saturating_sub(before);
    let status = agent.shared().status();
    drop(player);
    agent.stop().expect("the agent should end");
    let what = |name: &str| format!("{name}, agent at {rate}/s");
    figure(&what("processor cores"), cpu / took, "cores");
    figure(&what("events taken"), events / took, "per s");
    figure(&what("processor time of an event"), cpu / events * 1e6, "us");
    figure(&what("memory"), mebibytes(memory), "MiB");
    figure(&what("gaps recorded"), as_f64(status.recorded.gaps), "gaps");
    figure(&what("lost in queues"), as_f64(status.recorded.lost), "events");
}

fn figure(what: &str, value: f64, unit: &str) {
    println!("figure\t{what}\tgpuev agent\t{value:.3}\t{unit}");
}

fn machine_of(sim: &SimMachine) -> Machine {
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let scope = Scope::everything("a simulated machine hides nothing");
    Machine::at(sim.root()).with_event_source(OpenWith::new(
        KfdVersion { major, minor },
        scope,
        open,
    ))
}

/// Lines that the driver had room for: those that were not lost before anybody could read them.
fn seen(sim: &SimMachine) -> f64 {
    as_f64(sim.event_files().iter().map(|file| file.accepted_lines).sum())
}

/// Seconds of processor time of the agent's threads, by number and name.
fn cpu_seconds() -> BTreeMap<String, f64> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc should be there");
    let stats =
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| seconds_of_agent(&stat)).collect()
}

/// What they took since `before`, all together; each by itself on standard error.
fn spent_since(before: &BTreeMap<String, f64>) -> f64 {
    let spent = |(thread, now): (String, f64)| {
        let spent = now - before.get(&thread).copied().unwrap_or(0.0);
        eprintln!("{spent:6.2} s  {thread}");
        spent
    };
    cpu_seconds().into_iter().map(spent).sum()
}

fn seconds_of_agent(stat: &str) -> Option<(String, f64)> {
    let (number, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    if !name.starts_with("gpuev-") || name.starts_with("gpuev-sim") {
        return None;
    }
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((format!("{name} {number}"), ticks / 100.0))
}

/// `VmRSS`: what the process has in memory now. `VmHWM`: the most that it ever had.
fn memory_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc should be there");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

fn mebibytes(bytes: u64) -> f64 {
    as_f64(bytes) / f64::from(1 << 20)
}

#[allow(clippy::cast_precision_loss)] // shown with three digits
fn as_f64(number: u64) -> f64 {
    number as f64
}
