//! Faults through the simulator: every rule that comes with the program fires on its fault, is over after it, and
//! a machine that is well wakes nobody.

use std::collections::BTreeSet;

use gpuev::GapCause;
use gpuev_agent::What;
use gpuev_agent::alert::Resolution;
use gpuev_agent::rule::RuleSet;
use gpuev_agent::signal::{GpuChange, RasIncrease, RasKind};
use gpuev_sim::{Comm, DriverEvent, ResetCause, Scenario, Sensor, Story, throttler, trigger};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::stage::{HOUR, MINUTE, SECOND, Stage};

/// Something that goes wrong: the rule that is for it, those that may fire beside it, and what happens.
struct Fault {
    rule: &'static str,
    beside: &'static [&'static str],
    ends: Resolution,
    strike: fn(&mut Stage, usize, u32),
}

const PYTHON: &str = "python3";

fn fault(
    rule: &'static str,
    beside: &'static [&'static str],
    ends: Resolution,
    strike: fn(&mut Stage, usize, u32),
) -> Fault {
    Fault { rule, beside, ends, strike }
}

fn faults() -> Vec<Fault> {
    use Resolution::{Opposite, Quiet};
    vec![
        fault("vm-fault", &[], Quiet, |stage, gpu, pid| violation(stage, gpu, pid, 1)),
        fault("vm-fault-storm", &["vm-fault"], Quiet, |stage, gpu, pid| {
            violation(stage, gpu, pid, 20);
        }),
        fault("page-fault-storm", &[], Quiet, page_faults),
        fault("migration-thrash", &[], Quiet, migrations),
        fault("thermal-throttle", &[], Quiet, |stage, gpu, _| hot(stage, gpu, 1)),
        fault("thermal-throttle-sustained", &["thermal-throttle"], Quiet, |stage, gpu, _| {
            hot(stage, gpu, 12);
        }),
        fault("temperature-critical", &[], Quiet, critical_temperature),
        fault("gpu-reset", &[], Quiet, |stage, gpu, _| {
            reset(stage, gpu, 1, Some(ResetCause::JobHang), 5 * SECOND);
        }),
        fault("gpu-reset-by-user", &[], Quiet, |stage, gpu, _| {
            reset(stage, gpu, 4, Some(ResetCause::UserTrigger), 5 * SECOND);
        }),
        fault("reset-unfinished", &["gpu-reset"], Opposite, |stage, gpu, _| {
            reset(stage, gpu, 1, None, 3 * MINUTE);
        }),
        fault("reset-loop", &["gpu-reset"], Quiet, |stage, gpu, _| {
            reset(stage, gpu, 3, Some(ResetCause::JobHang), 5 * SECOND);
        }),
        fault("gpu-lost", &[], Opposite, |stage, gpu, _| {
            stage.gap(gpu, GapCause::GpuRemoved);
            stage.pass(2 * MINUTE);
            stage.notice(gpu, What::Gpu(GpuChange::Found), None);
        }),
        fault("gpu-unreadable", &[], Opposite, |stage, gpu, _| {
            stage.notice(gpu, What::Gpu(GpuChange::Unreadable), None);
            stage.pass(2 * MINUTE);
            stage.notice(gpu, What::Gpu(GpuChange::Found), None);
        }),
        fault("gpu-silent", &[], Opposite, |stage, gpu, _| {
            stage.notice(gpu, What::Gpu(GpuChange::Silent), None);
            stage.pass(2 * MINUTE);
            stage.notice(gpu, What::Gpu(GpuChange::Found), None);
        }),
        fault("ras-uncorrectable", &[], Quiet, |stage, gpu, _| {
            ras(stage, gpu, RasKind::Uncorrectable, 1);
        }),
        fault("ras-deferred", &[], Quiet, |stage, gpu, _| ras(stage, gpu, RasKind::Deferred, 1)),
        fault("ras-correctable-storm", &[], Quiet, |stage, gpu, _| {
            ras(stage, gpu, RasKind::Correctable, 120);
        }),
        fault("eviction-cascade", &[], Quiet, evictions),
        fault("queue-not-restored", &[], Opposite, |stage, gpu, pid| {
            stage.emit(gpu, &evicted(pid));
            stage.pass(2 * MINUTE);
            stage.emit(gpu, &restored(pid, false));
        }),
        fault("lost-events", &[], Quiet, |stage, gpu, _| {
            stage.gap(gpu, GapCause::DriverFifoFull);
        }),
    ]
}

