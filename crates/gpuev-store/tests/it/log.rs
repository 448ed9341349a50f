//! The log is whole at every moment.

use gpuev::{Item, json};
use gpuev_store::EventLog;
use serde_json::Value;

use crate::driver::{event, fault, gap};

fn parsed(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn it_says_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu_events.json");
    let mut log = EventLog::create(&path, []).unwrap();
    assert_eq!(parsed(&path)["total_events"], 0);
    for round in 1..=5_u64 {
        let items = [
            fault(round, round * 1_000, 7),
            event(1, 0, 50, b"1 1234:\xff\"\\\n"),
            gap(0, 1, 2, None),
        ];
        log.append(&items).unwrap();
        let object = parsed(&path);
        assert_eq!(object["total_events"], 2 * round);
        assert_eq!(object["total_gaps"], round);
        let events = object["events"].as_array().unwrap();
        assert_eq!(events.len() as u64, 3 * round);
        let mut expected = String::new();
        json::write_item(&mut expected, &items[0]);
        assert_eq!(events[events.len() - 3], serde_json::from_str::<Value>(&expected).unwrap());
    }
    drop(log);
    assert_eq!(parsed(&path)["total_events"], 10);
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing is left behind");
}

#[test]
fn by_its_extension_it_is_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu_events.ndjson");
    let mut log = EventLog::create(&path, []).unwrap();
    let items: Vec<Item> = (0..10).map(|seq| fault(seq, seq, 7)).collect();
    log.append(&items[..4]).unwrap();
    log.append(&items[4..]).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let seqs: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, Vec::from_iter((0..10).map(Value::from)));
}

#[test]
fn a_full_disk_is_an_error_and_leaves_it_whole() {
    let error = EventLog::create(std::path::Path::new("/dev/full"), []).unwrap_err();
    assert!(error.to_string().contains("/dev/full"), "{error}");
    let error = EventLog::create(std::path::Path::new("/nowhere/log.json"), []).unwrap_err();
    assert!(error.hint().is_some());
}

#[test]
fn a_log_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let filter = gpuev::Filter::new().types([gpuev::EventType::VmFault], false);
    for name in ["events.json", "events.ndjson"] {
        let path = folder.path().join(name);
        drop(EventLog::create_filtered(&path, [], &filter).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let head: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(head["record"], "log");
        assert_eq!(head["filter"]["types"][0], "VMFAULT");
        drop(EventLog::create(&path, []).unwrap());
        assert!(!std::fs::read_to_string(&path).unwrap().contains("filter"));
    }
}
