//! Stretches of a stream are the stream.

use std::time::Duration;

use gpuev::GapCause;
use gpuev::time::Anchor;
use gpuev_store::report::{Options, Periods, Summary};

use super::stream::Stream;

const SECOND: u64 = 1_000_000_000;

fn cut(stream: &Stream, every: Duration) -> (Vec<Summary>, Periods) {
    let mut periods = Periods::new(every, Options::default());
    let mut over: Vec<Summary> =
        stream.items.iter().filter_map(|item| periods.push(item)).collect();
    over.extend(periods.until(Anchor { boot_ns: u64::MAX, unix_ns: i64::MAX }));
    (over, periods)
}

#[test]
fn stretches_add_up_to_the_report() {
    let mut stream = Stream::of_story("mixed", 2, 4_000);
    stream.gap(1, GapCause::SubscriberSlow, Some(120), 61 * SECOND, 62 * SECOND);
    let (over, periods) = cut(&stream, Duration::from_secs(1));
    assert!(over.len() > 10);
    let report = periods.finish();
    assert_eq!(over.iter().map(Summary::events).sum::<u64>(), report.events);
    assert_eq!(over.last().unwrap().events_so_far, report.events);
    for gpu in &report.gpus {
        let of_gpu = over.iter().flat_map(|one| &one.gpus).filter(|one| one.gpu == gpu.gpu);
        assert_eq!(of_gpu.clone().map(|one| one.types.total()).sum::<u64>(), gpu.types.total());
        assert_eq!(of_gpu.map(|one| one.lost).sum::<u64>(), gpu.lost);
    }
    let ends: Vec<i64> = over.iter().map(|one| one.to_unix_ns).collect();
    assert!(ends.is_sorted());
    let lengths = over.iter().map(|one| one.to_unix_ns - one.from_unix_ns);
    assert!(lengths.clone().all(|length| length == 1_000_000_000));
}

#[test]
fn a_summary_says_when_how_much_and_of_what() {
    let mut stream = Stream::new();
    for n in 0..90 {
        stream.line(0, n * SECOND, b"2 1:1");
    }
    stream.line(1, 59 * SECOND, b"1 10:job");
    stream.items.sort_by_key(|item| match item {
        gpuev::Item::Event(event) => event.time.unix_ns,
        gpuev::Item::Gap(gap) => gap.unix_ns,
    });
    let (over, _) = cut(&stream, Duration::from_secs(60));
    assert_eq!(over.len(), 2);
    assert_eq!((over[0].events(), over[0].events_per_minute()), (61, Some(61.0)));
    let text = over[0].text();
    assert!(text.contains("61 events, 61.0 a minute; 61 so far"), "{text}");
    assert!(text.contains("GPU 0  0000:00:00.0         60  THERMAL_THROTTLE 60\n"), "{text}");
    assert!(text.contains("VMFAULT 1\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&over[1].json()).unwrap();
    assert_eq!(json["record"], "summary");
    assert_eq!((&json["events"], &json["events_so_far"]), (&30.into(), &91.into()));
    assert_eq!(json["gpus"][0]["types"]["THERMAL_THROTTLE"], 30);
    assert_eq!(json["gpus"][1]["events"], 0);
}

#[test]
fn where_nothing_happens_for_long_no_stretch_is_told_for_each() {
    let mut stream = Stream::new();
    stream.line(0, 0, b"2 1:1");
    stream.line(0, 3_600 * SECOND, b"2 1:2");
    let (over, _) = cut(&stream, Duration::from_secs(60));
    assert_eq!(over.iter().map(Summary::events).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn setting_the_wall_clock_back_silences_nothing() {
    const HOUR: i64 = 3_600_000_000_000;
    let mut periods = Periods::new(Duration::from_secs(60), Options::default());
    let at = |minutes: u64, stepped: i64| {
        let boot_ns = minutes * 60 * SECOND;
        Anchor { boot_ns, unix_ns: 1_800_000_000_000_000_000 + boot_ns.cast_signed() + stepped }
    };
    assert_eq!(periods.until(at(10, 0)), None);
    assert!(periods.until(at(11, 0)).is_some());
    assert!(periods.until(at(12, -HOUR)).is_some());
    assert_eq!(periods.left(at(12, -HOUR)), Duration::from_secs(60));
    assert!(periods.until(at(13, -HOUR)).is_some());
}
