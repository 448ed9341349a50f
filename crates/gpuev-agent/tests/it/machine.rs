//! A simulated machine, and the signals that an agent makes of what happens on it.

use std::time::Duration;

use gpuev::time::Anchor;
use gpuev::{Filter, Item, KfdVersion, Machine, Monitor, OpenWith, Scope, Subscription};
use gpuev_agent::{Config, Pipeline, Signal};
use gpuev_sim::{Client, SimMachine};

/// Far longer than anything takes: a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The machine as the library sees it. Its events are root's: those of all processes.
pub(crate) fn machine_of(sim: &SimMachine) -> Machine {
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let scope = Scope::everything("a simulated machine hides nothing");
    Machine::at(sim.root()).with_event_source(OpenWith::new(
        KfdVersion { major, minor },
        scope,
        open,
    ))
}

/// A pipeline behind a monitor of a simulated machine.
pub(crate) struct Watched {
    pub(crate) sim: SimMachine,
    pub(crate) pipeline: Pipeline,
    pub(crate) monitor: Monitor,
    items: Subscription,
}

impl Watched {
    pub(crate) fn new(sim: SimMachine, config: &Config) -> Self {
        let machine = machine_of(&sim);
        let monitor = Monitor::start(&machine).unwrap();
        let items = monitor.subscribe(Filter::new());
        let mut pipeline = Pipeline::live(&machine, config).unwrap();
        pipeline.gpus(&monitor.gpus(), &[], &mut |_| {});
        Self { sim, pipeline, monitor, items }
    }

    /// What the next `count` items come to.
    pub(crate) fn next(&mut self, count: usize) -> Vec<Signal> {
        let mut signals = Vec::new();
        for _ in 0..count {
            let item: Item = self.items.wait(Some(PATIENCE)).unwrap();
            self.pipeline.push(&item, &mut |signal| signals.push(signal));
        }
        signals
    }

    /// Ticks until something comes that `wanted` is content with.
    pub(crate) fn tick_until(&mut self, wanted: impl Fn(&Signal) -> bool) -> Vec<Signal> {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut signals = Vec::new();
        while !signals.iter().any(&wanted) {
            assert!(std::time::Instant::now() < deadline, "nothing came of it: {signals:?}");
            self.pipeline.tick(Anchor::now(), &mut |signal| signals.push(signal));
            std::thread::yield_now();
        }
        signals
    }
}

pub(crate) fn json(signal: &Signal) -> serde_json::Value {
    let mut text = String::new();
    signal.write_json(&mut text);
    serde_json::from_str(&text).unwrap()
}
