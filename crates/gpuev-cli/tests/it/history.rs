//! Recording, and what becomes of it.

use std::path::Path;

use crate::program::{Running, parse, run};

pub(crate) fn record(path: &Path, source: &str) {
    let path = path.to_str().unwrap();
    let ended = run(["record", "--source", source, "-o", path]).good();
    assert!(ended.err.contains(path) && ended.err.contains("events"), "{ended:?}");
}

#[test]
fn what_was_recorded_is_watched_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=2,count=3000,rate=100000,seed=7");
    let file = path.to_str().unwrap();
    let replayed = run(["replay", file, "--json"]).good();
    let events = replayed.json().iter().filter(|record| record["record"] == "event").count();
    assert_eq!(events, 3_000);
    let watched = run(["watch", "--json", "--source", &format!("file:{file}")]).good();
    assert_eq!(watched.out, replayed.out);
    let few = run(["replay", file, "--json", "--count", "5", "--gpu", "1"]).good().json();
    assert_eq!(few.len(), 5);
    assert!(few.iter().all(|record| record["gpu"]["index"] == 1), "{few:?}");
    let none = run(["replay", file, "--json", "--to", "2000-01-01"]).good();
    assert_eq!(none.out, "");
    let paced = run(["replay", file, "--json", "--speed", "1000000"]).good();
    assert_eq!(paced.out, replayed.out);
}

#[test]
fn recording_ends_with_a_signal_and_with_its_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let file = path.to_str().unwrap();
    let running = Running::start(["record", "--source", "sim:idle", "-o", file]);
    while !path.exists() {
        std::thread::yield_now();
    }
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.rest().code, Some(0));
    let ended = run(["record", "--source", "sim:idle", "-o", file, "--", "true"]).good();
    assert!(ended.err.contains("events"), "{ended:?}");
}

#[test]
fn what_is_no_history_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let ended = run(["replay", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("none.db") && ended.err.contains("gpuev record"), "{ended:?}");
    let ended = run(["replay", path.to_str().unwrap(), "--from", "soon"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("10m ago"), "{ended:?}");
}

#[test]
fn a_log_is_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu_events.json");
    let log = path.to_str().unwrap();
    let source = "sim:mixed,count=500,rate=100000";
    let watched = run(["watch", "--json", "--source", source, "--log", log]).good();
    let logged = parse(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(logged["total_events"], 500);
    assert_eq!(*logged["events"].as_array().unwrap(), watched.json());
    assert_eq!(logged["gpu_count"], 1);
}

#[test]
fn what_was_recorded_comes_to_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=2,count=3000,rate=100000,seed=7");
    let (file, page) = (path.to_str().unwrap(), folder.path().join("report.html"));
    let text = run(["report", file]).good().out;
    assert!(text.contains("3,000 events") && text.contains("How long things took"), "{text}");
    let report = run(["report", file, "--last", "1h", "--json", "--top", "3"]).good().json();
    assert_eq!(report[0]["events"], 3_000);
    assert_eq!(report[0]["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(report[0]["fault_hot_spots"]["entries"].as_array().unwrap().len(), 3);
    let quiet = run(["report", file, "--html", page.to_str().unwrap()]).good();
    assert_eq!(quiet.out, "");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("3,000 events") && html.ends_with("</html>\n"));
    let nowhere = folder.path().join("none/report.html");
    let ended = run(["report", file, "--html", nowhere.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("none/report.html"), "{ended:?}");
}
