//! GPUs are read when something happens to them.

use gpuev::health::{Health, TemperatureSensor};
use gpuev_agent::config::{HealthSettings, OnEvents};
use gpuev_agent::quantity::Period;
use gpuev_agent::signal::{GpuChange, RasIncrease, RasKind};
use gpuev_agent::{Config, Signal, What};
use gpuev_sim::{Comm, DriverEvent, RasBlock, ResetCause, Sensor, SimMachine};

use crate::machine::{PATIENCE, Watched, json};

/// Every event is waited for as long as it takes, and nothing is taken from before.
fn patient() -> Config {
    let health = HealthSettings {
        on_events: OnEvents::Warning,
        fresh: Period::from_secs(0),
        wait: Period(PATIENCE),
        ..HealthSettings::default()
    };
    Config { health, ..Config::default() }
}

fn junction(health: &Health) -> i32 {
    health.temperature(TemperatureSensor::Junction).unwrap().0
}

fn fault() -> DriverEvent {
    DriverEvent::VmFault { pid: 7.into(), comm: Comm::new("train") }
}

#[test]
fn an_event_has_the_gpus_health_of_that_moment() {
    let mut watched = Watched::new(SimMachine::new().unwrap(), &patient());
    for millidegrees in [50_000, 93_000] {
        let set = watched.sim.set_temperature_millidegrees(0, Sensor::Junction, millidegrees);
        set.unwrap();
        watched.sim.emit(0, &fault());
        let signals = watched.next(1);
        assert_eq!(junction(signals[0].health.as_ref().unwrap()), millidegrees);
        let told = json(&signals[0]);
        let temperatures = told["health"]["temperatures"].as_array().unwrap();
        assert!(temperatures.iter().any(|t| t["millidegrees"] == millidegrees), "{told}");
    }
}

#[test]
fn an_event_that_matters_less_asks_nobody() {
    let mut watched = Watched::new(SimMachine::new().unwrap(), &patient());
    watched.sim.emit(0, &DriverEvent::ProcessStart { pid: 7.into(), comm: Comm::new("a") });
    assert_eq!(watched.next(1)[0].health, None);
}

#[test]
fn a_young_reading_serves_a_storm() {
    let mut config = patient();
    config.health.fresh = Period::from_secs(3600);
    let mut watched = Watched::new(SimMachine::new().unwrap(), &config);
    watched.sim.emit(0, &fault());
    let first = watched.next(1).remove(0).health.unwrap();
    watched.sim.set_temperature_millidegrees(0, Sensor::Junction, 99_000).unwrap();
    watched.sim.emit(0, &fault());
    assert_eq!(watched.next(1)[0].health.as_ref(), Some(&first));
}

fn ras(signals: &[Signal]) -> Vec<RasIncrease> {
    let rise = |signal: &Signal| match &signal.what {
        What::RasErrors(rise) => Some(rise.clone()),
        _ => None,
    };
    signals.iter().filter_map(rise).collect()
}

#[test]
fn a_counter_of_errors_that_rises_is_something_that_happened() {
    let mut config = patient();
    config.health.interval = Period::from_millis(1);
    let mut watched = Watched::new(SimMachine::new().unwrap(), &config);
    let first = watched.tick_until(|signal| signal.kind() == "health");
    assert_eq!(ras(&first), [], "what was counted before is not news");
    watched.sim.add_ras_error(0, RasBlock::Umc, true).unwrap();
    let signals = watched.tick_until(|signal| signal.kind() == "ras");
    let umc = |increase, total| RasIncrease {
        block: "umc".to_owned(),
        kind: RasKind::Uncorrectable,
        increase,
        total,
    };
    assert_eq!(ras(&signals), [umc(1, 1)]);
    let told = json(signals.iter().find(|signal| signal.kind() == "ras").unwrap());
    assert_eq!((&told["block"], &told["total"]), (&"umc".into(), &1.into()));
    assert_eq!(told["severity"], "critical");
    // A reset brings the counters to light at once, not with the next round.
    watched.sim.add_ras_error(0, RasBlock::Umc, true).unwrap();
    watched.sim.emit(0, &DriverEvent::PreReset { sequence: 1, cause: Some(ResetCause::RasError) });
    let mut signals = watched.next(1);
    while ras(&signals).is_empty() {
        signals.extend(watched.tick_until(|signal| signal.kind() == "ras"));
    }
    assert_eq!(ras(&signals), [umc(1, 2)]);
}

#[test]
fn a_gpu_that_leaves_and_comes_back_is_told_once_each() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let mut watched = Watched::new(sim, &Config::default());
    let changes = |signals: &[Signal]| -> Vec<GpuChange> {
        let change = |signal: &Signal| match signal.what {
            What::Gpu(change) => Some(change),
            _ => None,
        };
        signals.iter().filter_map(change).collect()
    };
    watched.sim.remove_gpu(1).unwrap();
    let mut told = Vec::new();
    while told.is_empty() {
        told.extend(changes(&watched.next(1)));
    }
    watched.sim.restore_gpu(1).unwrap();
    while told.len() < 2 {
        told.extend(changes(&watched.next(1)));
    }
    let (gpus, mut more) = (watched.monitor.gpus(), Vec::new());
    watched.pipeline.gpus(&gpus, &[], &mut |signal| more.push(signal));
    assert_eq!(told, [GpuChange::Lost, GpuChange::Found]);
    assert_eq!(changes(&more), []);
}
