//! The driver's rules for event files: a test per statement that was measured on the genuine one.

use gpuev_sim::{Client, DriverEvent, Kernel, SimMachine};
use rustix::io::Errno;

use crate::client::{drain, open, read, readable, set_mask};

const KERNELS: [Kernel; 4] = [Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3];
const THERMAL: DriverEvent = DriverEvent::Thermal { throttlers: 0x400, count: 7 };
/// `2 1:7\n` and the like: 8 bytes.
const SHORT: &[u8] = b"2 400:7\n";

fn machine(kernel: Kernel) -> SimMachine {
    SimMachine::builder().gpus(2).kernel(kernel).build().unwrap()
}

#[test]
fn an_empty_file_gives_eagain() {
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    assert_eq!(read(&file, 8192), Err(Errno::AGAIN));
}

#[test]
fn bytes_come_in_order_cut_anywhere() {
    for size in [1, 3, 8, 16, 64, 100, 1000] {
        let machine = machine(Kernel::V7_3);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        for _ in 0..10 {
            machine.emit(0, &THERMAL);
        }
        let mut all = Vec::new();
        while let Ok(bytes) = read(&file, size) {
            assert!(bytes.len() == size || all.len() + bytes.len() == 80);
            all.extend(bytes);
        }
        assert_eq!(all, SHORT.repeat(10), "reads of {size}");
    }
}

#[test]
fn one_read_takes_all_that_is_held() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        let events = vec![THERMAL; 3000];
        machine.emit_batch(0, &events);
        assert_eq!(read(&file, 1 << 16).unwrap().len(), kernel.fifo_bytes());
        assert_eq!(read(&file, 1 << 16), Err(Errno::AGAIN));
    }
}

#[test]
fn the_mask_is_0_after_open() {
    let machine = machine(Kernel::V7_3);
    let id = machine.kfd_gpu_id(0).unwrap();
    let file = machine.open_events(id, &Client::root()).unwrap();
    machine.emit(0, &THERMAL);
    assert!(!readable(&file));
}

#[test]
fn bit_63_alone_lets_nothing_through() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), 1 << 63);
        machine.emit(0, &THERMAL);
        assert!(!readable(&file));
    }
}

#[test]
fn a_new_mask_acts_at_once_and_does_not_flush() {
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    machine.emit(0, &THERMAL);
    set_mask(&file, 0);
    machine.emit(0, &THERMAL);
    assert!(readable(&file));
    assert_eq!(drain(&file), "2 400:7\n");
}

#[test]
fn every_byte_of_the_fifo_is_usable() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        let fit = kernel.fifo_bytes() / SHORT.len();
        machine.emit_batch(0, &vec![THERMAL; fit + 1]);
        assert_eq!(machine.held_bytes(0), kernel.fifo_bytes());
        let stats = machine.event_files()[0];
        assert_eq!((stats.accepted_lines, stats.dropped_lines), (fit as u64, 1));
        assert_eq!(drain(&file), "2 400:7\n".repeat(fit));
    }
}

#[test]
fn an_event_fits_whole_or_is_dropped() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
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
        let file = open(&machine, 0, &Client::root(), u64::MAX);
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
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        for _ in 0..3 {
            machine.emit_batch(0, &vec![THERMAL; 3000]);
            assert_eq!(drain(&file).len(), kernel.fifo_bytes());
        }
        assert_eq!(machine.event_files()[0].accepted_bytes, 3 * kernel.fifo_bytes() as u64);
    }
}

#[test]
fn a_closed_file_is_noticed() {
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let duplicate = file.try_clone().unwrap();
    machine.emit(0, &THERMAL);
    drop(file);
    assert!(!machine.event_files()[0].closed, "a duplicate keeps it");
    drop(duplicate);
    let stats = machine.event_files()[0];
    assert!(stats.closed);
    assert_eq!((stats.accepted_lines, stats.mask), (1, u64::MAX));
}

#[test]
fn an_unknown_id_is_einval() {
    let machine = machine(Kernel::V7_3);
    let error = machine.open_events(1, &Client::root()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
}