fn violation(stage: &mut Stage, gpu: usize, pid: u32, times: u32) {
    for _ in 0..times {
        stage.emit(gpu, &DriverEvent::VmFault { pid: pid.into(), comm: Comm::new(PYTHON) });
        stage.pass(SECOND);
    }
}

/// 500 a second for 50 seconds, as a program without prefetching makes them.
fn page_faults(stage: &mut Stage, gpu: usize, pid: u32) {
    for page in 0..25_000 {
        stage.emit(gpu, &DriverEvent::PageFaultStart { pid: pid.into(), page, write: true });
        stage.emit(gpu, &DriverEvent::PageFaultEnd { pid: pid.into(), page, migrated: false });
        stage.pass(2 * SECOND / 1000);
    }
}

/// 400 a second for 50 seconds.
fn migrations(stage: &mut Stage, gpu: usize, pid: u32) {
    let pid = pid.into();
    let (pages, from, to, trigger) = (1, 0, 1, trigger::MIGRATE_PAGEFAULT_GPU);
    for page in 0..20_000 {
        let (prefetch, preferred) = (u32::MAX, u32::MAX);
        stage.emit(
            gpu,
            &DriverEvent::MigrateStart { pid, page, pages, from, to, prefetch, preferred, trigger },
        );
        stage.pass(5 * SECOND / 2000);
        let end = DriverEvent::MigrateEnd { pid, page, pages, from, to, trigger, error: 0 };
        stage.emit(gpu, &end);
    }
}

fn hot(stage: &mut Stage, gpu: usize, minutes: u64) {
    for count in 1..=minutes {
        stage.emit(gpu, &DriverEvent::Thermal { throttlers: throttler::TEMP_HOTSPOT, count });
        stage.pass(MINUTE);
    }
}

fn critical_temperature(stage: &mut Stage, gpu: usize, _: u32) {
    for millidegrees in [60_000, 130_000, 130_000, 130_000, 130_000, 60_000] {
        stage.sim.set_temperature_millidegrees(gpu, Sensor::Junction, millidegrees).unwrap();
        stage.read_health(gpu);
        stage.pass(30 * SECOND);
    }
}

fn reset(stage: &mut Stage, gpu: usize, times: u32, cause: Option<ResetCause>, down_ns: u64) {
    for sequence in 1..=times {
        stage.emit(gpu, &DriverEvent::PreReset { sequence, cause });
        stage.pass(down_ns);
        stage.emit(gpu, &DriverEvent::PostReset { sequence, cause: None });
        stage.pass(10 * SECOND);
    }
}

fn ras(stage: &mut Stage, gpu: usize, kind: RasKind, errors: u64) {
    for total in 1..=errors {
        let rise = RasIncrease { block: "umc".to_owned(), kind, increase: 1, total };
        stage.notice(gpu, What::RasErrors(rise), None);
        stage.pass(20 * SECOND);
    }
}

fn evicted(pid: u32) -> DriverEvent {
    DriverEvent::QueueEviction { pid: pid.into(), trigger: trigger::EVICT_TTM }
}

fn restored(pid: u32, rescheduled: bool) -> DriverEvent {
    DriverEvent::QueueRestore { pid: pid.into(), rescheduled }
}

fn evictions(stage: &mut Stage, gpu: usize, pid: u32) {
    for turn in 0..60 {
        let pid = pid + turn % 6;
        stage.emit(gpu, &evicted(pid));
        stage.pass(SECOND / 50);
        stage.emit(gpu, &restored(pid, true));
        stage.pass(SECOND / 50);
        stage.emit(gpu, &restored(pid, false));
        stage.pass(SECOND / 25);
    }
}

