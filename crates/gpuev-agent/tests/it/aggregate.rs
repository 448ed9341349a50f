//! Floods are told as aggregates, and nothing of them is lost.

use gpuev::time::Anchor;
use gpuev::{Clock, Comm, Event, EventFacts, EventTime, EventType, GpuId, Item, Machine, decode};
use gpuev_agent::config::{EventMode, Events};
use gpuev_agent::signal::Aggregate;
use gpuev_agent::{Pipeline, Signal, What};

use crate::machine::json;

const SECOND: u64 = 1_000_000_000;

fn gpu() -> GpuId {
    let bdf = "0000:03:00.0".parse().unwrap();
    GpuId { index: 0, bdf, unique_id: None, partition: 0, kfd_id: 0x1b11 }
}

/// A line as it is read a microsecond after the driver wrote it.
fn event(seq: u64, boot_ns: u64, line: &str) -> Item {
    let stamped = decode(line.as_bytes()).stamp().is_some();
    let time = EventTime {
        boot_ns,
        clock: if stamped { Clock::Driver } else { Clock::Receipt },
        received_boot_ns: boot_ns + 1000,
        unix_ns: i64::try_from(boot_ns).unwrap(),
    };
    let (raw, comm) = (line.as_bytes(), Comm::NONE);
    let facts = EventFacts { gpu: gpu(), seq, time, doubtful: false, pid: None, comm, raw };
    Item::Event(Event::from_facts(facts))
}

/// A page fault of `pid` with its end `took_ns` later.
fn fault(boot_ns: u64, pid: u32, page: u64, took_ns: u64) -> [(u64, String); 2] {
    let end = boot_ns + took_ns;
    [
        (boot_ns, format!("7 {boot_ns} -{pid} @{page:x}(1b11) W")),
        (end, format!("8 {end} -{pid} @{page:x}(1b11) M")),
    ]
}

fn run(modes: &Events, lines: impl IntoIterator<Item = (u64, String)>) -> Vec<Signal> {
    let nowhere = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::replay(&Machine::at(nowhere.path()), modes);
    let mut signals = Vec::new();
    for (seq, (boot_ns, line)) in (0..).zip(lines) {
        pipeline.push(&event(seq, boot_ns, &line), &mut |signal| signals.push(signal));
    }
    pipeline.finish(&mut |signal| signals.push(signal));
    signals
}

fn aggregates<'a>(signals: &'a [Signal]) -> Vec<&'a Aggregate> {
    let aggregate = |signal: &'a Signal| match &signal.what {
        What::Aggregate(aggregate) => Some(aggregate),
        _ => None,
    };
    signals.iter().filter_map(aggregate).collect()
}

fn total(signals: &[Signal]) -> u64 {
    signals.iter().map(Signal::weight).sum()
}

fn of_type<'a>(all: &[&'a Aggregate], event_type: EventType) -> Vec<&'a Aggregate> {
    all.iter().copied().filter(|aggregate| aggregate.event_type == event_type).collect()
}

#[test]
fn a_flood_is_told_up_to_a_number_singly_and_the_rest_as_one() {
    let faults = (0..1000).flat_map(|n| fault(SECOND + n * 10_000, 7, n, 1000 * (1 + n % 100)));
    let mut lines: Vec<_> = faults.collect();
    lines.sort();
    let signals = run(&Events::default(), lines);
    assert_eq!(total(&signals), 2000, "every event is told, one way or the other");
    let singly = signals.iter().filter(|signal| signal.kind() == "event").count();
    assert_eq!(singly, 200);
    let aggregates = aggregates(&signals);
    let [starts] = of_type(&aggregates, EventType::PageFaultStart)[..] else { panic!() };
    assert_eq!((starts.count, starts.pid, starts.latency), (900, Some(7), None));
    assert_eq!(starts.examples.len(), 3);
    let [ends] = of_type(&aggregates, EventType::PageFaultEnd)[..] else { panic!() };
    let latency = ends.latency.unwrap();
    let spans = signals.iter().filter(|signal| signal.kind() == "span").count();
    assert_eq!(latency.count + u64::try_from(spans).unwrap(), 1000);
    assert_eq!(latency.max_ns, 100_000);
    assert!((46_000..=56_000).contains(&latency.p50_ns), "{latency:?}");
    assert!((93_000..=100_000).contains(&latency.p99_ns), "{latency:?}");
}

