//! `close()`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;

use gpuev_sim::{Kernel, SimMachine};
use rustix::event::{PollFlags, epoll};
use rustix::io::Errno;

use crate::client::{
    THERMAL, THERMAL_LINE, drain, machine, open_all, poll_for, read, wait_until_in_poll,
};

fn open_files(machine: &SimMachine) -> usize {
    machine.event_files().iter().filter(|file| !file.closed).count()
}

/// How many sockets this process has that are connected to none any more, or to its own.
fn sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Clients that come and go leave nothing behind, though nothing happens on the GPUs.
#[test]
fn a_close_is_noticed_without_an_event() {
    let machine = machine(Kernel::V7_3);
    let first = open_all(&machine, 0);
    let before = sockets();
    for _ in 0..200 {
        drop((open_all(&machine, 0), open_all(&machine, 1)));
    }
    // Noticed by another thread, or when the next file is opened: no event is raised for it.
    while sockets() > before {
        std::thread::yield_now();
    }
    assert_eq!(open_files(&machine), 1);
    drop(first);
}

/// A thread that sleeps in `poll()` on a number which another thread closes meanwhile.
fn poll_on_number(number: i32, tell: &mpsc::Sender<rustix::thread::Pid>) -> PollFlags {
    tell.send(rustix::thread::gettid()).unwrap();
    // SAFETY: `poll` asks the kernel about the number and uses nothing of ours; that it may be
    // closed is what the test is about.
    poll_for(unsafe { BorrowedFd::borrow_raw(number) }, None)
}

#[test]
fn a_poll_outlives_the_close_and_ends_at_the_next_event_with_nval() {
    let machine = machine(Kernel::V7_3);
    let number = open_all(&machine, 0).into_raw_fd();
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| poll_on_number(number, &tell));
        wait_until_in_poll(hear.recv().unwrap());
        // SAFETY: the number came from `into_raw_fd` and is owned by nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        assert_eq!(open_files(&machine), 1, "the sleeping poll keeps it");
        machine.emit(0, &THERMAL);
        assert_eq!(sleeper.join().unwrap(), PollFlags::NVAL);
    });
    assert_eq!(open_files(&machine), 0);
}

#[test]
fn a_poll_on_a_number_that_was_used_again_reports_on_the_new_file() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let other = open_all(&machine, 1);
    machine.emit(1, &THERMAL);
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let number = file.as_raw_fd();
        let sleeper = scope.spawn({
            let tell = &tell;
            move || poll_on_number(number, tell)
        });
        wait_until_in_poll(hear.recv().unwrap());
        let mut file = file;
        rustix::io::dup2(&other, &mut file).unwrap();
        machine.emit(0, &THERMAL);
        assert!(sleeper.join().unwrap().contains(PollFlags::IN));
        assert_eq!(drain(&file), THERMAL_LINE, "of the other GPU");
    });
}

#[test]
fn a_close_takes_it_out_of_an_epoll_set_and_frees_it() {
    let machine = machine(Kernel::V7_3);
    let (file, other) = (open_all(&machine, 0), open_all(&machine, 1));
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&set, &file, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
    epoll::add(&set, &other, epoll::EventData::new_u64(2), epoll::EventFlags::IN).unwrap();
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            tell.send(rustix::thread::gettid()).unwrap();
            let mut ready = Vec::with_capacity(4);
            epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
            ready.iter().map(|event: &epoll::Event| event.data.u64()).collect::<Vec<_>>()
        });
        wait_until_in_poll(hear.recv().unwrap());
        drop(file);
        assert_eq!(open_files(&machine), 1, "freed at once");
        machine.emit(0, &THERMAL);
        machine.emit(1, &THERMAL);
        assert_eq!(sleeper.join().unwrap(), [2], "and it woke for the other only");
    });
}

#[test]
fn a_duplicate_keeps_file_and_queue() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    let duplicate = file.try_clone().unwrap();
    drop(file);
    assert_eq!(open_files(&machine), 1);
    machine.emit(0, &THERMAL);
    assert_eq!(drain(&duplicate), THERMAL_LINE.repeat(2));
    drop(duplicate);
    let stats = machine.event_files()[0];
    assert!(stats.closed);
    assert_eq!((stats.accepted_lines, stats.mask), (2, u64::MAX));
}

#[test]
fn a_killed_process_takes_its_file_along() {
    let machine = machine(Kernel::V7_3);
    // It has no FD_CLOEXEC: the child inherits it.
    let file = open_all(&machine, 0);
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    drop(file);
    assert_eq!(open_files(&machine), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(open_files(&machine), 0);
}

/// Does `work` while another thread emits as fast as it can.
fn under_events(machine: &SimMachine, work: impl FnOnce()) {
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                machine.emit(0, &THERMAL);
            }
        });
        work();
        drop(stop);
    });
}

#[test]
fn open_and_close_under_events_leave_nothing_behind() {
    let machine = machine(Kernel::V7_3);
    under_events(&machine, || {
        for _ in 0..300 {
            let file = open_all(&machine, 0);
            assert!(poll_for(&file, None).contains(PollFlags::IN));
            assert!(read(&file, 8192).unwrap().starts_with(b"2 400:7\n"));
        }
    });
    assert_eq!(open_files(&machine), 0);
    assert_eq!(machine.event_files().len(), 300);
}

/// Section 9 of the measurements: open, poll and read in a thread, close at the same time, again and again.
#[test]
fn a_close_during_poll_and_read_breaks_nothing() {
    let machine = machine(Kernel::V7_3);
    under_events(&machine, || {
        for _ in 0..300 {
            let number = open_all(&machine, 0).into_raw_fd();
            let (tell, hear) = mpsc::channel();
            let reader = std::thread::spawn(move || {
                let ready = poll_on_number(number, &tell);
                // SAFETY: as in `poll_on_number`.
                let file = unsafe { BorrowedFd::borrow_raw(number) };
                (ready, rustix::io::read(file, &mut [0; 8192]))
            });
            hear.recv().unwrap();
            // SAFETY: the number came from `into_raw_fd` and is owned by nobody else.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            let (ready, read) = reader.join().unwrap();
            assert!(ready.intersects(PollFlags::IN | PollFlags::NVAL), "{ready:?}");
            assert!(matches!(read, Ok(8..) | Err(Errno::BADF | Errno::AGAIN)), "{read:?}");
        }
    });
    assert_eq!(open_files(&machine), 0);
}
