//! Recording, and what becomes of it.

use std::path::Path;
use std::process::Stdio;

use gpuev_sim::SimMachine;

use crate::machine::{end, possible, start_command_on, thermal};
use crate::program::{Running, command, ended, parse, run};

pub(crate) fn record(path: &Path, source: &str) {
    let path = path.to_str().unwrap();
    let ended = run(["record", "--source", source, "-o", path]).good();
    assert!(ended.err.contains(path) && ended.err.contains("events"), "{ended:?}");
}

#[test]
fn what_was_recorded_is_watched_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=2,count=3000,rate=5000,seed=7");
    let file = path.to_str().unwrap();
    let replayed = run(["replay", file, "--json"]).good();
    let events = replayed.json().iter().filter(|record| record["record"] == "event").count();
    assert_eq!(events, 3_000);
    let watched = run(["watch", "--json", "--source", &format!("file:{file}")]).good();
    assert_eq!(watched.out, replayed.out);
    let source = format!("file:{file}");
    let in_time = run(["watch", "--json", "--for", "1h", "--source", &source]).good();
    assert_eq!(in_time.out, replayed.out);
    let buffered = run(["watch", "--json", "--buffer", "1M", "--source", &source]);
    assert_eq!(buffered.code, Some(2));
    assert!(buffered.err.contains("--buffer: a history"), "{buffered:?}");
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
    let ended = run(["replay", path.to_str().unwrap(), "--from", "1m ago", "--to", "2m ago"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("--from is not before --to"), "{ended:?}");
}

#[test]
fn a_program_that_cannot_be_started_leaves_a_whole_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let file = path.to_str().unwrap();
    let ended = run(["record", "--source", "sim:idle", "-o", file, "--", "/nowhere/program"]);
    assert_eq!(ended.code, Some(127), "{ended:?}");
    assert!(ended.err.contains("start /nowhere/program"), "{ended:?}");
    let left = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(
        left.map(|file| file.unwrap().path()).collect::<Vec<_>>(),
        std::slice::from_ref(&path)
    );
    assert_eq!(run(["replay", file, "--json"]).good().out, "");
}

#[test]
fn a_log_is_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu_events.json");
    let log = path.to_str().unwrap();
    let source = "sim:mixed,count=500,rate=5000";
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
    record(&path, "sim:mixed,gpus=2,count=3000,rate=5000,seed=7");
    let (file, page) = (path.to_str().unwrap(), folder.path().join("report.html"));
    // A machine that is held up lets a FIFO overflow: what counts is what was recorded.
    let replay = run(["replay", file, "--json"]).good();
    let events = replay.json().iter().filter(|record| record["record"] == "event").count();
    let counted = format!("{},{:03} events", events / 1000, events % 1000);
    let text = run(["report", file]).good().out;
    assert!(text.contains(&counted) && text.contains("How long things took"), "{text}");
    let report = run(["report", file, "--last", "1h", "--json", "--top", "3"]).good().json();
    assert_eq!(report[0]["events"], events);
    assert_eq!(report[0]["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(report[0]["fault_hot_spots"]["entries"].as_array().unwrap().len(), 3);
    let quiet = run(["report", file, "--html", page.to_str().unwrap()]).good();
    assert_eq!(quiet.out, "");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains(&counted) && html.ends_with("</html>\n"));
    let nowhere = folder.path().join("none/report.html");
    let ended = run(["report", file, "--html", nowhere.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("none/report.html"), "{ended:?}");
}

/// Runs it as a user who has this home.
fn at_home(home: &Path, args: &[&str]) -> crate::program::Ended {
    let mut command = command(args);
    command.env("XDG_STATE_HOME", home).env("STATE_DIRECTORY", home.join("gpuev"));
    ended(&mut command)
}

#[test]
fn without_a_path_it_is_the_history_that_record_writes_to() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("gpuev/history.db");
    let none = at_home(home.path(), &["report", "--last", "1h"]);
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("gpuev/history.db") && none.err.contains("gpuev record"), "{none:?}");
    for times in 1..=2 {
        let source = "sim:mixed,count=300,rate=500";
        at_home(home.path(), &["record", "--source", source]).good();
        let report = at_home(home.path(), &["report", "--last", "1h", "--json"]).good().json();
        assert_eq!(report[0]["events"], 300 * times, "what is there is kept");
    }
    assert!(path.exists());
    let replayed = at_home(home.path(), &["replay", "--json"]).good().json();
    let exported = at_home(home.path(), &["export", "--no-spans"]).good().json();
    let events = |records: &[serde_json::Value]| {
        records.iter().filter(|record| record["record"] == "event").count()
    };
    assert_eq!((events(&replayed), events(&exported)), (600, 600));
}

