//! Waiting, draining inline, and what is unfinished, over many interleavings of threads: whatever the driver queued
//! reaches every subscriber that wants it, and nobody sleeps for ever (`shuttle` reports a deadlock).
//!
//! The event file is a socket, the poller a model ([`poller_model`](super::poller)), and a storm begins and ends at
//! random (`crate::pace`). A turn hands out two events, so that a burst of a few lines is unfinished after it.

#![cfg(all(test, gpuev_shuttle))]
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuev_kfd::KfdVersion;
use rustix::io::Errno;
use shuttle::thread;
use tempfile::TempDir;

use super::*;
use crate::seam::{Moment, Standing};
use crate::{DEFAULT_LIMIT, EventType, Filter, Gpu, Item, Machine, Subscription};

const VERSION: KfdVersion = KfdVersion { major: 1, minor: 23 };
const THERMAL: &[u8] = b"2 400:7\n";
const FAULT: &[u8] = b"1 1234:python3\n";
/// Its process must be looked up.
const PAGE_FAULT: &[u8] = b"7 1 -4242 @7fff00000(64) W\n";
/// Schedules of each kind for each test.
const SCHEDULES: usize = 2_000;

/// A machine with one GPU. It stays the same over all schedules.
struct World {
    _root: TempDir,
    machine: Machine,
    gpu: Gpu,
}

/// One draining thread, one for names, and the driver's end of an event file.
struct Stage {
    drain: Arc<Shared>,
    driver: UnixStream,
    token: u64,
    subscribers: Subscribers,
    threads: Vec<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let nodes = root.path().join("sys/class/kfd/kfd/topology/nodes/1");
        std::fs::create_dir_all(&nodes).unwrap();
        std::fs::write(nodes.join("gpu_id"), "100\n").unwrap();
        std::fs::write(nodes.join("properties"), "location_id 768\n").unwrap();
        let machine = Machine::at(root.path());
        let gpu = machine.gpus().unwrap().remove(0);
        Self { _root: root, machine, gpu }
    }

    fn stage(&self) -> Stage {
        let (driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        let (machine, gpu) = (&self.machine, &self.gpu);
        let reader =
            EventReader::from_fd(machine, gpu, file.into(), VERSION, EventMask::ALL).unwrap();
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
        Stage { drain, driver, token: 0, subscribers, threads: vec![names, draining] }
    }
}

impl Stage {
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

/// Orders of threads at random, and orders in which a thread that could go on does not for long.
fn in_any_order(test: impl Fn(&World) + Send + Sync + Copy + 'static) {
    let world = Arc::new(World::new());
    let run = move || test(&world);
    shuttle::check_random(run.clone(), SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

/// Waits for so many events, and for nothing more.
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

fn all_join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_burst_that_is_handed_out_in_pieces_reaches_everybody() {
    in_any_order(|world| {
        let mut stage = world.stage();
        // Whichever drains wants none of the first pieces, or all.
        let takers = [(of(EventType::VmFault), 1), (Filter::new(), 6)]
            .map(|(filter, count)| take(stage.subscribe(filter), count));
        stage.emit(&[&THERMAL.repeat(5)[..], FAULT].concat());
        all_join(takers);
        stage.end();
    });
}

#[test]
fn the_end_of_a_burst_reaches_the_only_subscriber() {
    in_any_order(|world| {
        let mut stage = world.stage();
        let taker = take(stage.subscribe(of(EventType::VmFault)), 2);
        stage.emit(&[&THERMAL.repeat(4)[..], FAULT].concat());
        stage.emit(&[&THERMAL.repeat(4)[..], FAULT].concat());
        all_join([taker]);
        stage.end();
    });
}

#[test]
fn what_waits_behind_a_name_reaches_everybody() {
    in_any_order(|world| {
        let mut stage = world.stage();
        let filters = [
            (of(EventType::PageFaultStart), 2),
            (of(EventType::VmFault), 1),
            (of(EventType::ThermalThrottle), 3),
        ];
        let takers = filters.map(|(filter, count)| take(stage.subscribe(filter), count));
        stage.emit(PAGE_FAULT);
        stage.emit(&[&THERMAL.repeat(3)[..], PAGE_FAULT, FAULT].concat());
        all_join(takers);
        stage.end();
    });
}

#[test]
fn a_subscriber_that_does_not_wait_leaves_nothing_behind() {
    in_any_order(|world| {
        let mut stage = world.stage();
        // It takes one event and is busy from then on.
        let first = stage.subscribe(Filter::new());
        let busy = take(first, 1);
        let waiting = take(stage.subscribe(Filter::new()), 5);
        stage.emit(&THERMAL.repeat(5));
        all_join([busy, waiting]);
        stage.end();
    });
}

#[test]
fn a_read_that_fails_for_a_moment_is_tried_again_by_whoever_is_left() {
    in_any_order(|world| {
        let failures = AtomicUsize::new(0);
        let own = std::thread::current().id();
        let _still = Standing::still(move |moment| {
            // Other tests of this process read, too.
            let fails = moment == Moment::BeforeRead
                && std::thread::current().id() == own
                && failures.fetch_add(1, Ordering::Relaxed) % 3 == 1;
            if fails { Err(Errno::NOMEM.into()) } else { Ok(()) }
        });
        let mut stage = world.stage();
        let takers =
            [1, 2].map(|count| take(stage.subscribe(of(EventType::ThermalThrottle)), count));
        stage.emit(THERMAL);
        stage.emit(THERMAL);
        all_join(takers);
        stage.end();
    });
}

#[test]
fn the_end_reaches_everybody_wherever_it_waits() {
    in_any_order(|world| {
        let stage = world.stage();
        let wait = |mut items: Subscription| {
            thread::spawn(move || assert!(items.wait(None).is_none() && items.is_finished()))
        };
        let waiting = [Filter::new(), of(EventType::VmFault)].map(|f| wait(stage.subscribe(f)));
        stage.end();
        all_join(waiting);
    });
}
