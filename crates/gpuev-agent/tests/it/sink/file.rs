//! JSON lines in a file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Settings, Sinks};

use super::fixture::{Told, change, context, fault, until};

fn settings(toml: &str) -> Settings {
    toml::from_str(toml).unwrap()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait(sinks: &Sinks) {
    until("everything written", || sinks.stats().iter().all(|stats| stats.waiting == 0));
}

#[test]
fn records_are_lines_and_files_are_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let toml = format!("[file.main]\npath = {path:?}\nmax_size = \"16K\"\nkeep = 2\n");
    let sinks = Sinks::start(&settings(&toml), context(folder.path(), &Told::default())).unwrap();
    for seq in 0..40 {
        sinks.signal(&fault(seq));
        wait(&sinks);
    }
    sinks.change(&change("a1", AlertState::Firing));
    wait(&sinks);
    assert_eq!(lines(&path).last().unwrap()["record"], "alert");
    for seq in 0..200 {
        sinks.signal(&fault(seq));
        wait(&sinks);
    }
    let names: Vec<_> = ["", ".1", ".2"]
        .map(|end| folder.path().join(format!("events.ndjson{end}")))
        .into_iter()
        .collect();
    assert!(!folder.path().join("events.ndjson.3").exists());
    let mut seqs = Vec::new();
    for name in names.iter().rev() {
        assert!(fs::metadata(name).unwrap().len() <= 16 << 10);
        seqs.extend(lines(name).iter().map(|line| line["seq"].as_u64().unwrap()));
    }
    // The newest are there without a hole.
    let first = seqs[0];
    assert_eq!(seqs, (first..200).collect::<Vec<_>>());
    let stats = sinks.stop(Duration::from_secs(60));
    assert_eq!((stats[0].delivered, stats[0].lost), (241, 0));
}

#[test]
fn a_file_that_logrotate_moved_is_begun_anew_and_half_a_line_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    fs::write(&path, "{\"whole\":1}\n{\"half\":").unwrap();
    let toml = format!("[file.main]\npath = {path:?}\n");
    let sinks = Sinks::start(&settings(&toml), context(folder.path(), &Told::default())).unwrap();
    sinks.signal(&fault(1));
    wait(&sinks);
    let found = lines(&path);
    assert_eq!((found.len(), &found[0]["whole"], &found[1]["seq"]), (2, &1.into(), &1.into()));
    fs::rename(&path, folder.path().join("moved")).unwrap();
    sinks.signal(&fault(2));
    wait(&sinks);
    assert_eq!(lines(&path)[0]["seq"], 2);
    assert_eq!(lines(&folder.path().join("moved")).len(), 2);
}

#[test]
fn a_folder_that_is_missing_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/events.ndjson");
    let toml = format!("[file.main]\npath = {path:?}\nqueue.retry_most = \"1ms\"\n");
    let told = Told::default();
    let sinks = Sinks::start(&settings(&toml), context(folder.path(), &told)).unwrap();
    sinks.signal(&fault(1));
    until("it is told", || !told.all().is_empty());
    let text = told.all()[0].to_string();
    assert!(
        text.contains("later/events.ndjson") && text.contains("its folder must exist"),
        "{text}"
    );
    fs::create_dir(folder.path().join("later")).unwrap();
    wait(&sinks);
    assert_eq!(lines(&path).len(), 1);
}

#[test]
fn a_reload_keeps_what_is_the_same_and_hands_over_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let toml = |second: &str| {
        let base = folder.path().display();
        format!(
            "[file.a]\npath = \"{base}/a\"\n[file.b]\npath = \"{base}/{second}\"\nqueue.retry_most = \"1ms\"\n"
        )
    };
    let told = Told::default();
    let mut sinks = Sinks::start(&settings(&toml("no/b")), context(folder.path(), &told)).unwrap();
    sinks.signal(&fault(1));
    until("one fails", || !told.all().is_empty());
    sinks.reload(&settings(&toml("b"))).unwrap();
    sinks.signal(&fault(2));
    wait(&sinks);
    for name in ["a", "b"] {
        let seqs: Vec<_> = lines(&file(name)).iter().map(|l| l["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2], "{name}");
    }
    // The one that is the same went on: its counts are those of both.
    assert_eq!(sinks.stats()[0].delivered, 2);
    sinks.reload(&Settings::default()).unwrap();
    assert_eq!(sinks.stats(), []);
}

#[test]
fn what_a_sink_gets_is_as_its_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().display();
    let toml = format!(
        "[file.all]\npath = \"{base}/all\"\n\
         [file.loud]\npath = \"{base}/loud\"\nsend = {{ records = [\"alert\"], every_change = false }}\n\
         [file.calm]\npath = \"{base}/calm\"\nsend.min_severity = \"critical\"\n"
    );
    let sinks = Sinks::start(&settings(&toml), context(folder.path(), &Told::default())).unwrap();
    let mut silenced = change("quiet", AlertState::Firing);
    silenced.notify = false;
    sinks.change(&silenced);
    sinks.change(&change("pending", AlertState::Pending));
    sinks.change(&change("loud", AlertState::Firing));
    sinks.signal(&fault(1));
    let throttled = super::fixture::event(2, b"2 1 5");
    sinks.signal(&super::fixture::signal_of(gpuev_agent::What::Event(throttled)));
    wait(&sinks);
    let count = |name: &str| lines(&folder.path().join(name)).len();
    assert_eq!((count("all"), count("loud"), count("calm")), (5, 1, 4));
    for wrong in ["send.min_severity = \"bad\"", "send.records = [\"evnt\"]", "size = 3"] {
        let text = format!("[file.all]\npath = \"x\"\n{wrong}\n");
        assert!(toml::from_str::<Settings>(&text).is_err(), "{wrong}");
    }
}