#[test]
fn each_second_and_each_process_is_counted_apart() {
    let modes = Events::default()
        .with(EventType::PageFaultStart, EventMode::Aggregate { above: 0 })
        .with(EventType::PageFaultEnd, EventMode::Off);
    let start = |second: u64, pid: u32, n: u64| {
        let boot_ns = second * SECOND + n;
        (boot_ns, format!("7 {boot_ns} -{pid} @{n:x}(1b11) W"))
    };
    let lines = (1..4)
        .flat_map(|second| (0..10).map(move |n| start(second, if n < 7 { 70 } else { 80 }, n)));
    let signals = run(&modes, lines);
    assert!(signals.iter().all(|signal| signal.kind() == "aggregate"), "no span without its end");
    let mut counts: Vec<_> = aggregates(&signals)
        .iter()
        .map(|a| (a.from_boot_ns / SECOND, a.pid.unwrap(), a.count))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [(1, 70, 7), (1, 80, 3), (2, 70, 7), (2, 80, 3), (3, 70, 7), (3, 80, 3)]);
    assert!(signals.iter().all(|s| s.boot_ns / SECOND == s.unix_ns.cast_unsigned() / SECOND));
}

#[test]
fn a_failure_among_ten_thousand_successes_is_seen() {
    let migration = |n: u64| {
        let (start, end) = (SECOND + n * 100, SECOND + n * 100 + 50);
        let error = if n == 9_000 { -12 } else { 0 };
        [
            (start, format!("5 {start} -7 @{n:x}(10) 0->1b11 0:1b11 1")),
            (end, format!("6 {end} -7 @{n:x}(10) 0->1b11 1 {error}")),
        ]
    };
    let signals = run(&Events::default(), (0..10_000).flat_map(migration));
    assert_eq!(total(&signals), 20_000);
    let failed: Vec<_> = signals
        .iter()
        .map(json)
        .filter(|told| told["data"]["error"] == -12 || told["outcome"] == "failed")
        .collect();
    assert_eq!(failed.len(), 2, "its event and its span: {failed:?}");
    let aggregates = aggregates(&signals);
    let [starts] = of_type(&aggregates, EventType::MigrateStart)[..] else { panic!() };
    assert_eq!(starts.bytes, starts.count * 16 * 4096);
}

#[test]
fn starts_without_ends_do_not_become_a_flood_of_their_own() {
    let start = |n: u64| {
        let boot_ns = SECOND + n * 1000;
        (boot_ns, format!("7 {boot_ns} -7 @{n:x}(1b11) W"))
    };
    let late = (60 * SECOND, "1 7:train".to_owned());
    let signals = run(&Events::default(), (0..5000).map(start).chain([late]));
    let spans = signals.iter().filter(|signal| signal.kind() == "span").count();
    let unpaired: u64 = aggregates(&signals).iter().map(|aggregate| aggregate.unpaired).sum();
    assert_eq!((spans, unpaired), (100, 4900));
}

#[test]
fn what_is_off_is_not_told_and_what_is_full_is_told_singly() {
    let modes = Events::default()
        .with(EventType::UnmapFromGpu, EventMode::Off)
        .with(EventType::PageFaultStart, EventMode::Full);
    let lines = (0..3000_u64).map(|n| {
        let boot_ns = SECOND + n;
        match n % 2 {
            0 => (boot_ns, format!("b {boot_ns} -7 @{n:x}(10) 1b11 0")),
            _ => (boot_ns, format!("7 {boot_ns} -7 @{n:x}(1b11) W")),
        }
    });
    let signals = run(&modes, lines);
    let events: Vec<_> = signals.iter().filter(|signal| signal.kind() == "event").collect();
    assert_eq!(events.len(), 1500);
    assert!(events.iter().all(|signal| signal.type_name() == Some("PAGE_FAULT_START")));
}

#[test]
fn an_aggregate_is_told_when_its_second_is_over_though_nothing_follows() {
    let modes =
        Events::default().with(EventType::PageFaultStart, EventMode::Aggregate { above: 0 });
    let nowhere = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::replay(&Machine::at(nowhere.path()), &modes);
    let mut signals = Vec::new();
    let item = event(0, SECOND, &format!("7 {SECOND} -7 @1(1b11) W"));
    pipeline.push(&item, &mut |signal| signals.push(signal));
    let at = |boot_ns| Anchor { boot_ns, unix_ns: 0 };
    pipeline.tick(at(SECOND + SECOND / 2), &mut |signal| signals.push(signal));
    assert!(signals.is_empty());
    pipeline.tick(at(2 * SECOND + SECOND / 2), &mut |signal| signals.push(signal));
    let told = json(&signals[0]);
    assert_eq!((&told["record"], &told["count"]), (&"aggregate".into(), &1.into()));
    assert_eq!(told["examples"][0]["record"], "event");
}
