//! `gpuev agent`: it runs until it is told to end, reads its configuration again, and says what is wrong with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use gpuev::{GapCause, Item};
use gpuev_store::{Entry, Histories, History, Place, Query};
use rustix::process::Signal;

use crate::program::{Running, run};

/// An agent of a simulated machine, its standard error line by line.
struct Served {
    running: Running,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Served {
    fn start(config: &Path) -> Self {
        Self::of(config, "sim:mixed,gpus=2,rate=2000")
    }

    fn of(config: &Path, source: &str) -> Self {
        let config = config.to_str().unwrap();
        let mut running = Running::start(["agent", "--config", config, "--source", source]);
        let said = BufReader::new(running.child.stderr.take().unwrap()).lines();
        Self { running, said }
    }

    fn says(&mut self, wanted: &str) {
        for line in self.said.by_ref() {
            if line.unwrap().contains(wanted) {
                return;
            }
        }
        panic!("it never said {wanted:?}");
    }

    fn end(mut self) {
        self.running.signal(Signal::TERM);
        assert!(self.running.child.wait().unwrap().success());
    }
}

fn wait_for_events(history: &Path, more_than: i64) -> i64 {
    loop {
        let last = History::open(history).and_then(|history| history.last_item()).unwrap_or(0);
        if last > more_than {
            return last;
        }
        std::thread::yield_now();
    }
}

#[test]
fn it_runs_until_it_is_told_to_end_and_reads_its_configuration_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, state) = (folder.path().join("agent.toml"), folder.path().join("state"));
    let text = format!(
        "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n[control]\nsocket = \"\"\n"
    );
    fs::write(&config, &text).unwrap();
    let mut served = Served::start(&config);
    let history = state.join("history.db");
    let last = wait_for_events(&history, 0);
    fs::write(&config, format!("{text}[health]\ninterval = \"1s\"\n")).unwrap();
    served.running.signal(Signal::HUP);
    served.says("was read again");
    fs::write(&config, "[health]\ninterval = \"soon\"").unwrap();
    served.running.signal(Signal::HUP);
    served.says("agent.toml:2:12");
    served.says("goes on by the configuration of before");
    let last = wait_for_events(&history, last);
    served.end();
    let history = History::open(&history).unwrap();
    let sessions = history.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "a reload is no restart");
    assert!(sessions[0].session.ended.is_some());
    assert!(history.last_item().unwrap() >= last);
    assert!(history.items(&Query::new()).all(|item| item.is_ok()));
}

#[test]
fn a_configuration_is_checked_without_running() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let check = || run(["agent", "--check", "--config", config.to_str().unwrap()]);
    fs::write(&config, "[http]\nlisten = \"127.0.0.1:9470\"\n").unwrap();
    assert_eq!(check().code, Some(0));
    fs::write(&config, "[http]\nlissen = \"127.0.0.1:9470\"\n").unwrap();
    let refused = check();
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("agent.toml:2:1: "), "{refused:?}");
    // What would keep it from starting.
    fs::write(&config, "[http]\nlisten = \"0.0.0.0:9470\"\n").unwrap();
    let refused = check();
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("can be reached by other machines"), "{refused:?}");
}

#[test]
fn a_sink_is_tried_with_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (folder.path().join("agent.toml"), folder.path().join("alerts.ndjson"));
    let gone = folder.path().join("none/alerts.ndjson");
    let text = format!("[sinks.file.main]\npath = {log:?}\n[sinks.file.gone]\npath = {gone:?}\n");
    fs::write(&config, text).unwrap();
    let test =
        |name: &str| run(["agent", "--config", config.to_str().unwrap(), "--test-sink", name]);
    for name in ["main", "file.main"] {
        let tested = test(name);
        assert_eq!(tested.code, Some(0), "{tested:?}");
        assert!(tested.err.contains("sink file.main: its receiver took the test alert"));
    }
    let written = alerts(&log);
    assert_eq!(written.len(), 4, "fires and is over, twice");
    assert!(written[0].2.contains("This is a test of the sink file.main"), "{written:?}");
    assert!(!folder.path().join("queue.db").exists());
    for (name, said) in [("gone", "none/alerts.ndjson"), ("pager", "file.gone, file.main")] {
        let refused = test(name);
        assert_ne!(refused.code, Some(0));
        assert!(refused.err.contains(said), "{refused:?}");
    }
}

/// An installation without configuration tells somebody: the log.
#[test]
fn without_a_sink_alerts_are_told_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let state = folder.path().join("state");
    let text = format!(
        "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n[control]\nsocket = \"\"\n"
    );
    fs::write(&config, text).unwrap();
    let mut served = Served::of(&config, "sim:reset");
    served.says("critical alert gpu-reset is firing: GPU 0000:");
    served.end();
}

/// The alerts that a file sink was given: id, revision, and the line.
fn alerts(log: &Path) -> Vec<(String, u64, String)> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let record = |line: &str| {
        // A line that was being written when the agent was killed is no record.
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let id = record["id"].as_str().filter(|_| record["record"] == "alert")?.to_owned();
        Some((id, record["revision"].as_u64()?, line.to_owned()))
    };
    text.lines().filter_map(record).collect()
}

