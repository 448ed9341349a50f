//! What an operator asks the agent of a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Ended, Running, run};

/// An agent of a machine whose GPUs are reset now and then.
struct Operated {
    folder: tempfile::TempDir,
    agent: Option<Running>,
}

impl Operated {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, socket) = (folder.path().join("state"), folder.path().join("agent.sock"));
        let text = format!(
            "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n[control]\nsocket = {socket:?}\n"
        );
        fs::write(folder.path().join("agent.toml"), text).unwrap();
        Self { folder, agent: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        let config = self.path("agent.toml");
        let config = config.to_str().unwrap();
        let source = "sim:reset,gpus=2";
        self.agent = Some(Running::start(["agent", "--config", config, "--source", source]));
    }

    fn end(&mut self, signal: Signal) {
        let mut agent = self.agent.take().unwrap();
        agent.signal(signal);
        agent.child.wait().unwrap();
    }

    fn ask(&self, arguments: &[&str]) -> Ended {
        let socket = self.path("agent.sock");
        let (command, rest) = arguments.split_first().unwrap();
        run([&[*command, "--socket", socket.to_str().unwrap()], rest].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ask(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Waits for an alert of `rule`, and gives it.
    fn alert(&self, rule: &str) -> Value {
        let mut found = Value::Null;
        until(rule, || {
            let ran = self.ask(&["alerts", "--json"]);
            let listed: Value = serde_json::from_str(&ran.out).unwrap_or_default();
            let alerts = listed["alerts"].as_array().cloned().unwrap_or_default();
            found = alerts.into_iter().find(|alert| alert["rule"] == rule).unwrap_or_default();
            !found.is_null()
        });
        found
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::yield_now();
    }
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|kept| kept.contains(text))
}

#[test]
fn an_operator_sees_what_is_wrong_and_says_what_is_known() {
    let mut operated = Operated::new();
    let nobody = operated.ask(&["status"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.err.contains("no agent runs at"), "{nobody:?}");
    operated.start();
    let alert = operated.alert("gpu-reset");
    until("both GPUs are there", || {
        operated.json(&["status"])["gpus"].as_array().is_some_and(|gpus| gpus.len() == 2)
    });
    let status = operated.json(&["status"]);
    assert_eq!((&status["status"], &status["problems"]), (&"ok".into(), &serde_json::json!([])));
    assert_eq!((&status["recording"], &status["released"]), (&true.into(), &false.into()));
    assert!(status["gpus"].as_array().unwrap().iter().all(|gpu| gpu["state"] == "found"));
    let shown = operated.ask(&["status"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("sink      none: alerts are written to the agent's log"));

    let id = alert["id"].as_str().unwrap();
    let listed = operated.ask(&["alerts"]).out;
    assert!(listed.contains(&id[..8]) && listed.contains("gpu-reset: GPU 0000:"), "{listed}");
    let acknowledged = |expected: Option<&str>| {
        let alerts = operated.json(&["alerts"]);
        let own = alerts["alerts"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap();
        assert_eq!(own["acknowledged_by"].as_str(), expected, "{own}");
    };
    acknowledged(None);
    assert_eq!(operated.ask(&["ack", id, "--by", "ann"]).code, Some(0));
    acknowledged(Some("ann"));
    assert_eq!(operated.ask(&["ack", id, "--undo"]).code, Some(0));
    acknowledged(None);
    let unknown = operated.ask(&["ack", "zz"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("there is no alert \"zz\""), "{unknown:?}");
    operated.end(Signal::TERM);
}

#[test]
fn a_silence_is_seen_before_it_is_made_and_outlives_a_crash() {
    let mut operated = Operated::new();
    operated.start();
    operated.alert("gpu-reset");
    let silences =
        |operated: &Operated| operated.json(&["alerts"])["silences"].as_array().unwrap().clone();
    let dry = operated.ask(&["silence", "rule=gpu-res*", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.out.contains("gpu-reset") && dry.err.contains("it would cover"), "{dry:?}");
    assert_eq!(silences(&operated), [Value::Null; 0]);
    for (arguments, code, said) in [
        (&["silence", "--comment", "x"][..], 2, "MATCHER"),
        (&["silence", "rule=gpu-reset"], 2, "--comment"),
        (&["silence", "gpu-reset", "--comment", "x"], 2, "write LABEL=VALUE"),
        (&["silence", "rule=*", "--comment", "x"], 1, "it covers everything"),
        (&["silence", "--end", "77"], 1, "there is no silence 77"),
    ] {
        let refused = operated.ask(arguments);
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.err.contains(said), "{refused:?}");
    }
    let made = operated.ask(&[
        "silence",
        "rule=gpu-res*",
        "--for",
        "1h",
        "--comment",
        "maintenance of rack 7",
        "--by",
        "ann",
    ]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let is_silenced = |operated: &Operated| operated.alert("gpu-reset")["silenced"] == true;
    until("it is silenced", || is_silenced(&operated));
    until("it is kept", || holds(&operated.path("state/alerts.json"), "maintenance of rack 7"));
    operated.end(Signal::KILL);
    operated.start();
    until("it is silenced after the crash", || is_silenced(&operated));
    let silences = silences(&operated);
    assert_eq!(silences.len(), 1);
    assert_eq!(
        (&silences[0]["by"], &silences[0]["comment"]),
        (&"ann".into(), &"maintenance of rack 7".into())
    );
    let listed = operated.ask(&["alerts"]).out;
    assert!(listed.contains("by ann: maintenance of rack 7"), "{listed}");
    let id = silences[0]["id"].to_string();
    assert_eq!(operated.ask(&["silence", "--end", &id]).code, Some(0));
    until("it is told again", || !is_silenced(&operated));
    operated.end(Signal::TERM);
}
