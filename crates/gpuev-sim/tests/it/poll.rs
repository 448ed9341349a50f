//! `poll`, `select`, `epoll`.

use std::sync::Barrier;
use std::sync::mpsc;

use gpuev_sim::{Client, DriverEvent, Kernel};
use rustix::event::{PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::client::{
    THERMAL, drain, machine, open, open_all, poll_for, read, state, wait_until_in_poll,
};

const IN: PollFlags = PollFlags::IN.union(PollFlags::RDNORM);

#[test]
fn a_file_is_readable_while_even_one_byte_is_left() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    assert_eq!(state(&file), PollFlags::empty());
    machine.emit(0, &THERMAL);
    assert_eq!(state(&file), IN);
    read(&file, 7).unwrap();
    assert_eq!(state(&file), IN);
    read(&file, 1).unwrap();
    assert_eq!(state(&file), PollFlags::empty());
}

/// Runs `wake` while a thread sleeps in `poll()` on the file; whether it has woken by then is
/// seen from what comes first.
#[test]
fn a_sleeper_is_woken_by_what_its_file_lets_through_and_by_nothing_else() {
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::unprivileged(77), 0b11 | 1 << 6);
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            tell.send(rustix::thread::gettid()).unwrap();
            poll_for(&file, None);
            drain(&file)
        });
        wait_until_in_poll(hear.recv().unwrap());
        let fault =
            |pid: u32| DriverEvent::PageFaultStart { pid: pid.into(), page: 1, write: true };
        machine.emit(1, &THERMAL);
        machine.emit(0, &fault(78));
        machine.emit(0, &DriverEvent::PreReset { sequence: 1, cause: None });
        machine.emit(0, &fault(77));
        let text = sleeper.join().unwrap();
        assert!(text.starts_with("7 ") && text.contains(" -77 "), "{text}");
    });
}

#[test]
fn of_two_sleepers_both_wake_and_one_reads() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let both = Barrier::new(2);
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let sleep = || {
            tell.send(rustix::thread::gettid()).unwrap();
            assert_eq!(poll_for(&file, None), IN);
            both.wait();
            read(&file, 100)
        };
        let sleepers = [scope.spawn(sleep), scope.spawn(sleep)];
        for _ in &sleepers {
            wait_until_in_poll(hear.recv().unwrap());
        }
        machine.emit(0, &THERMAL);
        let reads = sleepers.map(|sleeper| sleeper.join().unwrap());
        assert_eq!(reads.iter().filter(|read| **read == Err(Errno::AGAIN)).count(), 1);
        assert_eq!(reads.iter().filter(|read| read.is_ok()).count(), 1);
    });
}

#[test]
fn each_accepted_event_is_a_new_edge_and_a_partial_read_is_none() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&set, &file, epoll::EventData::new_u64(1), edge).unwrap();
    let edges = || {
        let mut ready = Vec::with_capacity(4);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), Some(&now)).unwrap()
    };
    assert_eq!(edges(), 0);
    machine.emit(0, &THERMAL);
    assert_eq!((edges(), edges()), (1, 0));
    machine.emit(0, &THERMAL);
    assert_eq!((edges(), edges()), (1, 0), "with the older one unread");
    read(&file, 3).unwrap();
    assert_eq!(edges(), 0, "a partial read");
    machine.emit(0, &THERMAL);
    assert_eq!(edges(), 1);
}

#[test]
fn level_epoll_is_as_poll() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&set, &file, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
    let ready = || {
        let mut ready = Vec::with_capacity(4);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), Some(&now)).unwrap()
    };
    machine.emit(0, &THERMAL);
    assert_eq!((ready(), ready()), (1, 1));
    read(&file, 7).unwrap();
    assert_eq!(ready(), 1);
    read(&file, 1).unwrap();
    assert_eq!(ready(), 0);
}
