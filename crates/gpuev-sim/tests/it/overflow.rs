//! What happens when the FIFO is full.

use std::sync::atomic::{AtomicBool, Ordering};

use gpuev_sim::{DriverEvent, Kernel};
use rustix::event::epoll;

use crate::client::{KERNELS, THERMAL, THERMAL_LINE, drain, machine, open_all, read};

#[test]
fn every_byte_of_the_fifo_is_usable() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let fit = kernel.fifo_bytes() / THERMAL_LINE.len();
        machine.emit_batch(0, &vec![THERMAL; fit + 1]);
        assert_eq!(machine.held_bytes(0), kernel.fifo_bytes());
        let stats = machine.event_files()[0];
        assert_eq!((stats.accepted_lines, stats.dropped_lines), (fit as u64, 1));
        assert_eq!(drain(&file), THERMAL_LINE.repeat(fit));
    }
}

#[test]
fn an_event_fits_whole_or_is_dropped() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit_batch(0, &vec![THERMAL; 2000]);
        read(&file, 7).unwrap();
        machine.emit(0, &THERMAL);
        assert_eq!(machine.held_bytes(0), kernel.fifo_bytes() - 7, "7 bytes are too few");
        read(&file, 1).unwrap();
        machine.emit(0, &THERMAL);
        assert_eq!(machine.held_bytes(0), kernel.fifo_bytes(), "8 bytes are enough");
    }
}

#[test]
fn a_shorter_event_may_still_fit_after_a_longer_one_was_dropped() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let long = DriverEvent::PageFaultStart { pid: 9.into(), page: 0x7_f000_0000, write: true };
        machine.emit_batch(0, &vec![long; 3000]);
        let free = kernel.fifo_bytes() - machine.held_bytes(0);
        machine.emit_raw(0, 2, None, &b"\n".repeat(free));
        assert_eq!(machine.held_bytes(0), kernel.fifo_bytes());
        read(&file, 20).unwrap();
        machine.emit(0, &THERMAL);
        machine.emit(0, &long);
        machine.emit(0, &THERMAL);
        let rest = drain(&file);
        assert!(rest.ends_with("\n2 400:7\n2 400:7\n"), "{rest}");
    }
}

#[test]
fn after_draining_events_go_on() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        for _ in 0..3 {
            machine.emit_batch(0, &vec![THERMAL; 3000]);
            assert_eq!(drain(&file).len(), kernel.fifo_bytes());
        }
        assert_eq!(machine.event_files()[0].accepted_bytes, 3 * kernel.fifo_bytes() as u64);
    }
}

#[test]
fn the_oldest_stay_and_there_is_no_marker() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let events: Vec<DriverEvent> =
            (0..3000).map(|count| DriverEvent::Thermal { throttlers: 1, count }).collect();
        machine.emit_batch(0, &events);
        let text = drain(&file);
        assert_eq!(text.len() as u64, machine.event_files()[0].accepted_bytes);
        for (count, line) in text.lines().enumerate().take(100) {
            assert_eq!(line, format!("2 1:{count:x}"));
        }
    }
}

#[test]
fn a_full_file_does_not_touch_the_others() {
    let machine = machine(Kernel::V6_1);
    let (full, empty) = (open_all(&machine, 0), open_all(&machine, 0));
    for _ in 0..300 {
        machine.emit(0, &THERMAL);
        assert_eq!(read(&empty, 100).unwrap(), THERMAL_LINE.as_bytes());
    }
    let [first, second] = machine.event_files()[..] else { panic!("two files") };
    assert_eq!((first.accepted_lines, first.dropped_lines), (128, 172));
    assert_eq!((second.accepted_lines, second.dropped_lines), (300, 0));
    assert_eq!(drain(&full), THERMAL_LINE.repeat(128));
}

#[test]
fn a_dropped_event_wakes_nobody() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&edges, &file, epoll::EventData::new_u64(1), edge).unwrap();
        machine.emit_batch(0, &vec![THERMAL; kernel.fifo_bytes() / 8]);
        let mut ready = Vec::with_capacity(4);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut edges_seen = || {
            ready.clear();
            epoll::wait(&edges, rustix::buffer::spare_capacity(&mut ready), Some(&now)).unwrap()
        };
        assert_eq!(edges_seen(), 1);
        machine.emit(0, &THERMAL);
        assert_eq!(machine.event_files()[0].dropped_lines, 1);
        assert_eq!(edges_seen(), 0);
    }
}

/// Whoever reads with a buffer as large as the FIFO can tell that something may be lost: a hole is
/// always right after what a nearly full read brought. No read brings more than the FIFO holds.
#[test]
fn a_reader_can_infer_every_drop() {
    const LONGEST: usize = 103;
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let done = AtomicBool::new(false);
        let mut reads: Vec<Vec<u8>> = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut count = 0;
                while count < 60_000 {
                    // As many at a time as there are digits' ends: from 1 to 200.
                    let together = 1 + count * 7 % 200;
                    let events: Vec<DriverEvent> = (count..count + together)
                        .map(|count| DriverEvent::Thermal { throttlers: count % 5, count })
                        .collect();
                    machine.emit_batch(0, &events);
                    count += together;
                }
                done.store(true, Ordering::Release);
            });
            let mut over = false;
            while !over {
                over = done.load(Ordering::Acquire);
                while let Ok(bytes) = read(&file, 1 << 16) {
                    reads.push(bytes);
                }
            }
        });
        let mut next = 0;
        let mut full = false;
        let mut holes = 0;
        for bytes in &reads {
            assert!(bytes.len() <= kernel.fifo_bytes(), "{kernel}: a read of {}", bytes.len());
            let text = std::str::from_utf8(bytes).unwrap();
            let nearly = bytes.len() > kernel.fifo_bytes() - LONGEST;
            for line in text.lines() {
                let count = line.rsplit(':').next().unwrap();
                let count = u64::from_str_radix(count, 16).unwrap();
                assert!(count == next || full || nearly, "{kernel}: {next} to {count}");
                holes += u64::from(count != next);
                next = count + 1;
            }
            full = nearly;
        }
        let stats = machine.event_files()[0];
        let lines: usize = reads.iter().map(|bytes| bytes.split(|b| *b == b'\n').count() - 1).sum();
        assert_eq!(stats.accepted_lines, lines as u64);
        assert!(stats.dropped_lines == 0 || holes > 0 || full);
    }
}

/// AMD's own driver, after a drop: nothing is taken until a read, then a line tells how many.
#[test]
fn amd_s_own_driver_tells_how_many_were_dropped() {
    let machine = machine(Kernel::Dkms);
    let file = open_all(&machine, 0);
    machine.emit_batch(0, &vec![THERMAL; 1030]);
    machine.emit(0, &THERMAL);
    assert_eq!(machine.event_files()[0].dropped_lines, 7);
    read(&file, 4096).unwrap();
    machine.emit(0, &THERMAL);
    let text = drain(&file);
    let told = text.lines().find(|line| line.starts_with("e ")).unwrap();
    assert!(told.ends_with(&format!(" -{} 7", std::process::id())), "{told}");
    assert!(text.ends_with(&format!("{told}\n{THERMAL_LINE}")));
    let stats = machine.event_files()[0];
    assert_eq!((stats.drop_reports, stats.dropped_lines), (1, 7));
}
