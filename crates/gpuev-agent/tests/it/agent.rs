//! The agent as a whole: what happens is recorded and told, also over restarts and changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gpuev::{EventType, Gap, GapCause, Item, KfdVersion, Machine, OpenWith, Scope};
use gpuev_agent::config::EventMode;
use gpuev_agent::live::{Missed, Position};
use gpuev_agent::metrics::Exposition;
use gpuev_agent::quantity::Period;
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Client, Comm, DriverEvent, Kernel, RasBlock, Sensor, SimMachine};
use gpuev_store::{History, Query};

use crate::machine::{PATIENCE, machine_of};
use crate::sink::fixture::until;

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
    for gap in gaps {
        assert_eq!((gap.cause, gap.count), (GapCause::Reopened, None));
        let time = |item: &Item| match item {
            Item::Event(event) if event.gpu == gap.gpu => Some(event.time.boot_ns),
            Item::Event(_) | Item::Gap(_) => None,
        };
        let times: Vec<u64> = items.iter().filter_map(time).collect();
        assert_eq!(times[..25].iter().max(), Some(&gap.from_boot_ns), "{gap:?}");
        assert!(times[25..].iter().all(|at| *at >= gap.to_boot_ns), "{gap:?}");
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
        config.health.interval = Period::from_secs(u64::from(pid + 1));
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
    assert_eq!(told(&agent, begin, "event", 1)[0]["tid"], 2);
    agent.stop().unwrap();
}

#[test]
fn without_a_history_the_rest_goes_on() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let mut config = config(state.path());
    config.history.file = "no/such/folder.db".into();
    for enabled in [true, false] {
        config.history.enabled = enabled;
        let agent = Agent::start(&machine_of(&sim), &config).unwrap();
        let begin = agent.shared().live.now();
        sim.emit(0, &start(1));
        told(&agent, begin, "event", 1);
        let failure = || agent.shared().status().recording_failure;
        until("it is said", || failure().is_some() == enabled);
        assert!(failure().is_none_or(|why| why.contains("no/such/folder.db")));
        agent.stop().unwrap();
    }
}

/// What the agent noted in the history of `config`, and the events that it was noted for.
fn noted(config: &Config) -> Vec<(serde_json::Value, Option<Item>)> {
    let history = History::open(&config.history_file()).unwrap();
    let mut notes = history.notes(&Query::new());
    let notes = std::iter::from_fn(|| notes.next_before(None).unwrap());
    let event = |item| history.items(&Query::new().after_item(item - 1)).next().unwrap().unwrap();
    notes.map(|note| (serde_json::from_str(&note.json).unwrap(), note.event.map(event))).collect()
}

#[test]
fn how_a_gpu_was_doing_is_kept_with_the_event() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let mut config = config(state.path());
    config.health.wait = Period(PATIENCE);
    config.health.fresh = Period::from_secs(0);
    let agent = Agent::start(&machine_of(&sim), &config).unwrap();
    let begin = agent.shared().live.now();
    for (round, millidegrees) in [51_000, 93_000].into_iter().enumerate() {
        sim.set_temperature_millidegrees(1, Sensor::Junction, millidegrees).unwrap();
        sim.emit(0, &start(7));
        sim.emit(1, &DriverEvent::VmFault { pid: 7.into(), comm: Comm::new("train") });
        // The last one is noted when everything else has ended.
        told(&agent, begin, "event", 2 * (round + 1));
    }
    agent.stop().unwrap();
    let noted = noted(&config);
    assert_eq!(noted.len(), 2, "{noted:?}");
    for ((note, event), millidegrees) in noted.iter().zip([51_000, 93_000]) {
        let Some(Item::Event(event)) = event else { panic!("{noted:?}") };
        assert_eq!(event.event_type(), Some(EventType::VmFault));
        assert_eq!((&note["record"], &note["seq"]), (&"health".into(), &event.seq.into()));
        assert_eq!(note["gpu"]["bdf"], event.gpu.bdf.to_string());
        let temperatures = note["health"]["temperatures"].as_array().unwrap();
        assert!(temperatures.iter().any(|t| t["millidegrees"] == millidegrees), "{note}");
    }
}

/// A counter that rises is in the live stream, an alert, the history and the metrics.
#[test]
fn an_error_that_is_counted_is_an_event_for_everybody() {
    let (sim, state) = (sim(), tempfile::tempdir().unwrap());
    let mut config = config(state.path());
    config.health.interval = Period::from_millis(1);
    let agent = Agent::start(&machine_of(&sim), &config).unwrap();
    let begin = agent.shared().live.now();
    told(&agent, begin, "health", 2);
    sim.add_ras_error(1, RasBlock::Umc, true).unwrap();
    let rise = told(&agent, begin, "ras", 1).remove(0);
    assert_eq!((&rise["block"], &rise["kind"]), (&"umc".into(), &"uncorrectable".into()));
    assert_eq!((&rise["increase"], &rise["total"]), (&1.into(), &1.into()));
    let alert = told(&agent, begin, "alert", 2).remove(1);
    assert_eq!((&alert["rule"], &alert["state"]), (&"ras-uncorrectable".into(), &"firing".into()));
    assert_eq!(alert["labels"]["gpu"], rise["gpu"]["bdf"]);
    let metrics = agent.shared().metrics.encode(Exposition::Text, &[]);
    let counted = format!(
        "gpuev_ras_errors_total{{gpu=\"{}\",block=\"umc\",kind=\"uncorrectable\"}} 1\n",
        rise["gpu"]["bdf"].as_str().unwrap()
    );
    assert!(metrics.contains(&counted), "{counted}{metrics}");
    agent.stop().unwrap();
    let noted = noted(&config);
    assert_eq!(noted, [(rise, None)]);
}

/// Nothing is announced when a keeper comes back, or permissions are mended.
#[test]
fn gpus_that_could_not_be_opened_are_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let sim = sim();
    let shut = Arc::new(AtomicBool::new(true));
    let (opener, is_shut) = (sim.clone(), Arc::clone(&shut));
    let (major, minor) = sim.kfd_version();
    let open = move |gpu: &gpuev::Gpu| match is_shut.load(Ordering::SeqCst) {
        true => Err(std::io::ErrorKind::PermissionDenied.into()),
        false => opener.open_events(gpu.id.kfd_id, &Client::root()),
    };
    let source = OpenWith::new(KfdVersion { major, minor }, Scope::everything("simulated"), open);
    let machine = Machine::at(sim.root()).with_event_source(source);
    let agent = Agent::start(&machine, &config(folder.path())).unwrap();
    let now = agent.shared().live.now().to_string();
    let begin = Position::parse(&format!("{}-0", now.split_once('-').unwrap().0)).unwrap();
    let changes = |count: usize| -> Vec<String> {
        let told = told(&agent, begin, "gpu", count);
        told.iter().map(|one| one["change"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(changes(2), ["unreadable"; 2]);
    shut.store(false, Ordering::SeqCst);
    assert_eq!(changes(4)[2..], ["found"; 2]);
    let gaps = told(&agent, begin, "gap", 2);
    assert!(gaps.iter().all(|gap| gap["cause"] == "reopened"), "{gaps:?}");
    sim.emit(1, &start(4242));
    told(&agent, begin, "event", 1);
    agent.stop().unwrap();
}