#[test]
fn a_recorded_program_keeps_its_streams_and_its_exit_code() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.db");
    for (script, code) in [("cat; exit 7", 7), ("cat; kill -9 $$", 137), ("cat", 0)] {
        let mut command = command(["record", "--source", "sim:idle", "-o"]);
        command.arg(&file).args(["--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from here\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        assert_eq!(output.stdout, b"from here\n");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with("MiB)\n") && !said.contains('\r'), "no progress line: {said}");
    }
}

#[test]
fn what_happens_right_before_a_recorded_programs_end_is_recorded() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.db");
    let mut record = command(["record", "-o"]);
    record.arg(&file).args(["--", "cat"]).stdin(Stdio::piped());
    let mut recording = start_command_on(&sim, record);
    (0..100).for_each(|count| sim.emit(0, &thermal(count)));
    // `cat` ends with its input.
    drop(recording.child().stdin.take());
    let ended = end(recording).good();
    assert!(ended.err.starts_with("gpuev: 100 events, 0 gaps in "), "{ended:?}");
    let replayed = run(["replay", file.to_str().unwrap(), "--json"]).good().json();
    let counts: Vec<_> = replayed.iter().map(|event| event["data"]["count"].as_u64()).collect();
    assert_eq!(counts, (0..100).map(Some).collect::<Vec<_>>());
}

/// At any moment: what is there is whole, begins with the first event and has no hole.
#[test]
fn a_killed_recorder_leaves_a_history_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let path = folder.path().join(format!("{round}.db"));
        let file = path.to_str().unwrap();
        let source = format!("sim:mixed,rate=20000,seed={round}");
        let mut running = Running::start(["record", "--source", &source, "-o", file]);
        // The log of SQLite grows with what is recorded, after what it takes to begin: another moment in each round.
        let log = folder.path().join(format!("{round}.db-wal"));
        let length = || std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        while length() < 400_000 + 60_000 * round {
            assert_eq!(running.child.try_wait().unwrap(), None, "it has ended");
            std::thread::yield_now();
        }
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        let items = run(["replay", file, "--json"]).good().json();
        let events = items.iter().filter(|item| item["record"] == "event");
        assert!(events.zip(0..).all(|(event, seq)| event["seq"] == seq), "round {round}");
        run(["record", "--source", "sim:mixed,count=1", "-o", file]).good();
        let both = run(["replay", file, "--json"]).good().json();
        assert!(both.starts_with(&items) && both.len() > items.len());
    }
}

#[test]
fn a_signal_is_the_recorded_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.db");
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let file = file.to_str().unwrap();
    let mut running =
        Running::start(["record", "--source", "sim:idle", "-o", file, "--", "sh", "-c", script]);
    assert_eq!(running.line(), "ready\n");
    running.signal(rustix::process::Signal::TERM);
    let ended = running.rest();
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), "told\n"), "{ended:?}");
}

#[test]
fn a_history_is_a_source_for_list_and_doctor_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=2,count=3000,rate=5000,seed=7");
    let source = format!("file:{}", path.display());
    let listed = run(["list", "--source", &source]).good().out;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("0000:03:00.0"), "{listed}");
    let listed = run(["list", "--json", "--source", &source]).good().json();
    let of_machine = run(["list", "--json", "--source", "sim:mixed,gpus=2"]).good().json();
    for (recorded, live) in listed.iter().zip(&of_machine) {
        assert_eq!((&recorded["gpu"], &recorded["name"]), (&live["gpu"], &live["name"]));
    }
    assert_eq!(run(["list", "--health", "--source", &source]).code, Some(2));
    let doctor = run(["doctor", "--source", &source]).good().out;
    assert!(doctor.contains("and whole") && doctor.contains("3000 of 2 GPUs"), "{doctor}");
    let found = run(["doctor", "--json", "--source", &source]).good().json();
    assert!(found.iter().all(|finding| finding["state"] != "fail"));
}

