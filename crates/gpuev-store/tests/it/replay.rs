//! A replay is what was live, to the byte.

use gpuev::process::Processes;
use gpuev::{Filter, Gpu, Item, KfdVersion, Machine, Monitor, OpenWith, Scope, json};
use gpuev_sim::{Client, Scenario, SimMachine};
use gpuev_store::{History, Query, Recorder, Session, Writer};

use crate::items::folder;

/// A simulated machine as the library sees it.
fn machine_of(sim: &SimMachine) -> Machine {
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let scope = Scope::everything("a simulated machine hides nothing");
    let source = OpenWith::new(KfdVersion { major, minor }, scope, open);
    Machine::at(sim.root()).with_event_source(source)
}

fn written(items: impl Iterator<Item = Item>) -> String {
    let mut text = String::new();
    for item in items {
        json::write_item(&mut text, &item);
        text.push('\n');
    }
    text
}

#[test]
fn a_replay_is_what_was_live_for_every_scenario() {
    for name in Scenario::names() {
        let (_folder, path) = folder();
        let sim = SimMachine::builder().gpus(2).build().unwrap();
        let machine = machine_of(&sim);
        let monitor = Monitor::start(&machine).unwrap();
        let live = monitor.subscribe(Filter::new());
        let session = Session::of(&machine).with_gpus(&monitor.gpus());
        let writer = Writer::open(&path, &session).unwrap();
        let recorded = monitor.subscribe(Filter::new());
        let recorder = Recorder::start(writer, recorded, Processes::of(&machine)).unwrap();
        let scenario = Scenario::by_name(name).unwrap().rate(50_000).count(4_000);
        drop(sim.play(scenario).unwrap().join());
        // Gone while events wait: the monitor reads what the driver holds first.
        monitor.release();
        monitor.resume().unwrap();
        drop(monitor);
        recorder.finish().unwrap();
        let live = written(live);
        let items = History::open(&path).unwrap().into_items(&Query::new());
        let replayed = written(items.map(Result::unwrap));
        assert!(live.contains("\"record\":\"gap\"") && live.lines().count() >= 2, "{name}");
        assert!(live == replayed, "{name}");
    }
}
