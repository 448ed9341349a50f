//! The agent as a whole: what happens is recorded and told, also over restarts and changes.

use std::path::Path;
use std::time::Instant;

use gpuev::{EventType, Gap, GapCause, Item};
use gpuev_agent::config::EventMode;
use gpuev_agent::live::{Missed, Position};
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Comm, DriverEvent, Kernel, SimMachine};
use gpuev_store::{History, Query};

use crate::machine::{PATIENCE, machine_of};

fn config(state_dir: &Path) -> Config {
    let mut config = Config::default();
    config.agent.state_dir = state_dir.to_owned();
    config.http.listen = String::new();
    config
}

fn start(pid: u32) -> DriverEvent {
    DriverEvent::ProcessStart { pid: pid.into(), comm: Comm::new("train") }
}

fn sim() -> SimMachine {
    SimMachine::builder().gpus(2).kernel(Kernel::V7_3).build().unwrap()
}

/// Waits until `count` records of `kind` were told, and gives them.
fn told(agent: &Agent, from: Position, kind: &str, count: usize) -> Vec<serde_json::Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let portion = agent.shared().live.after(from, usize::MAX);
        assert_eq!(portion.missed, Missed::Nothing);
        let of_kind: Vec<_> = portion
            .entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .map(|entry| serde_json::from_str(&entry.json).unwrap())
            .collect();
        if of_kind.len() >= count {
            return of_kind;
        }
        assert!(Instant::now() < deadline, "only {of_kind:?}");
        std::thread::yield_now();
    }
}

fn items(path: &Path) -> Vec<Item> {
    History::open(path).unwrap().items(&Query::new()).map(Result::unwrap).collect()
}

fn gaps<'a>(items: &'a [Item]) -> Vec<&'a Gap> {
    let gap = |item: &'a Item| match item {
        Item::Gap(gap) => Some(gap),
        Item::Event(_) => None,
    };
    items.iter().filter_map(gap).collect()
}

#[test]
fn what_happens_is_told_and_recorded_and_the_time_between_two_runs_is_a_gap() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let config = config(state.path());
    for run in 0..2 {
        let agent = Agent::start(&machine_of(&sim), &config).unwrap();
        let begin = agent.shared().live.now();
        (0..50).for_each(|pid| sim.emit(pid as usize % 2, &start(1000 + pid)));
        assert_eq!(told(&agent, begin, "event", 50).len(), 50);
        agent.stop().unwrap();
        let items = items(&config.history_file());
        assert_eq!(items.len(), 50 * (run + 1) + 2 * run, "each event once, and the gaps");
    }
    let items = items(&config.history_file());
    let gaps = gaps(&items);
    let times: Vec<u64> = items
        .iter()
        .filter_map(|item| match item {
            Item::Event(event) => Some(event.time.received_boot_ns),
            Item::Gap(_) => None,
        })
        .collect();
    for gap in gaps {
        assert_eq!((gap.cause, gap.count), (GapCause::Reopened, None));
        assert!(times[..50].iter().all(|at| *at <= gap.from_boot_ns), "{gap:?}");
        assert!(times[50..].iter().all(|at| *at >= gap.to_boot_ns), "{gap:?}");
    }
}

#[test]
fn another_boot_begins_blind() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let config = config(state.path());
    Agent::start(&machine_of(&sim), &config).unwrap().stop().unwrap();
    sim.write_file("proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n")
        .unwrap();
    Agent::start(&machine_of(&sim), &config).unwrap().stop().unwrap();
    let items = items(&config.history_file());
    let gaps = gaps(&items);
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| gap.from_boot_ns == 0));
}

#[test]
fn a_reload_loses_nothing() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let mut config = config(state.path());
    let agent = Agent::start(&machine_of(&sim), &config).unwrap();
    let begin = agent.shared().live.now();
    for pid in 0..200 {
        sim.emit(0, &start(1000 + pid));
        config.health.interval = gpuev_agent::quantity::Period::from_secs(u64::from(pid + 1));
        assert_eq!(agent.shared().reload(&config).unwrap(), Vec::<&str>::new());
    }
    let events = told(&agent, begin, "event", 200);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..200).collect::<Vec<_>>());
    config.events = config.events.with(EventType::ProcessStart, EventMode::Off);
    config.http.listen = "127.0.0.1:0".to_owned();
    assert_eq!(agent.shared().reload(&config).unwrap(), ["history", "http"]);
    agent.stop().unwrap();
    assert_eq!(items(&config.history_file()).len(), 200);
}

#[test]
fn gpus_that_are_let_go_are_not_lost_and_the_time_is_a_gap() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let agent = Agent::start(&machine_of(&sim), &config(state.path())).unwrap();
    let begin = agent.shared().live.now();
    let open = || sim.event_files().iter().filter(|file| !file.closed).count();
    agent.shared().let_go();
    assert_eq!(open(), 0);
    assert!(agent.shared().status().yielded_since_boot_ns.is_some());
    sim.emit(0, &start(1));
    agent.shared().take_back().unwrap();
    sim.emit(0, &start(2));
    let gaps = told(&agent, begin, "gap", 2);
    assert!(gaps.iter().all(|gap| gap["cause"] == "yielded"), "{gaps:?}");
    assert_eq!(told(&agent, begin, "event", 1)[0]["pid"], 2);
    agent.stop().unwrap();
}

#[test]
fn without_a_history_the_rest_goes_on() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let mut config = config(state.path());
    config.history.file = "no/such/folder.db".into();
    let refused = Agent::start(&machine_of(&sim), &config).unwrap_err().to_string();
    assert!(refused.contains("no/such/folder.db"), "{refused}");
    config.history.enabled = false;
    let agent = Agent::start(&machine_of(&sim), &config).unwrap();
    let begin = agent.shared().live.now();
    sim.emit(0, &start(1));
    told(&agent, begin, "event", 1);
    agent.stop().unwrap();
}