#[test]
fn a_summary_is_told_each_so_often_and_a_report_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let source = "sim:mixed,gpus=2,count=3000,rate=3000,seed=7";
    record(&path, source);
    let file = path.to_str().unwrap();
    let replayed = run(["replay", file, "--summary", "100ms", "--quiet", "--json"]).good().json();
    let (report, summaries) = replayed.split_last().unwrap();
    assert_eq!((&report["record"], &report["events"]), (&"report".into(), &3_000.into()));
    assert!(summaries.len() > 2 && summaries.iter().all(|one| one["record"] == "summary"));
    let text = run(["replay", file, "--summary", "--quiet"]).good().out;
    assert!(text.contains("3,000 events") && text.contains("How long things took"), "{text}");
    let live = run(["watch", "--source", source, "--summary", "200ms", "--json"]).good().json();
    let of = |kind: &str| live.iter().filter(|one| one["record"] == kind).count();
    assert_eq!((of("event"), of("report")), (3_000, 1));
    assert!(of("summary") > 0);
    assert_eq!(live.last().unwrap()["events"], 3_000);
}

#[test]
fn a_killed_watch_leaves_a_whole_log() {
    let folder = tempfile::tempdir().unwrap();
    for events in [1, 50, 500] {
        let path = folder.path().join(format!("{events}.json"));
        let args = ["watch", "--json", "--source", "sim:mixed,rate=20000", "--log"];
        let mut running = Running::start(args.iter().copied().chain([path.to_str().unwrap()]));
        (0..events).for_each(|_| drop(running.line()));
        running.signal(rustix::process::Signal::KILL);
        assert_eq!(running.rest().code, None);
        let log = parse(&std::fs::read_to_string(&path).unwrap());
        let logged = log["events"].as_array().unwrap().len();
        assert!(logged >= events, "{logged} of {events}");
    }
}

/// Two recordings, a copy of one, and what is none, in one folder.
#[test]
fn a_folder_is_one_history_for_every_reader() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a.db", "b.db"].map(|name| folder.path().join(name));
    record(&a, "sim:mixed,gpus=2,count=300,rate=5000,seed=7");
    record(&b, "sim:fault-storm,count=200,rate=5000,seed=8");
    let count = |args: &[&str]| {
        let ended = run(args).good().json();
        ended.iter().filter(|record| record["record"] == "event").count()
    };
    let [file_a, file_b] = [&a, &b].map(|path| path.to_str().unwrap());
    let both = [file_a, file_b].map(|file| count(&["replay", file, "--json"]));
    let sum = both[0] + both[1];
    std::fs::copy(&a, folder.path().join("copy of a.db")).unwrap();
    let all = folder.path().to_str().unwrap();
    assert_eq!(count(&["replay", all, "--json"]), sum);
    assert_eq!(count(&["replay", file_b, file_a, all, "--json"]), sum);
    assert_eq!(count(&["watch", "--source", &format!("file:{all}"), "--json"]), sum);
    assert_eq!(count(&["export", all, "--format", "ndjson"]), sum);
    let report = run(["report", file_b, all, "--json"]).good().json();
    assert_eq!(report[0]["events"], sum);
    assert_eq!(report[0]["sources"].as_array().unwrap().len(), 2);
    let tested = |args: &[&str]| run([&["rules", "test"], args].concat()).good().err;
    let [of_all, of_both] = [tested(&[all]), tested(&[file_a, file_b])];
    assert_eq!(of_all, of_both);
    let chosen = tested(&[all, "--type", "VMFAULT", "--gpu", "1", "--to", "2000-01-01"]);
    assert!(chosen.contains("on 0 events and gaps"), "{chosen}");
    let listed = run(["list", "--json", "--source", &format!("file:{all}")]).good().json();
    assert_eq!(listed.len(), 2, "the simulated machines are one");
    run(["doctor", "--source", &format!("file:{all}")]).good();
    // What cannot be read is told, and no report is complete without it.
    std::fs::write(folder.path().join("broken.db"), b"nothing of the kind").unwrap();
    let report = run(["report", all, "--json"]).good();
    assert!(report.err.contains("left out: ") && report.err.contains("broken.db"), "{report:?}");
    assert_eq!(report.json()[0]["events"], sum);
    assert_eq!(report.json()[0]["complete"], false);
    let doctor = run(["doctor", "--source", &format!("file:{all}")]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
}
