//! `gpuev agent`: it runs until it is told to end, reads its configuration again, and says what is wrong with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use gpuev_store::{History, Query};
use rustix::process::Signal;

use crate::program::{Running, run};

/// An agent of a simulated machine, its standard error line by line.
struct Served {
    running: Running,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Served {
    fn start(config: &Path) -> Self {
        let config = config.to_str().unwrap();
        let source = "sim:mixed,gpus=2,rate=2000";
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
}
