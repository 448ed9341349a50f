//! Starts and ends, paired.

mod model;

use gpuev::span::{Direction, Limits, Outcome, Span, SpanData, SpanKind, Spans};
use gpuev::{
    Clock, Comm, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item, UniqueId, json,
};

const MS: u64 = 1_000_000;

pub(crate) fn gpu(index: u32) -> GpuId {
    GpuId {
        index,
        bdf: format!("0000:{:02x}:00.0", 3 + index).parse().unwrap(),
        unique_id: Some(UniqueId(0x9246_f3a1_b0c7_0000 + u64::from(index))),
        partition: 0,
        kfd_id: 0x1b11 + index,
    }
}

/// What the driver's `line` is as an event that was read at `received_ns`.
pub(crate) fn event(gpu: GpuId, line: &str, received_ns: u64) -> Item {
    let raw = line.as_bytes();
    let stamp = line.split(' ').nth(1).filter(|_| line.contains(" -"));
    let stamp = stamp.and_then(|stamp| stamp.parse().ok());
    let boot_ns: u64 = stamp.unwrap_or(received_ns);
    let time = EventTime {
        boot_ns,
        clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
        received_boot_ns: received_ns,
        unix_ns: i64::try_from(boot_ns).unwrap(),
    };
    // A process of one thread.
    let (pid, comm) = match gpuev::decode(raw).task() {
        Some(task) => (Some(task.pid).filter(|pid| *pid != 0), Comm::new(task.name)),
        None if line.contains(" -") => (None, Comm::new(b"python3")),
        None => (None, Comm::NONE),
    };
    Item::Event(Event::from_facts(EventFacts {
        gpu,
        seq: 0,
        time,
        doubtful: false,
        pid,
        comm,
        raw,
    }))
}

pub(crate) fn gap(gpu: GpuId, cause: GapCause, from_boot_ns: u64, to_boot_ns: u64) -> Item {
    Item::Gap(Gap { gpu, cause, count: None, from_boot_ns, to_boot_ns, unix_ns: 0 })
}

fn pair(items: &[Item]) -> Vec<Span> {
    pair_within(Limits::default(), items)
}

/// The spans of `items`, those that are open at the end last.
fn pair_within(limits: Limits, items: &[Item]) -> Vec<Span> {
    let mut spans = Spans::new(limits);
    let mut done = Vec::new();
    for item in items {
        spans.push(item, |span| done.push(span));
    }
    spans.finish(|span| done.push(span));
    done
}

/// Lines of GPU 0, each read when it was stamped, or 1 ms after the line before.
fn lines(lines: &[&str]) -> Vec<Item> {
    let mut now = 0;
    let read = lines.iter().map(|line| {
        let stamp = line.split(' ').nth(1).filter(|_| line.contains(" -"));
        now = stamp.map_or(now + MS, |stamp| stamp.parse::<u64>().unwrap().max(now));
        event(gpu(0), line, now)
    });
    read.collect()
}

fn summary(spans: &[Span]) -> Vec<(SpanKind, Outcome, Option<u64>)> {
    spans.iter().map(|span| (span.kind(), span.outcome, span.duration_ns())).collect()
}

#[test]
fn each_kind_pairs() {
    let spans = pair(&lines(&[
        "c 1234 my job",
        "7 2000000 -4660 @7f0000000(1b11) W",
        "5 2100000 -4660 @7f0000000(200) 0->1b11 ffffffff:ffffffff 1",
        "6 2600000 -4660 @7f0000000(200) 0->1b11 1 0",
        "8 3000000 -4660 @7f0000000(1b11) M",
        "7 3000000 -4660 @7f0000001(1b11) R",
        "8 3000500 -4660 @7f0000001(1b11) U",
        "9 4000000 -4660 1b11 2",
        "a 5000000 -4660 1b11 R",
        "a 6000000 -4660 1b11 0",
        "3 1 job hang on ring:gfx_0.0.0",
        "4 1 ",
        "d 1234 my job",
    ]));
    let expected = [
        (SpanKind::Migration, Outcome::Completed, Some(500_000)),
        (SpanKind::PageFault, Outcome::Migrated, Some(1_000_000)),
        (SpanKind::PageFault, Outcome::Mapped, Some(500)),
        (SpanKind::QueueEviction, Outcome::Completed, Some(2_000_000)),
        (SpanKind::Reset, Outcome::Completed, Some(MS)),
        (SpanKind::Process, Outcome::Completed, Some(8 * MS)),
    ];
    assert_eq!(summary(&spans), expected);
    assert_eq!(spans[0].bytes_per_second(), Some(0x20_0000 * 2_000));
    assert!(matches!(
        spans[0].data,
        SpanData::Migration { migration, error: Some(0) } if Direction::of(&migration) == Direction::ToGpu
    ));
    assert!(matches!(spans[3].data, SpanData::QueueEviction { reschedules: 1, .. }));
    let SpanData::Reset { sequence: 1, cause } = spans[4].data else { panic!("{:?}", spans[4]) };
    assert_eq!(cause.bytes(), Some(&b"job hang on ring:gfx_0.0.0"[..]));
    assert_eq!(spans[5].process.bytes(), Some(&b"my job"[..]));
    let clocks: Vec<Clock> = spans.iter().map(Span::clock).collect();
    use Clock::{Driver, Receipt};
    assert_eq!(clocks, [Driver, Driver, Driver, Driver, Receipt, Receipt]);
}

