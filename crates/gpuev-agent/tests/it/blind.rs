//! Up to when earlier runs saw what happened.

use std::path::PathBuf;

use gpuev::time::{Anchor, boot_now_ns};
use gpuev::{Clock, Comm, Event, EventFacts, EventTime, Gpu, Item, Machine};
use gpuev_agent::blind::Seen;
use gpuev_sim::SimMachine;
use gpuev_store::{Session, Writer};

/// A machine with two GPUs, and the folder of its agent.
struct Node {
    _sim: SimMachine,
    machine: Machine,
    state: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let sim = SimMachine::builder().gpus(2).build().unwrap();
        let machine = Machine::at(sim.root());
        Self { _sim: sim, machine, state: tempfile::tempdir().unwrap() }
    }

    fn gpus(&self) -> Vec<Gpu> {
        self.machine.gpus().unwrap()
    }

    fn history(&self) -> PathBuf {
        self.state.path().join("history.db")
    }

    /// A session as a run of the agent begins it.
    fn session(&self) -> Writer {
        let session = Session::of(&self.machine).with_gpus(&self.gpus());
        Writer::open(&self.history(), &session).unwrap()
    }

    /// A run that records a fault of each GPU, and ends. Gives when they happened.
    fn ended_run(&self) -> u64 {
        let (mut writer, at) = (self.session(), boot_now_ns());
        self.gpus().iter().for_each(|gpu| writer.append(&fault(gpu, at)).unwrap());
        writer.close().unwrap();
        at
    }

    /// From when on nobody looked at each GPU.
    fn blind_from(&self) -> Vec<u64> {
        let history = self.history();
        let seen = Seen::before(&self.machine, self.state.path(), Some(&history)).unwrap().unwrap();
        self.gpus().iter().map(|gpu| seen.gap(gpu).from_boot_ns).collect()
    }
}

/// A page fault at `boot_ns` that is received somewhat later.
fn fault(gpu: &Gpu, boot_ns: u64) -> Item {
    let raw = format!("7 {boot_ns} -4242 @7fff00000(1b11) W");
    let received = Anchor::now();
    let time = EventTime {
        boot_ns,
        clock: Clock::Driver,
        received_boot_ns: received.boot_ns,
        unix_ns: received.unix_ns,
    };
    let comm = Comm::default();
    let raw = raw.as_bytes();
    let facts = EventFacts { gpu: gpu.id, seq: 0, time, doubtful: false, pid: None, comm, raw };
    Item::Event(Event::from_facts(facts))
}

#[test]
fn each_gpu_is_blind_from_the_last_that_is_recorded_of_it() {
    let node = Node::new();
    let gpus = node.gpus();
    let mut writer = node.session();
    let [first, second] = [&gpus[0], &gpus[1]].map(|gpu| {
        let at = boot_now_ns();
        writer.append(&fault(gpu, at)).unwrap();
        at
    });
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(node.blind_from(), [first, second]);
}

#[test]
fn a_run_that_was_let_go_before_it_ended_saw_nothing_in_between() {
    let node = Node::new();
    let at = node.ended_run();
    assert_eq!(node.blind_from(), [at; 2]);
}

#[test]
fn a_run_that_was_killed_before_it_recorded_anything_saw_nothing() {
    let node = Node::new();
    let at = node.ended_run();
    drop(node.session());
    drop(node.session());
    assert_eq!(node.blind_from(), [at; 2]);
}