#[test]
fn killed_again_and_again_under_load_it_knows_what_it_knew_and_when_it_was_blind() {
    const KILLS: i64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let (config, state) = (folder.path().join("agent.toml"), folder.path().join("state"));
    let log = folder.path().join("alerts.ndjson");
    let text = format!(
        "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n[control]\nsocket = \"\"\n\
         [sinks.file.all]\npath = {log:?}\n"
    );
    fs::write(&config, text).unwrap();
    let history = state.join("history.db");
    let mut last = 0;
    for round in 0..KILLS {
        let mut served = Served::start(&config);
        last = wait_for_events(&history, last + 500 + 700 * (round % 3));
        served.running.child.kill().unwrap();
        served.running.child.wait().unwrap();
    }
    let served = Served::start(&config);
    wait_for_events(&history, last + 500);
    served.end();

    let history = History::open(&history).unwrap();
    let runs = runs(&recorded(&Histories::open_file(history.path()).unwrap()));
    assert_eq!(i64::try_from(runs.len()).unwrap(), KILLS + 1);
    for (before, run) in runs.iter().zip(&runs[1..]) {
        assert_eq!(run.blind.len(), 2, "each GPU");
        for (gpu, (from, to)) in &run.blind {
            assert!(before.last.get(gpu) <= Some(from) && from <= to, "what was recorded was seen");
            assert!(*from <= run.first_received, "what came after is of this run");
        }
    }
    assert!(state.join("alerts.json").exists());
    let mut told = BTreeMap::new();
    for (id, revision, line) in alerts(&log) {
        let first = told.entry((id, revision)).or_insert_with(|| line.clone());
        assert_eq!(*first, line, "one id and revision are one message");
    }
    assert!(!told.is_empty(), "the load has faults");
    what_was_noted_is_exported(&history);
}

/// All that the history has, of which nothing is missing: items and notes are numbered in one row.
pub(crate) fn recorded(history: &Histories) -> Vec<(Place, Item)> {
    let (mut entries, mut number) = (history.entries(&Query::new()), 0);
    let mut recorded = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        let Some(place) = entry.place() else { continue };
        number += 1;
        assert_eq!(place.item, number, "no item is missing, and notes count with them");
        if let Entry::Item(place, item) = entry {
            recorded.push((place, item));
        }
    }
    recorded
}

/// What each run of the agent recorded; a run that recorded nothing is none.
pub(crate) fn runs(recorded: &[(Place, Item)]) -> Vec<Run> {
    let of_one_run = |one: &(Place, Item), next: &(Place, Item)| one.0.session == next.0.session;
    let run = |items: &[(Place, Item)]| {
        let mut run = Run::default();
        items.iter().for_each(|(_, item)| run.add(item));
        run
    };
    recorded.chunk_by(of_one_run).map(run).collect()
}

/// Each note behind the events that were recorded before it, and in its session.
pub(crate) fn what_was_noted_is_exported(history: &History) {
    let file = history.path().to_str().unwrap();
    let exported = run(["export", file, "--no-spans"]).good().json();
    let recorded = history.sessions().unwrap();
    let sessions = recorded.len();
    let (mut item, mut begun, mut noted) = (0, 0, 0);
    let mut notes = history.notes(&Query::new());
    for record in &exported {
        if record["record"] == "session" {
            begun += 1;
            continue;
        }
        item += 1;
        if record["record"] == "health" {
            let note = notes.next_before(None).unwrap().unwrap();
            assert_eq!((note.place.item, note.place.session), (item, begun), "{record}");
            let mut told: serde_json::Value = serde_json::from_str(&note.json).unwrap();
            let session = &recorded[usize::try_from(begun).unwrap() - 1];
            told["item"] = session.number_of(item).into();
            assert_eq!(told, *record, "as it was noted, with its number in the session");
            noted += 1;
        }
    }
    assert_eq!((usize::try_from(begun).unwrap(), item), (sessions, history.last_item().unwrap()));
    assert!(noted > 0 && notes.next_before(None).unwrap().is_none(), "faults have the GPU read");
}

/// What one run of the agent recorded.
#[derive(Default)]
pub(crate) struct Run {
    blind: BTreeMap<u32, (u64, u64)>,
    first_received: u64,
    /// When the last event of each GPU happened.
    last: BTreeMap<u32, u64>,
    next_seq: BTreeMap<u32, u64>,
}

impl Run {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Gap(gap) if gap.cause == GapCause::Reopened => {
                let time = (gap.from_boot_ns, gap.to_boot_ns);
                assert_eq!(self.blind.insert(gap.gpu.index, time), None, "once");
            }
            Item::Gap(_) => {}
            Item::Event(event) => {
                if self.last.is_empty() {
                    self.first_received = event.time.received_boot_ns;
                }
                let last = self.last.entry(event.gpu.index).or_default();
                *last = (*last).max(event.time.boot_ns);
                let next = self.next_seq.entry(event.gpu.index).or_insert(event.seq);
                assert_eq!(event.seq, *next, "no event of a run is missing");
                *next += 1;
            }
        }
    }
}