#[test]
fn the_serialized_form_is_as_documented() {
    let spans = pair(&lines(&[
        "7 1000 -4660 @7fff00000(1b11) W",
        "8 49211 -4660 @7fff00000(1b11) M",
        "6 60000 -4660 @7f0000000(200) 0->1b11 1 -12",
        "3 2 HWS hang",
    ]));
    let written: Vec<String> = spans
        .iter()
        .map(|span| {
            let mut out = String::new();
            json::write_span(&mut out, span);
            out
        })
        .collect();
    let gpu =
        r#""gpu":{"index":0,"bdf":"0000:03:00.0","unique_id":"9246f3a1b0c70000","partition":0}"#;
    assert_eq!(
        written[0],
        format!(
            concat!(
                r#"{{"v":1,"record":"span","type":"PAGE_FAULT",{},"pid":4660,"process":"python3","#,
                r#""time":"1970-01-01T00:00:00.000001000Z","start_boot_ns":1000,"end_boot_ns":49211,"#,
                r#""duration_ns":48211,"clock":"driver","outcome":"migrated","#,
                r#""data":{{"address":140733193388032,"access":"write","node":6929}}}}"#
            ),
            gpu
        )
    );
    assert!(
        written[1].ends_with(concat!(
            r#""start_boot_ns":null,"end_boot_ns":60000,"duration_ns":null,"clock":"driver","#,
            r#""outcome":"start_missing","data":{"address":139637976727552,"#,
            r#""size":2097152,"from":0,"to":6929,"trigger":"pagefault_gpu","direction":"to_gpu","#,
            r#""error":-12,"bytes_per_second":null}}"#
        )),
        "{}",
        written[1]
    );
    assert!(
        written[2].ends_with(concat!(
            r#""duration_ns":null,"clock":"receipt","outcome":"open","#,
            r#""data":{"sequence":2,"cause":"HWS hang"}}"#
        )),
        "{}",
        written[2]
    );
}

#[test]
fn evictions_nest_and_the_outermost_is_the_time_without_queues() {
    let spans = pair(&lines(&[
        "9 1000000 -7 1b11 0",
        "9 2000000 -7 1b11 1",
        "a 3000000 -7 1b11 0",
        "a 9000000 -7 1b11 0",
    ]));
    let durations: Vec<_> = spans.iter().map(Span::duration_ns).collect();
    assert_eq!(durations, [Some(MS), Some(8 * MS)]);
    assert!(matches!(spans[1].data, SpanData::QueueEviction { trigger: Some(0), .. }));
}

#[test]
fn a_failed_migration_without_an_end_does_not_take_the_end_of_the_next() {
    let start = |ns| format!("5 {ns} -7 @7f0000000(200) 0->1b11 0:0 1");
    let spans = pair(&lines(&[
        &start(1_000_000),
        &start(2_000_000),
        "6 2500000 -7 @7f0000000(200) 0->1b11 1",
        "d 7 x",
    ]));
    assert_eq!(
        summary(&spans),
        [
            (SpanKind::Migration, Outcome::Completed, Some(500_000)),
            (SpanKind::Migration, Outcome::ProcessEnded, None),
            (SpanKind::Process, Outcome::StartMissing, None),
        ]
    );
}

#[test]
fn a_pid_lives_once() {
    let spans = pair(&lines(&["c 7 first", "c 7 second", "d 7 second"]));
    assert_eq!(
        summary(&spans),
        [
            (SpanKind::Process, Outcome::Superseded, None),
            (SpanKind::Process, Outcome::Completed, Some(MS)),
        ]
    );
    assert_eq!(spans[0].process.bytes(), Some(&b"first"[..]));
}

#[test]
fn any_process_does_not_end_another() {
    let spans = pair(&lines(&["c 7 a", "c 8 b", "d 8 b"]));
    let ended: Vec<_> = spans.iter().map(|span| (span.pid, span.outcome)).collect();
    assert_eq!(ended, [(Some(8), Outcome::Completed), (Some(7), Outcome::Open)]);
}