/// Runs one fault and looks what the rules said of it.
fn strike(stage: &mut Stage, fault: &Fault, gpu: usize, pid: u32) {
    stage.changes.clear();
    let bdf = stage.gpu(gpu).bdf.to_string();
    (fault.strike)(stage, gpu, pid);
    stage.pass(MINUTE);
    let fired = stage.fired();
    assert!(fired.contains_key(fault.rule), "{} did not fire, but {fired:?}", fault.rule);
    let expected: BTreeSet<&str> = fault.beside.iter().copied().chain([fault.rule]).collect();
    assert!(fired.keys().all(|rule| expected.contains(rule.as_str())), "{}: {fired:?}", fault.rule);
    let told: Vec<_> = stage.changes.iter().filter(|change| change.notify).collect();
    assert!(told.iter().all(|change| change.alert.labels["gpu"] == bdf), "{told:?}");
    // The longest quiet of any rule is a day, but for a lost GPU, which comes back.
    stage.rest(25 * HOUR);
    assert_eq!(stage.firing(), Vec::<String>::new(), "after {}", fault.rule);
    let last = stage.last(fault.rule);
    assert_eq!(last.resolved_by, Some(fault.ends), "{}: {last:?}", fault.rule);
    assert_eq!(stage.engine.stats().condition_errors, 0, "{:?}", stage.engine.stats());
}

#[test]
fn every_rule_has_a_fault_here() {
    let with_fault: BTreeSet<String> = faults().iter().map(|f| f.rule.to_owned()).collect();
    let rules: BTreeSet<String> =
        RuleSet::builtin().iter().map(|rule| rule.name().to_owned()).collect();
    assert_eq!(with_fault, rules);
}

#[test]
fn every_rule_fires_on_its_fault_and_is_over_after_it() {
    let config = Config { cases: 2, failure_persistence: None, ..Config::default() };
    let seeded = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seeded);
    let faults = faults();
    let order: Vec<usize> = (0..faults.len()).collect();
    let campaign = (Just(order).prop_shuffle(), 0..2_usize, 1000..100_000_u32);
    let run = runner.run(&campaign, |(order, gpu, pid)| {
        let mut stage = Stage::new(2);
        for (turn, fault) in order.into_iter().enumerate() {
            strike(&mut stage, &faults[fault], (gpu + turn) % 2, pid);
        }
        Ok(())
    });
    run.unwrap();
}

/// A restart, a reboot, a yield, a driver that is loaded again, a clock that steps and a year in which nothing happens are
/// no faults.
#[test]
fn nothing_is_raised_by_gaps_restarts_yields_and_clocks() {
    let mut stage = Stage::new(2);
    let mut boot = 1;
    for cause in [GapCause::Reopened, GapCause::Yielded, GapCause::Locked, GapCause::OpenFailed] {
        // In the middle of a reset, of an eviction and of heat, which nothing is told of any more.
        stage.emit(0, &evicted(4242));
        stage.emit(
            0,
            &DriverEvent::PreReset { sequence: boot, cause: Some(ResetCause::UserTrigger) },
        );
        stage.gap(0, cause);
        stage.gap(1, cause);
        for same_boot in [true, false] {
            boot += u32::from(!same_boot);
            stage.restart(RuleSet::builtin(), &format!("boot {boot}"));
            stage.pass(HOUR);
        }
        let known = ["gpu-reset-by-user"];
        let raised: Vec<String> = stage.fired().into_keys().collect();
        assert!(raised.iter().all(|rule| known.contains(&rule.as_str())), "{cause:?}: {raised:?}");
    }
    stage.changes.clear();
    for step_s in [-7200, 7200, -31_536_000_i64] {
        stage.step_clock(step_s);
        stage.pass(5 * MINUTE);
    }
    stage.rest(400 * 24 * HOUR);
    assert!(stage.fired().is_empty(), "{:?}", stage.fired());
}

/// What has been so hot is said only of what was.
#[test]
fn ten_minutes_are_ten_minutes() {
    let mut stage = Stage::new(1);
    hot(&mut stage, 0, 9);
    stage.pass(20 * MINUTE);
    assert!(!stage.fired().contains_key("thermal-throttle-sustained"), "{:?}", stage.fired());
}

