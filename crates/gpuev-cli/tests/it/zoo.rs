//! What `gpuev list` and `gpuev doctor` say of machines as people found them, held against the right
//! answers that stand beside each.
//!
//! What is known to be told wrong stands in `golden/zoo.txt`, a line for each: a right answer that
//! breaks fails the test, and so does a wrong one that was mended and still stands there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gpuev_sim::FoundMachine;
use serde_json::Value;

use crate::program::{parse, run};

/// What is right of a machine.
fn answers(machine: FoundMachine) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpuev-sim/machines");
    let text = fs::read_to_string(folder.join(format!("{}.json", machine.name()))).unwrap();
    parse(&text)["right"].clone()
}

/// Keys of `right` that stand under another name, or elsewhere, in a line of `list --json --health`.
fn told<'v>(line: &'v Value, key: &str) -> &'v Value {
    match key {
        "bdf" | "partition" | "unique_id" => &line["gpu"][key],
        "name" | "gfx_target" | "partitions" | "apu" | "render_minor" | "kfd_id" | "kfd_node" => {
            &line[key]
        }
        _ => &line["health"][key],
    }
}

/// All that a line is judged by.
const KEYS: [&str; 19] = [
    "bdf",
    "partition",
    "unique_id",
    "name",
    "gfx_target",
    "partitions",
    "render_minor",
    "kfd_id",
    "kfd_node",
    "power_microwatts",
    "power_cap_microwatts",
    "gfx_busy_percent",
    "memory_busy_percent",
    "vram_total",
    "vram_used",
    "gtt_total",
    "gtt_used",
    "apu",
    "suspended",
];

/// Whether this is right: what is unknown is not told, and a name may be one of several.
fn is_right(told: &Value, right: &Value) -> bool {
    match right {
        Value::Array(several) => several.contains(told),
        Value::String(text) if text == "unknown" => told.is_null(),
        right => told == right,
    }
}

/// Sensors by name, thousandths of a degree.
fn temperatures(line: &Value) -> Value {
    let sensors = line["health"]["temperatures"].as_array().cloned().unwrap_or_default();
    let pair =
        |one: &Value| (one["sensor"].as_str().unwrap().to_owned(), one["millidegrees"].clone());
    sensors.iter().map(pair).collect::<serde_json::Map<_, _>>().into()
}

fn judge_list(machine: FoundMachine, right: &Value, wrong: &mut BTreeSet<String>) {
    let name = machine.name();
    let source = format!("sim:idle,machine={name}");
    let ended = run(["list", "--json", "--health", "--source", &source]);
    let lines: Vec<Value> = ended.json();
    let gpus = right["gpus"].as_array().unwrap();
    let expected = if gpus.is_empty() { 3 } else { 0 };
    assert_eq!((ended.code, lines.len()), (Some(expected), gpus.len()), "{name}: {ended:?}");
    for line in &lines {
        // KFD's order is not that of the list.
        let right = gpus.iter().find(|right| right["kfd_id"] == line["kfd_id"]);
        let right = right.unwrap_or_else(|| panic!("{name}: {line}"));
        let gpu = format!("{}/{}", right["bdf"].as_str().unwrap(), right["partition"]);
        for key in KEYS {
            let (told, right) = (told(line, key), &right[key]);
            if !is_right(told, right) {
                wrong.insert(format!("{name} {gpu} {key}: {told}, not {right}"));
            }
        }
        let told = temperatures(line);
        if told != right["temperatures"] {
            let right = &right["temperatures"];
            wrong.insert(format!("{name} {gpu} temperatures: {told}, not {right}"));
        }
    }
}

fn judge_doctor(machine: FoundMachine, right: &Value, wrong: &mut BTreeSet<String>) {
    let name = machine.name();
    let source = format!("sim:idle,machine={name}");
    let ended = run(["doctor", "--source", &source]);
    let texts = |key: &str| right[key].as_array().cloned().unwrap_or_default();
    for text in texts("must_mention") {
        if !ended.out.contains(text.as_str().unwrap()) {
            wrong.insert(format!("{name} doctor: no word of {text}"));
        }
    }
    let has_gpus = right["gpus"].as_array().is_some_and(|gpus| !gpus.is_empty());
    let loads = has_gpus.then(|| Value::from("modprobe amdgpu"));
    for text in texts("must_not_say").into_iter().chain(loads) {
        if ended.out.contains(text.as_str().unwrap()) {
            wrong.insert(format!("{name} doctor: says {text}"));
        }
    }
    if has_gpus && ended.code != Some(0) {
        wrong.insert(format!("{name} doctor: exit code {:?}", ended.code));
    }
}

#[test]
fn machines_are_told_as_they_are_but_for_what_is_known_to_be_wrong() {
    let mut wrong = BTreeSet::new();
    for machine in FoundMachine::ALL {
        let right = answers(*machine);
        judge_list(*machine, &right, &mut wrong);
        judge_doctor(*machine, &right, &mut wrong);
    }
    let known = include_str!("../golden/zoo.txt");
    let known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    let broken: Vec<_> = wrong.difference(&known).collect();
    let mended: Vec<_> = known.difference(&wrong).collect();
    assert!(
        broken.is_empty() && mended.is_empty(),
        "wrong and not in golden/zoo.txt: {broken:#?}\nin golden/zoo.txt and right: {mended:#?}"
    );
}

/// In a container the device cgroup lets one of the GPUs through.
#[test]
fn a_container_that_sees_one_gpu_is_told_of_that_one_alone() {
    for (name, place) in [
        ("k8s-mi210x8-xgmi", 5),
        ("mi300a-spx-4", 2),
        ("k8s-mi308x-cpx", 6),
        ("mi300x-dpx", 3),
        ("mi300x-cpx", 13),
    ] {
        let machine = FoundMachine::by_name(name).unwrap();
        let source = format!("sim:idle,machine={name},visible={place}");
        let lines = run(["list", "--json", "--source", &source]).good().json();
        let right = &answers(machine)["gpus"][place];
        assert_eq!(lines.len(), 1, "{name}");
        for key in ["bdf", "partition", "unique_id", "gfx_target", "partitions", "kfd_id"] {
            assert!(is_right(told(&lines[0], key), &right[key]), "{name} {key}: {lines:?}");
        }
        let doctor = run(["doctor", "--source", &source]).good().out;
        assert!(doctor.contains("device cgroup"), "{doctor}");
    }
}

#[test]
fn stories_happen_on_any_machine() {
    for machine in FoundMachine::ALL.iter().filter(|machine| machine.gpu_count() > 0) {
        let source = format!("sim:mixed,machine={},rate=2000,count=200", machine.name());
        let lines = run(["watch", "--json", "--source", &source]).good().json();
        let events = lines.iter().filter(|line| line["record"] == "event").count();
        assert!(events > 0, "{machine:?}");
    }
}

#[test]
fn every_machine_is_listed_with_what_it_is() {
    let listed = run(["sim", "machines"]).good().out;
    assert_eq!(listed.lines().count(), 1 + FoundMachine::ALL.len());
    for machine in FoundMachine::ALL {
        assert!(listed.contains(machine.about()) && listed.contains(machine.name()));
    }
}
