//! The report's numbers are those that the simulator knows.

use std::collections::{BTreeMap, HashMap};

use gpuev::EventType;
use gpuev::span::{Outcome, SpanKind};
use gpuev_sim::{DriverEvent, Scenario, SpanKind as Told, Truth};
use gpuev_store::report::{Report, SpanSummary};

use super::report;
use super::stream::{Stream, gpu};

const GPUS: usize = 3;
/// So few that even of the story with the most processes each is followed.
const EVENTS: u64 = 5_000;

fn each_story(check: impl Fn(&str, &Truth, &[DriverEvent], &Report)) {
    for story in Scenario::names() {
        let scenario = Scenario::by_name(story).unwrap().seed(11).count(EVENTS);
        let truth = Truth::of(scenario.events(GPUS));
        let events: Vec<_> = scenario.events(GPUS).map(|one| one.event).collect();
        check(story, &truth, &events, &report(&Stream::of_story(story, GPUS, EVENTS).items));
    }
}

#[test]
fn counts_by_gpu_and_type_are_exact() {
    each_story(|story, truth, _, report| {
        assert_eq!(report.events, truth.total(), "{story}");
        for event_type in EventType::ALL {
            let told = report.types.of(Some(event_type));
            assert_eq!(told, truth.count_of(event_type.id()), "{story} {event_type}");
            let over_time: u64 = report.timeline.of_type(Some(event_type)).iter().sum();
            assert_eq!(over_time, told, "{story} {event_type}");
            for one in &report.gpus {
                let index = one.gpu.index as usize;
                assert_eq!(one.gpu, gpu(index));
                let told = one.types.of(Some(event_type));
                assert_eq!(told, truth.count(index, event_type.id()), "{story} {index}");
            }
        }
        for (place, one) in report.gpus.iter().enumerate() {
            let over_time: u64 = report.timeline.of_gpu(place).iter().sum();
            assert_eq!(over_time, one.types.total(), "{story}");
        }
        assert_eq!(report.observed_ns, truth.lasted_ns, "{story}");
    });
}

/// Nanoseconds of all that ended, by kind.
fn lengths(truth: &Truth) -> BTreeMap<SpanKind, Vec<u64>> {
    let mut lengths: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in &truth.spans {
        let kind = kind(span.kind);
        lengths.entry(kind).or_default().extend(span.end_ns.map(|end| end - span.start_ns));
    }
    lengths
}

fn kind(told: Told) -> SpanKind {
    match told {
        Told::Reset { .. } => SpanKind::Reset,
        Told::Fault { .. } => SpanKind::PageFault,
        Told::Migration { .. } => SpanKind::Migration,
        Told::Eviction { .. } => SpanKind::QueueEviction,
        Told::Process { .. } => SpanKind::Process,
        _ => panic!("the simulator should have no other span"),
    }
}

#[test]
fn spans_have_their_true_count_sum_and_quantiles() {
    each_story(|story, truth, _, report| {
        assert_eq!(truth.spans_left_out, 0);
        for (kind, mut lengths) in lengths(truth) {
            let told = &report.span(kind).unwrap().durations;
            assert_eq!(told.count(), lengths.len() as u64, "{story} {}", kind.name());
            assert_eq!(told.total_ns(), lengths.iter().sum::<u64>(), "{story} {}", kind.name());
            lengths.sort_unstable();
            assert_eq!(told.max_ns(), lengths.last().copied(), "{story} {}", kind.name());
            for percent in [50, 90, 99_u8] {
                let Some(near) = told.quantile_ns(f64::from(percent) / 100.0) else { continue };
                let rank = (lengths.len() * usize::from(percent)).div_ceil(100);
                let exact = lengths[rank - 1];
                assert!(near.abs_diff(exact) <= exact / 500, "{story} {near} {exact}");
            }
        }
        let open = truth.spans.iter().filter(|span| span.end_ns.is_none()).count() as u64;
        let unpaired: u64 = report.spans.iter().map(SpanSummary::unpaired).sum();
        assert_eq!(unpaired, open, "{story}");
    });
}

