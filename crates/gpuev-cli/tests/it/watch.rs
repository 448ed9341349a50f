//! `gpuev watch` in everyday use: filters, ends, pipes.

use std::collections::BTreeSet;
use std::fs::File;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Running, command, ended, parse, run, wait_for_the_storys_end};

/// 400 events of everything on two GPUs, the same each time.
const STORY: &str = "sim:mixed,gpus=2,seed=7,rate=4000,count=400";
/// Goes on until it is ended.
const ENDLESS: &str = "sim:fault-storm,rate=2000";

fn watched(args: &[&str]) -> Vec<Value> {
    let ended = run(["watch", "--json", "--source", STORY].iter().chain(args)).good();
    ended.json().into_iter().filter(|item| item["record"] == "event").collect()
}

/// The different values of a key.
fn values(events: &[Value], key: &str) -> BTreeSet<String> {
    events.iter().map(|event| event[key].to_string()).collect()
}

#[test]
fn filters_let_through_what_they_say() {
    let all = watched(&[]);
    assert!(all.len() > 100 && values(&all, "type").len() > 5, "{} events", all.len());

    let faults = watched(&["--type", "page_fault_start,PAGE-FAULT-END"]);
    let types = values(&faults, "type");
    assert_eq!(
        types.into_iter().collect::<Vec<_>>(),
        ["\"PAGE_FAULT_END\"", "\"PAGE_FAULT_START\""]
    );

    let severe = watched(&["--severity", "warning"]);
    assert!(!values(&severe, "severity").contains("\"info\""));
    assert!(!severe.is_empty() && severe.len() < all.len());

    let second = watched(&["--gpu", "1"]);
    assert!(!second.is_empty() && second.iter().all(|event| event["gpu"]["index"] == 1));
    let by_address = watched(&["--gpu", second[0]["gpu"]["bdf"].as_str().unwrap()]);
    assert_eq!(by_address.len(), second.len());

    let pid = all.iter().find_map(|event| event["pid"].as_u64()).unwrap();
    let of_pid = watched(&["--pid", &pid.to_string()]);
    assert!(!of_pid.is_empty() && of_pid.iter().all(|event| event["pid"] == pid));
}

#[test]
fn count_ends_it_after_so_many_events() {
    let ended = run(["watch", "--json", "--source", ENDLESS, "--count", "3"]).good();
    assert_eq!(ended.json().iter().filter(|item| item["record"] == "event").count(), 3);
    assert!(ended.err.contains("gpuev: 3 events, "), "{}", ended.err);
}

#[test]
fn a_count_of_nothing_makes_no_sense() {
    let ended = run(["watch", "--source", "sim", "--count", "0"]);
    assert_eq!(ended.code, Some(2));
    let says = |what: &str| assert!(ended.err.contains(what), "{}", ended.err);
    says("--count");
    says("1 or more");
}

#[test]
fn time_ends_it() {
    let ended = run(["watch", "--source", "sim:idle", "--for", "20ms"]).good();
    assert_eq!(ended.out, "");
    assert!(ended.err.contains("0 events, 0 gaps"), "{}", ended.err);
}

#[test]
fn signals_end_it_well() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut running = Running::start(["watch", "--source", ENDLESS]);
        running.line();
        running.signal(signal);
        let ended = running.rest().good();
        assert!(ended.out.is_empty() || ended.out.ends_with('\n'), "no line is cut");
        assert!(ended.err.contains(" events, "), "{}", ended.err);
    }
}

#[test]
fn a_closed_pipe_ends_it_well() {
    let mut running = Running::start(["watch", "--json", "--source", ENDLESS]);
    parse(&running.line());
    let ended = running.hang_up().good();
    assert_eq!(ended.err.lines().count(), 1, "only the summary: {}", ended.err);
}

#[test]
fn each_line_is_there_as_soon_as_it_happens() {
    // A second is long: a line that waited for company would not come before the signal.
    let mut running = Running::start(["watch", "--json", "--source", "sim:thermal,rate=1"]);
    assert_eq!(parse(&running.line())["record"], "event");
    running.signal(Signal::TERM);
    running.rest().good();
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut watch = command(["watch", "--source", ENDLESS]);
    let ended = ended(watch.stdout(full));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("cannot write the output"), "{}", ended.err);
}

#[test]
fn who_reads_slowly_does_not_hold_up_the_driver() {
    let source = "sim:fault-storm,rate=20000,count=5000";
    let mut running = Running::start(["watch", "--json", "--source", source]);
    let first = running.line();
    // The pipe is full long before the story ends; it ends all the same.
    wait_for_the_storys_end(running.child.id());
    let ended = running.rest().good();
    let items: Vec<Value> =
        [first.as_str()].into_iter().chain(ended.out.lines()).map(parse).collect();
    let (gaps, events): (Vec<_>, Vec<_>) = items.iter().partition(|item| item["record"] == "gap");
    let seqs = events.iter().map(|event| event["seq"].as_u64().unwrap());
    assert!(seqs.eq(0..events.len() as u64), "nothing is missing between two events");
    assert!(events.len() == 5000 || !gaps.is_empty(), "{} events and no gap", events.len());
}

#[test]
fn who_reads_too_slowly_is_told_how_much_is_missing() {
    // A thousand a second: the FIFO lasts for a sixth of a second, whoever reads the output.
    let source = "sim:fault-storm,rate=1000,count=1000";
    let mut running = Running::start(["watch", "--json", "--buffer", "16K", "--source", source]);
    let first = running.line();
    wait_for_the_storys_end(running.child.id());
    let ended = running.rest().good();
    let lines = [first.as_str()].into_iter().chain(ended.out.lines());
    let (gaps, events): (Vec<_>, Vec<_>) =
        lines.map(parse).partition(|item| item["record"] == "gap");
    assert!(
        !gaps.is_empty() && gaps.iter().all(|gap| gap["cause"] == "subscriber_slow"),
        "{gaps:?}"
    );
    let lost: u64 = gaps.iter().map(|gap| gap["count"].as_u64().unwrap()).sum();
    assert_eq!(events.len() as u64 + lost, 1000);
    assert!(ended.err.contains(&format!("{lost} events lost")), "{}", ended.err);
}

#[test]
fn lines_for_people_hold_what_they_need() {
    let ended = run(["watch", "--source", STORY, "--gpu", "0", "--count", "40"]).good();
    assert!(!ended.out.contains('\x1b'), "no colours in a pipe");
    for line in ended.out.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        // Local time, with its distance to UTC.
        let (time, zone) = words[0].split_at("2026-11-22T11:45:01.123456".len());
        assert!(time.as_bytes()[10] == b'T' && (zone == "Z" || zone.len() == 6), "{line}");
        assert_eq!(words[1..4], ["GPU", "0", "0000:03:00.0"], "{line}");
    }
}

#[test]
fn many_gpus_and_many_partitions_are_watched() {
    for (machine, gpus) in [("gpus=64", 64), ("partitions=63", 63)] {
        let source = format!("sim:fault-storm,{machine},rate=4000,count=2000,seed=1");
        let ended = run(["watch", "--json", "--source", &source]).good();
        let seen: BTreeSet<_> =
            ended.json().iter().map(|item| item["gpu"]["index"].as_u64().unwrap()).collect();
        assert_eq!(seen.len(), gpus, "{machine}: {}", ended.err);
    }
}
