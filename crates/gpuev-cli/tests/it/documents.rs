//! What the documents say is so: the schema's examples parse and its list is whole. `docs_commands` runs their commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{parse, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The lines of all blocks of code in this language.
fn code(text: &str, language: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(after) => inside = !inside && after == language,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    assert!(!lines.is_empty(), "no {language}");
    lines
}

#[test]
fn the_two_commands_are_found_from_the_root() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata = parse(std::str::from_utf8(&metadata.stdout).unwrap());
    let default = metadata["workspace_default_members"].as_array().unwrap();
    assert_eq!(default.len(), 1, "{default:?}");
    let package = |id: &Value| {
        let packages = metadata["packages"].as_array().unwrap();
        packages.iter().find(|package| package["id"] == *id).unwrap().clone()
    };
    let program = package(&default[0]);
    assert_eq!((&program["name"], &program["default_run"]), (&"gpuev-cli".into(), &"gpuev".into()));
    assert!(document(".cargo/config.toml").contains("xtask = \"run "));
    assert!(
        document(".ci/run").lines().any(|line| line.ends_with("cargo xtask test")),
        "CI runs the same"
    );
}

/// The words in backticks and the keys of the examples.
fn documented(schema: &str) -> BTreeSet<String> {
    let quoted = schema.split('`').skip(1).step_by(2).map(str::to_owned);
    let mut words: BTreeSet<String> = quoted.collect();
    for line in code(schema, "json") {
        keys(&parse(&line), &mut words);
    }
    words
}

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn every_key_that_is_written_is_in_the_schema() {
    let schema = document("docs/event-schema.md");
    let documented = documented(&schema);
    let mut written = BTreeSet::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let event = parse(line);
            assert!(documented.contains(event["type"].as_str().unwrap()), "{line}");
            keys(&event, &mut written);
        }
    }
    let commands: [&[&str]; 3] = [
        &["list", "--json", "--health", "--source", "sim"],
        &["list", "--json", "--health", "--source", "sim,partitions=8"],
        &["doctor", "--json", "--source", "sim"],
    ];
    for args in commands {
        run(args).good().json().iter().for_each(|record| {
            assert!(documented.contains(&format!("\"record\":{}", record["record"])), "{record}");
            keys(record, &mut written);
        });
    }
    let missing: Vec<_> = written.difference(&documented).collect();
    assert!(missing.is_empty(), "{missing:?} are not in docs/event-schema.md");
}

#[test]
fn examples_of_the_schema_are_what_is_written() {
    let examples: Vec<_> =
        code(&document("docs/event-schema.md"), "json").iter().map(|line| parse(line)).collect();
    for kind in ["event", "gap", "gpu", "finding"] {
        assert!(examples.iter().any(|example| example["record"] == kind), "no example of {kind}");
    }
    let example = |kind: &str| {
        let mut found = BTreeSet::new();
        keys(examples.iter().find(|example| example["record"] == kind).unwrap(), &mut found);
        found
    };
    let listed = run(["list", "--json", "--source", "sim"]).good();
    let mut written = BTreeSet::new();
    keys(&listed.json()[0], &mut written);
    assert_eq!(example("gpu"), written);
}

/// The fields that the schema's page lists for a record.
fn fields_listed(record: &str) -> BTreeSet<String> {
    let page = document("docs/event-schema.md");
    let head = format!("## `\"record\":\"{record}\"`\n");
    let section = page.split_once(&head).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let table = section.split_once("| field | type | meaning |\n|---|---|---|\n").unwrap().1;
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

/// The fields of records as they are written, but for those that all have.
fn written(records: &[String]) -> BTreeSet<String> {
    let fields = records.iter().flat_map(|record| match parse(record) {
        Value::Object(fields) => fields.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        other => panic!("{other}"),
    });
    fields.filter(|name| !["v", "record", "gpu"].contains(&name.as_str())).collect()
}

fn event(line: &str, boot_ns: u64) -> gpuev::Item {
    use gpuev::{Clock, Comm, Event, EventFacts, EventTime, GpuId, Item};
    let gpu = GpuId {
        index: 0,
        bdf: "0000:03:00.0".parse().unwrap(),
        unique_id: None,
        partition: 0,
        kfd_id: 1,
    };
    let unix_ns = boot_ns.cast_signed();
    let time = EventTime { boot_ns, clock: Clock::Receipt, received_boot_ns: boot_ns, unix_ns };
    let raw = line.as_bytes();
    let facts = EventFacts { gpu, seq: 0, time, doubtful: true, pid: None, comm: Comm::NONE, raw };
    Item::Event(Event::from_facts(facts))
}

/// A field that is written stands in its table, and the other way round.
#[test]
fn the_tables_of_the_schema_list_what_is_written() {
    use gpuev::span::{Limits, Spans};
    use gpuev::{Gap, GapCause, Item, json};
    let begin = event("3 1 HWS hang", 1);
    let gap = Gap {
        gpu: begin.gpu(),
        cause: GapCause::DriverFifoFull,
        count: None,
        from_boot_ns: 2,
        to_boot_ns: 3,
        unix_ns: 3,
    };
    let process = event("c 1234 python3", 5);
    let items = [begin, Item::Gap(gap), event("4 1 ", 4), process];
    let line = |item: &Item| {
        let mut line = String::new();
        json::write_item(&mut line, item);
        line
    };
    assert_eq!(written(&[line(&items[0]), line(&items[3])]), fields_listed("event"));
    assert_eq!(written(&[line(&items[1])]), fields_listed("gap"));
    let mut spans = Vec::new();
    let mut pairing = Spans::new(Limits::default());
    let mut keep = |span: gpuev::span::Span| {
        let mut line = String::new();
        json::write_span(&mut line, &span);
        spans.push(line);
    };
    items.iter().for_each(|item| pairing.push(item, &mut keep));
    pairing.finish(&mut keep);
    assert_eq!(written(&spans), fields_listed("span"), "{spans:?}");
    let page = document("docs/event-schema.md");
    for cause in GapCause::ALL {
        assert!(page.contains(&format!("`{}`", cause.name())), "{}", cause.name());
    }
}
