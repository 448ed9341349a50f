//! Several files.

use gpuev_sim::{Client, DriverEvent, Kernel};
use rustix::io::Errno;

use crate::client::{KERNELS, THERMAL, THERMAL_LINE, drain, machine, open, open_all, read};

#[test]
fn each_file_has_a_mask_and_a_fifo_of_its_own() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let masks = [0b10, 1 << 6, u64::MAX];
        let files = masks.map(|mask| open(&machine, 0, &Client::root(), mask));
        let fault = DriverEvent::PageFaultStart { pid: 0.into(), page: 1, write: true };
        machine.emit(0, &THERMAL);
        machine.emit(0, &fault);
        let texts = files.each_ref().map(drain);
        assert_eq!(texts[0], THERMAL_LINE);
        assert!(texts[1].starts_with("7 ") && texts[1].lines().count() == 1);
        assert_eq!(texts[2], format!("{THERMAL_LINE}{}", texts[1]));
    }
}

#[test]
fn an_event_reaches_the_files_of_its_gpu_only() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let files = [0, 1].map(|gpu| open_all(&machine, gpu));
        machine.emit(1, &THERMAL);
        assert_eq!(files.each_ref().map(drain), ["", THERMAL_LINE]);
    }
}

#[test]
fn an_unknown_id_is_einval() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        for id in [0, 1, u32::MAX] {
            let error = machine.open_events(id, &Client::root()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
        }
    }
}

#[test]
fn two_writers_break_no_line() {
    for kernel in [Kernel::V6_1, Kernel::V7_3] {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        let fault = DriverEvent::PageFaultStart { pid: 9.into(), page: 0xabc, write: true };
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            let write = || (0..5_000).for_each(|_| machine.emit(0, &fault));
            let writers = [scope.spawn(write), scope.spawn(write)];
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                all.extend(read(&file, 8192).unwrap_or_default());
            }
        });
        all.extend(read(&file, 8192).unwrap_or_default());
        let text = String::from_utf8(all).unwrap();
        assert!(
            text.lines().all(|line| line.starts_with("7 ") && line.ends_with(" -9 @abc(5a21) W"))
        );
        let stats = machine.event_files()[0];
        assert_eq!(text.lines().count() as u64, stats.accepted_lines);
        assert_eq!(stats.accepted_lines + stats.dropped_lines, 10_000);
    }
}

/// The driver takes the time before it takes the lock: with two CPUs lines may swap.
#[test]
fn a_line_may_be_older_than_the_one_before_it() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let event = DriverEvent::QueueEviction { pid: 9.into(), trigger: 0 };
    machine.emit_batch_at(0, [(2_000, &event), (1_000, &event)]);
    assert_eq!(drain(&file), "9 2000 -9 5a21 0\n9 1000 -9 5a21 0\n");
}
