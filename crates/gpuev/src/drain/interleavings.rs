//! Waiting, draining inline, and what is unfinished, over many interleavings of threads: whatever the driver queued
//! reaches every subscriber that wants it, and nobody sleeps for ever (`shuttle` reports a deadlock).
//!
//! `RUSTFLAGS="--cfg gpuev_shuttle" cargo test -p gpuev --lib interleavings`

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use gpuev_kfd::KfdVersion;
use shuttle::thread;

use super::*;
use crate::{DEFAULT_LIMIT, EventType, Filter, Item, Machine, Subscription};

const VERSION: KfdVersion = KfdVersion { major: 1, minor: 23 };
const THERMAL: &[u8] = b"2 400:7\n";
/// The driver names a process that must be looked up.
const FAULT: &[u8] = b"7 1 -4242 @7fff00000(64) W\n";
/// More than are handed out at a time.
const BURST: usize = 300;

struct Stage {
    drain: Arc<Shared>,
    driver: UnixStream,
    token: u64,
    subscribers: Subscribers,
    threads: Vec<JoinHandle<()>>,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::TempDir::new().unwrap();
        let nodes = root.path().join("sys/class/kfd/kfd/topology/nodes/1");
        std::fs::create_dir_all(&nodes).unwrap();
        std::fs::write(nodes.join("gpu_id"), "100\n").unwrap();
        std::fs::write(nodes.join("properties"), "location_id 768\n").unwrap();
        let machine = Machine::at(root.path());
        let gpu = machine.gpus().unwrap().remove(0);
        let (driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        let reader =
            EventReader::from_fd(&machine, &gpu, file.into(), VERSION, EventMask::ALL).unwrap();
        let (slow_work, received) = mpsc::channel();
        let drain = Arc::new(Shared::new(Poller::new().unwrap(), slow_work));
        let subscribers = Subscribers::with_mask_of_reader();
        let asked_by = Arc::downgrade(&drain);
        let names = thread::spawn(move || do_slow_work(&asked_by, &received));
        let draining = thread::spawn({
            let drain = Arc::clone(&drain);
            move || {
                drain.work(None, None);
            }
        });
        let source = Source::new(reader, subscribers.clone(), None);
        drain.poller.add(&source, 0).unwrap();
        drain.lock().by_token.insert(0, source);
        Self { drain, driver, token: 0, subscribers, threads: vec![names, draining] }
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        let subscriber = Subscriber::new(filter, DEFAULT_LIMIT);
        self.subscribers.add(Arc::downgrade(&self.drain), Arc::clone(&subscriber));
        Subscription::new(subscriber)
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.driver.write_all(bytes).unwrap();
        self.drain.poller.edge(self.token);
    }

    fn end(self) {
        let Self { drain, subscribers, threads, .. } = self;
        drain.stop();
        subscribers.close();
        drop(drain);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn take(mut items: Subscription, count: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..count {
            assert!(matches!(items.wait(None), Some(Item::Event(_))));
        }
    })
}

fn of(event_type: EventType) -> Filter {
    Filter::new().types([event_type], false)
}

/// A subscriber that wants the last line only, one that wants all, and one that wants what needs a name.
fn everything_arrives(burst: usize) {
    let mut stage = Stage::new();
    let takers = [
        take(stage.subscribe(of(EventType::VmFault)), 1),
        take(stage.subscribe(Filter::new()), burst + 3),
        take(stage.subscribe(of(EventType::PageFaultStart)), 2),
    ];
    stage.emit(FAULT);
    stage.emit(&[&THERMAL.repeat(burst)[..], FAULT, b"1 1234:python3\n"].concat());
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    stage.end();
}

#[test]
fn a_burst_that_is_handed_out_in_pieces_reaches_everybody() {
    shuttle::check_random(|| everything_arrives(BURST), 100);
    shuttle::check_pct(|| everything_arrives(BURST), 100, 3);
}

#[test]
fn single_events_reach_everybody() {
    shuttle::check_random(|| everything_arrives(1), 200);
    shuttle::check_pct(|| everything_arrives(1), 200, 3);
}

#[test]
fn the_end_reaches_everybody_wherever_it_waits() {
    shuttle::check_random(
        || {
            let stage = Stage::new();
            let wait = |mut items: Subscription| {
                thread::spawn(move || assert!(items.wait(None).is_none() && items.is_finished()))
            };
            let waiting = [Filter::new(), of(EventType::VmFault)].map(|f| wait(stage.subscribe(f)));
            stage.end();
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
        },
        200,
    );
}