#[test]
fn an_end_may_be_read_before_its_start() {
    let swapped = [
        event(gpu(0), "8 1500 -7 @1(1b11) U", 2000),
        event(gpu(0), "7 1000 -7 @1(1b11) R", 8 * MS),
    ];
    assert_eq!(summary(&pair(&swapped)), [(SpanKind::PageFault, Outcome::Mapped, Some(500))]);
    let late = [
        event(gpu(0), "8 1500 -7 @1(1b11) U", 2000),
        event(gpu(0), "7 1000 -7 @1(1b11) R", 20 * MS),
    ];
    assert_eq!(
        summary(&pair(&late)),
        [
            (SpanKind::PageFault, Outcome::StartMissing, None),
            (SpanKind::PageFault, Outcome::Open, None)
        ]
    );
}

#[test]
fn an_end_never_closes_a_younger_start() {
    let spans = pair(&lines(&["9 5000 -7 1b11 0", "a 4000 -7 1b11 0", "a 9000 -7 1b11 0"]));
    assert_eq!(
        summary(&spans),
        [
            (SpanKind::QueueEviction, Outcome::Completed, Some(4000)),
            (SpanKind::QueueEviction, Outcome::StartMissing, None),
        ]
    );
}

#[test]
fn a_gap_takes_what_it_may_hide_and_marks_what_is_certain() {
    let before =
        lines(&["c 7 job", "3 1 job hang", "7 2000001 -7 @1(1b11) R", "9 2000002 -7 1b11 0"]);
    let other = event(gpu(1), "7 2000003 -7 @1(1b11) R", 3 * MS);
    let loss = gap(gpu(0), GapCause::DriverFifoFull, 2 * MS, 4 * MS);
    let after = [
        event(gpu(0), "7 3000000 -7 @2(1b11) R", 4 * MS),
        event(gpu(0), "8 5000000 -7 @2(1b11) U", 5 * MS),
        event(gpu(0), "8 5000000 -7 @1(1b11) U", 5 * MS),
        event(gpu(0), "4 1 ", 6 * MS),
        event(gpu(1), "8 6000003 -7 @1(1b11) U", 6 * MS),
        event(gpu(0), "d 7 job", 7 * MS),
    ];
    let items: Vec<Item> = before.into_iter().chain([other, loss]).chain(after).collect();
    let spans = pair(&items);
    let told: Vec<_> = spans.iter().map(|s| (s.kind(), s.outcome, s.across_gap)).collect();
    assert_eq!(
        told,
        [
            (SpanKind::PageFault, Outcome::Gap, false),
            (SpanKind::QueueEviction, Outcome::Gap, false),
            (SpanKind::PageFault, Outcome::Mapped, true),
            (SpanKind::Reset, Outcome::Completed, true),
            (SpanKind::PageFault, Outcome::Mapped, false),
            (SpanKind::Process, Outcome::Completed, true),
            (SpanKind::PageFault, Outcome::StartMissing, false),
        ]
    );
}

#[test]
fn nothing_outlives_its_gpu() {
    let mut items = lines(&["c 7 job", "3 1 job hang"]);
    items.push(gap(gpu(0), GapCause::GpuRemoved, 9 * MS, 9 * MS));
    let outcomes: Vec<_> = pair(&items).iter().map(|span| span.outcome).collect();
    assert_eq!(outcomes, [Outcome::GpuRemoved, Outcome::GpuRemoved]);
}

#[test]
fn a_start_without_an_end_expires_by_the_time_of_events() {
    let mut spans = Spans::new(Limits::default());
    let mut done = Vec::new();
    let mut push = |item: &Item| spans.push(item, |span| done.push((span.kind(), span.outcome)));
    push(&event(gpu(0), "7 1000 -7 @1(1b11) R", 1000));
    push(&event(gpu(0), "c 8 job", 2000));
    push(&event(gpu(1), "2 1:1", 30_000 * MS + 999));
    push(&event(gpu(1), "2 1:1", 30_000 * MS + 1000));
    push(&event(gpu(1), "2 1:1", u64::MAX / 2));
    assert_eq!(done, [(SpanKind::PageFault, Outcome::Timeout)]);
}

#[test]
fn what_is_open_is_bounded() {
    let mut limits = Limits::default();
    limits.open_per_kind = 100;
    let mut spans = Spans::new(limits);
    let mut expired = 0;
    for page in 1..=100_000 {
        let line = format!("7 {page} -7 @{page:x}(1b11) R");
        spans.push(&event(gpu(0), &line, page), |span| {
            assert_eq!(span.outcome, Outcome::Capacity);
            expired += 1;
        });
    }
    assert_eq!(expired, 99_900);
    assert_eq!(spans.open().count(), 100);
    let first = spans.open().next().unwrap();
    assert!(matches!(first.data, SpanData::PageFault { address, .. } if address == 99_901 << 12));
}