/// Faults that mend themselves in the time that their rules leave them.
#[test]
fn what_mends_itself_in_time_wakes_nobody() {
    let mut stage = Stage::new(1);
    stage.emit(0, &evicted(4242));
    stage.emit(0, &evicted(4242));
    stage.pass(20 * SECOND);
    stage.emit(0, &restored(4242, true));
    stage.emit(0, &restored(4242, false));
    stage.pass(20 * SECOND);
    stage.emit(0, &restored(4242, false));
    stage.gap(0, GapCause::GpuRemoved);
    stage.pass(10 * SECOND);
    stage.gap(0, GapCause::Yielded);
    stage.notice(0, What::Gpu(GpuChange::Found), None);
    let suspend = DriverEvent::QueueEviction { pid: 7.into(), trigger: trigger::EVICT_SUSPEND };
    stage.emit(0, &suspend);
    stage.emit(0, &DriverEvent::Thermal { throttlers: throttler::PPT0, count: 1 });
    stage.rest(8 * HOUR);
    assert!(stage.fired().is_empty(), "{:?}", stage.fired());
}

/// One reset is one alert: with its cause, how long it took, and whom it hit.
#[test]
fn a_reset_tells_its_cause_its_length_and_its_victims() {
    let mut stage = Stage::new(1);
    let comm = || Comm::new("train\u{1b}[2J");
    stage.emit(0, &DriverEvent::ProcessStart { pid: 4242.into(), comm: comm() });
    stage.emit(0, &DriverEvent::ProcessStart { pid: 7.into(), comm: Comm::new("gone") });
    stage.emit(0, &DriverEvent::ProcessEnd { pid: 7.into(), comm: Comm::new("gone") });
    reset(&mut stage, 0, 1, Some(ResetCause::JobHang), 1500 * SECOND / 1000);
    let bdf = stage.gpu(0).bdf;
    let alert = stage.last("gpu-reset");
    assert_eq!(alert.severity, gpuev::Severity::Critical);
    let expected = format!("GPU {bdf} was reset. Cause: job hang. Down for: 1.5 s. On it were: ");
    assert!(alert.summary.starts_with(&expected), "{}", alert.summary);
    assert!(
        alert.summary.contains("4242") && !alert.summary.contains("pid 7"),
        "{}",
        alert.summary
    );
    assert!(!alert.summary.contains('\u{1b}'), "{}", alert.summary);
    assert_eq!(alert.labels["reset"], "1");
    assert_eq!(alert.victims.len(), 1, "{:?}", alert.victims);
    assert!(alert.group.starts_with("reset/"), "{}", alert.group);
    // Its end is that it is quiet: by then, everybody has heard of it.
    stage.pass(14 * MINUTE);
    assert_eq!(stage.firing(), ["gpu-reset"]);
    stage.pass(2 * MINUTE);
    assert_eq!(stage.firing(), Vec::<String>::new());
    // The next one is another.
    let first = alert.id.clone();
    reset(&mut stage, 0, 1, None, SECOND);
    assert!(stage.last("gpu-reset").id != first);
    assert!(stage.last("gpu-reset").summary.contains("Cause: unknown."));
}

/// What a gap may hide is not told as if it were known.
#[test]
fn a_reset_whose_end_a_gap_may_hide_is_not_unfinished() {
    let mut stage = Stage::new(1);
    stage.emit(0, &DriverEvent::PreReset { sequence: 1, cause: Some(ResetCause::JobHang) });
    stage.gap(0, GapCause::Reopened);
    stage.pass(5 * MINUTE);
    let fired = stage.fired();
    assert!(!fired.contains_key("reset-unfinished"), "{fired:?}");
    // What is given up after ten minutes was a reset all the same.
    stage.pass(6 * MINUTE);
    stage.emit(0, &DriverEvent::Thermal { throttlers: throttler::PPT0, count: 1 });
    assert!(stage.last("gpu-reset").summary.contains("Cause: job hang. Down for: unknown."));
    assert!(!stage.fired().contains_key("reset-unfinished"));
}

