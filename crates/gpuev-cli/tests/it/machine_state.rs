//! `gpuev list` and `gpuev doctor`: what is there, how it does, and what is wrong.

use std::collections::BTreeMap;

use gpuev_sim::{RasBlock, SimMachine, SimProcess};
use serde_json::Value;

use crate::machine::{end_on, possible, run_on};
use crate::program::{Ended, PROGRAM, run};

/// What doctor says, by subject.
fn findings(ended: &Ended) -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in ended.json() {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        assert_eq!((&line["v"], &line["record"]), (&1.into(), &"finding".into()));
        found.entry(text("what")).or_default().push((text("state"), text("text")));
    }
    found
}

#[test]
fn a_machine_in_order_has_nothing_to_mend() {
    let ended = run(["doctor", "--json", "--source", "sim:idle,gpus=2"]).good();
    let found = findings(&ended);
    assert_eq!(found["GPU"].len(), 2);
    assert_eq!(found["interface"][0], ("ok".into(), "KFD 1.23".into()));
    assert!(found["event file"][1].1.contains("FIFO of 8192 bytes"), "{found:?}");
    assert!(found.values().flatten().all(|(state, _)| state == "ok"), "{found:?}");
    let text = run(["doctor", "--source", "sim:idle,gpus=2"]).good().out;
    assert_eq!(text.lines().count(), ended.out.lines().count());
}

#[test]
fn an_old_driver_and_its_small_fifo_are_told() {
    let ended = run(["doctor", "--json", "--source", "sim,kernel=oldest"]).good();
    let found = findings(&ended);
    assert!(found["events"][0].1.contains("Linux 6.0"), "{found:?}");
    assert!(found["event file"][0].1.contains("FIFO of 1024 bytes"), "{found:?}");
}

#[test]
fn what_is_off_or_denied_or_broken_is_told_with_what_to_do() {
    let sim = SimMachine::builder().gpus(3).denied(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let gpus = sim.gpus();
    let device = std::fs::canonicalize(sim.root().join("sys/bus/pci/devices").join(&gpus[1].bdf));
    let device = device.unwrap();
    let device = device.strip_prefix(std::fs::canonicalize(sim.root()).unwrap()).unwrap();
    let off = format!("{}: thermal throttling logging disabled\n", gpus[1].bdf);
    sim.write_file(device.join("thermal_throttling_logging"), off).unwrap();
    sim.write_file("sys/class/kfd/kfd/topology/nodes/3/gpu_id", "nonsense\n").unwrap();
    let ended = run_on(&sim, ["doctor", "--json"]).good();
    let found = findings(&ended);
    let notes: Vec<_> = found["GPU"].iter().filter(|(state, _)| state == "note").collect();
    assert!(notes.iter().any(|(_, text)| text.contains("device cgroup")), "{notes:?}");
    assert!(notes.iter().any(|(_, text)| text.contains("\"nonsense\"")), "{notes:?}");
    let throttling = &found["throttling"][0].1;
    assert!(
        throttling.contains(&gpus[1].bdf) && throttling.contains("echo 60 > /sys/"),
        "{found:?}"
    );
}

#[test]
fn who_holds_the_device_is_named_and_doctor_is_not() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut shell = crate::program::untouched("sh");
    let script = "exec 3<>/dev/kfd; echo $$ >&2; \"$0\" doctor --json 3>&-; exit $?";
    shell.args(["-c", script, PROGRAM]);
    let ended = end_on(&sim, shell).good();
    let found = findings(&ended);
    let held = format!("by pid {} (sh): /dev/kfd open 1 times", ended.err.trim());
    let holders: Vec<_> = found["in use"].iter().filter(|f| f.1.contains("by pid")).collect();
    assert!(
        holders.iter().any(|(state, text)| state == "note" && text.starts_with(&held)),
        "{found:?}"
    );
    assert!(!holders.iter().any(|(_, text)| text.contains("(gpuev)")), "{holders:?}");
}

#[test]
fn health_is_told_with_units() {
    let ended = run(["list", "--health", "--source", "sim,gpus=2"]).good();
    let lines: Vec<_> = ended.out.lines().collect();
    assert!(lines[0].contains("JUNCTION") && lines.len() == 3, "{}", ended.out);
    for unit in ["°C", " W", " %", "GiB", "none"] {
        assert!(lines[1].contains(unit), "{unit}: {}", ended.out);
    }
    let json = run(["list", "--health", "--json", "--source", "sim"]).good().json();
    let health = &json[0]["health"];
    assert_eq!(health["temperatures"][1]["sensor"], "junction");
    assert!(health["power_microwatts"].as_u64() > Some(1_000_000), "{health}");
    assert!(health["vram_total"].as_u64() > Some(1 << 30), "{health}");
}

#[test]
fn errors_of_memory_are_listed_and_what_is_not_told_is_a_dash() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    sim.add_ras_error(0, RasBlock::Umc, true).unwrap();
    sim.add_process(&SimProcess::new(4242, "python3").gpu(1).vram(8 << 30)).unwrap();
    let ended = run_on(&sim, ["list", "--health"]).good();
    assert!(ended.out.lines().nth(1).unwrap().contains("umc "), "{}", ended.out);
    let absent = sim.root().join("sys/bus/pci/devices").join(&sim.gpus()[0].bdf).join("hwmon");
    let hwmon = std::fs::canonicalize(absent).unwrap();
    sim.remove_file(hwmon.strip_prefix(std::fs::canonicalize(sim.root()).unwrap()).unwrap())
        .unwrap();
    let json = run_on(&sim, ["list", "--health", "--json"]).good().json();
    assert_eq!(json[0]["health"]["power_cap_microwatts"], Value::Null);
}