#[test]
fn outcomes_causes_and_triggers_are_the_true_ones() {
    each_story(|story, truth, events, report| {
        let of = |wanted: fn(&Told) -> bool| {
            let ended = truth.spans.iter().filter(|span| span.end_ns.is_some());
            ended.filter(|span| wanted(&span.kind)).count() as u64
        };
        let outcome = |kind, outcome| report.span(kind).unwrap().count(outcome);
        let migrated = of(|kind| matches!(kind, Told::Fault { migrated: true, .. }));
        assert_eq!(outcome(SpanKind::PageFault, Outcome::Migrated), migrated, "{story}");
        let failed = of(|kind| matches!(kind, Told::Migration { error, .. } if *error != 0));
        assert_eq!(outcome(SpanKind::Migration, Outcome::Failed), failed, "{story}");
        let told: u64 = report.migrations.iter().map(|one| one.failed).sum();
        assert_eq!(told, failed, "{story}");
        let bytes = truth.spans.iter().filter(|span| span.end_ns.is_some());
        let bytes = bytes.map(|span| match span.kind {
            Told::Migration { bytes, error: 0, .. } => bytes,
            _ => 0,
        });
        let told: u64 = report.migrations.iter().map(|one| one.bytes).sum();
        assert_eq!(told, bytes.sum::<u64>(), "{story}");

        let mut evictions = HashMap::new();
        let mut causes = HashMap::new();
        for event in events {
            match event {
                DriverEvent::QueueEviction { trigger, .. } => {
                    *evictions.entry(gpuev::names::eviction_trigger(*trigger)).or_insert(0) += 1;
                }
                DriverEvent::PreReset { cause, .. } => {
                    let cause = cause.map(|cause| cause.text().0.trim_end_matches(" on ring:"));
                    *causes.entry(cause).or_insert(0) += 1;
                }
                _ => {}
            }
        }
        let told = report.evictions.iter().map(|one| (one.trigger, one.evictions));
        assert_eq!(told.collect::<HashMap<_, _>>(), evictions, "{story}");
        let told = report.reset_causes.iter().map(|one| (one.cause, one.resets));
        assert_eq!(told.collect::<HashMap<_, _>>(), causes, "{story}");
        for gpu in &report.gpus {
            let resets = truth.spans.iter().filter(|span| {
                matches!(span.kind, Told::Reset { .. }) && span.gpu == gpu.gpu.index as usize
            });
            let down: u64 = resets.clone().filter_map(|s| Some(s.end_ns? - s.start_ns)).sum();
            assert_eq!((gpu.resets, gpu.down_ns), (resets.count() as u64, down), "{story}");
        }
    });
}

#[test]
fn processes_have_their_true_counts_and_lives() {
    each_story(|story, truth, events, report| {
        let mut counts: HashMap<u32, u64> = HashMap::new();
        let mut faults: HashMap<u32, u64> = HashMap::new();
        for event in events {
            let Some(pid) = event.pid() else { continue };
            *counts.entry(pid.host).or_default() += 1;
            if let DriverEvent::VmFault { .. } = event {
                *faults.entry(pid.host).or_default() += 1;
            }
        }
        let shown = report.processes.entries.len();
        assert_eq!(shown as u64 + report.processes.more, counts.len() as u64, "{story}");
        assert_eq!(report.processes.missing_at_most, 0);
        let least = report.processes.entries.last().map_or(0, |one| one.types.total());
        for one in &report.processes.entries {
            assert_eq!(counts.remove(&one.who.pid), Some(one.types.total()), "{story}");
            let mut lives = truth.spans.iter().filter(|span| {
                matches!(span.kind, Told::Process { .. }) && span.pid == one.who.pid
            });
            let life = lives.next().unwrap();
            assert!(lives.next().is_none());
            assert_eq!(one.lived_ns, life.end_ns.map(|end| end - life.start_ns), "{story}");
            assert_eq!(one.open, life.end_ns.is_none(), "{story}");
            let Told::Process { comm } = life.kind else { continue };
            assert_eq!(one.name.bytes(), Some(comm.as_bytes()), "{story}");
        }
        assert!(counts.values().all(|count| *count <= least), "{story}");
        for one in &report.memory_faults.entries {
            assert_eq!(faults.get(&one.who.pid), Some(&one.faults), "{story}");
        }
    });
}

/// By process and 2 MiB.
type Blocks = HashMap<(u32, u64), u64>;

#[test]
fn ranges_are_those_that_moved_and_faulted_most() {
    each_story(|story, _, events, report| {
        let (mut faults, mut turns): (Blocks, Blocks) = Default::default();
        let mut came_from = HashMap::new();
        for event in events {
            match *event {
                DriverEvent::PageFaultStart { pid, page, .. } => {
                    *faults.entry((pid.host, page >> 9)).or_default() += 1;
                }
                DriverEvent::MigrateEnd { pid, page, from, to, error: 0, .. } => {
                    let block = (pid.host, page >> 9);
                    if came_from.insert(block, from) == Some(to) {
                        *turns.entry(block).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        let most = |blocks: &Blocks| blocks.values().copied().max().unwrap_or(0);
        let spots = &report.fault_hot_spots;
        assert_eq!(spots.entries.first().map_or(0, |spot| spot.faults), most(&faults), "{story}");
        assert_eq!(spots.entries.len() as u64 + spots.more, faults.len() as u64, "{story}");
        for spot in &spots.entries {
            assert_eq!(faults.get(&(spot.who.pid, spot.address >> 21)), Some(&spot.faults));
        }
        let first = report.thrashing.entries.first();
        assert_eq!(first.map_or(0, |range| range.bounces), most(&turns), "{story}");
        for range in &report.thrashing.entries {
            for block in 0..range.size >> 21 {
                let block = (range.who.pid, (range.address >> 21) + block);
                assert_eq!(turns.get(&block), Some(&range.bounces), "{story}");
            }
        }
    });
}

#[test]
fn throttling_is_counted_by_reason_and_never_longer_than_was_watched() {
    each_story(|story, truth, events, report| {
        let mut reasons: HashMap<&str, u64> = HashMap::new();
        for event in events {
            if let DriverEvent::Thermal { throttlers, .. } = event {
                for name in gpuev::names::throttlers(*throttlers) {
                    *reasons.entry(name).or_default() += 1;
                }
            }
        }
        let told = report.throttling.iter().filter_map(|one| Some((one.reason?, one.events)));
        assert_eq!(told.collect::<HashMap<_, _>>(), reasons, "{story}");
        assert!(report.gpus.iter().all(|gpu| gpu.throttled_ns <= truth.lasted_ns), "{story}");
    });
}