/// A gap between begin and end does not make a reset that a user asked for a critical one, nor two of one.
#[test]
fn a_reset_by_a_user_around_a_gap_is_one_warning() {
    let mut stage = Stage::new(1);
    let cause = Some(ResetCause::UserTrigger);
    stage.emit(0, &DriverEvent::PreReset { sequence: 4, cause });
    stage.gap(0, GapCause::DriverFifoFull);
    stage.pass(SECOND);
    stage.emit(0, &DriverEvent::PostReset { sequence: 4, cause: None });
    stage.pass(SECOND);
    let fired = stage.fired().into_keys();
    let resets: Vec<String> = fired.filter(|rule| rule.contains("reset")).collect();
    assert_eq!(resets, ["gpu-reset-by-user"]);
    assert_eq!(stage.last("gpu-reset-by-user").severity, gpuev::Severity::Warning);
    // After a reload, the driver counts anew: the same number is another reset.
    stage.rest(HOUR);
    stage.changes.clear();
    stage.gap(0, GapCause::Yielded);
    stage.emit(0, &DriverEvent::PostReset { sequence: 4, cause: None });
    stage.pass(SECOND);
    assert!(stage.fired().contains_key("gpu-reset"), "{:?}", stage.fired());
}

/// Evictions nest: one restore of two leaves the queues off the GPU.
#[test]
fn half_of_the_restores_is_not_enough() {
    let mut stage = Stage::new(1);
    stage.emit(0, &evicted(4242));
    stage.emit(0, &evicted(4242));
    stage.emit(0, &restored(4242, false));
    stage.pass(2 * MINUTE);
    assert_eq!(stage.firing(), ["queue-not-restored"]);
    assert_eq!(stage.last("queue-not-restored").labels["pid"], "4242");
    let end = DriverEvent::ProcessEnd { pid: 4242.into(), comm: Comm::new(PYTHON) };
    stage.emit(0, &end);
    assert_eq!(stage.firing(), Vec::<String>::new());
}

/// More than a thousand times as fast as in life, also when built for debugging: nothing here waits, as pipeline
/// and rules know no clock but the one that they are told, which is the story's. What is fast is the clock; a
/// thousand times as many events in a second of life would be another load.
#[test]
fn an_hour_of_healthy_load_wakes_nobody() {
    let mut stage = Stage::new(2);
    let (mut count, mut reading_ns) = (0_u64, 0);
    let story = Scenario::new(Story::Training).seed(7);
    for one in story.events(2).take_while(|one| one.at_ns < HOUR) {
        stage.pass_to(one.at_ns);
        if one.at_ns >= reading_ns {
            reading_ns = one.at_ns + MINUTE / 2;
            (0..2).for_each(|gpu| stage.read_health(gpu));
        }
        stage.emit(one.gpu, &one.event);
        count += 1;
    }
    stage.rest(HOUR);
    assert!(count > 50_000, "an hour has only {count} events");
    assert!(stage.changes.is_empty(), "{:#?}", stage.changes);
    assert_eq!(stage.engine.stats().groups, 0, "nothing is left of it");
}

/// The stories of the simulator that are about a fault find the rules that are for it.
#[test]
fn stories_of_faults_fire_their_rules() {
    for (story, rules) in [
        (Story::Thermal, &["thermal-throttle", "thermal-throttle-sustained"][..]),
        (Story::Reset, &["gpu-reset", "gpu-reset-by-user", "reset-loop"]),
        (Story::FaultStorm, &["page-fault-storm", "vm-fault", "vm-fault-storm"]),
        (Story::MigrationThrash, &["migration-thrash"]),
        (Story::EvictionCascade, &["eviction-cascade"]),
    ] {
        let mut stage = Stage::new(1);
        let length = if story == Story::Thermal { 15 * MINUTE } else { MINUTE };
        for one in Scenario::new(story).events(1).take_while(|one| one.at_ns < length) {
            stage.pass_to(one.at_ns);
            stage.emit(one.gpu, &one.event);
        }
        let fired: Vec<String> = stage.fired().into_keys().collect();
        assert_eq!(fired, rules, "{story:?}");
    }
}
