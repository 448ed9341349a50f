//! What the lines hold, beyond the captures.

use gpuev_sim::{
    Client, Comm, DriverEvent, Kernel, LOCATION_UNDEFINED, Pid, ResetCause, Scenario, SimMachine,
    Story, boot_ns,
};

use crate::client::{KERNELS, drain, machine, open, open_all, read};

fn written(kernel: Kernel, event: &DriverEvent) -> String {
    let machine = machine(kernel);
    let file = open_all(&machine, 0);
    machine.emit(0, event);
    drain(&file)
}

/// A line with a stamp, without it.
fn body(line: &str) -> String {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    assert!(words[1].parse::<u64>().is_ok(), "{line}");
    format!("{} NS {}", words[0], words[2])
}

#[test]
fn stamps_are_nanoseconds_of_the_boot_clock() {
    for kernel in KERNELS {
        let before = boot_ns();
        let line = written(kernel, &DriverEvent::QueueEviction { pid: 9.into(), trigger: 2 });
        let ns: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((before..=boot_ns()).contains(&ns));
    }
}

#[test]
fn a_process_starts_and_ends_from_7_2_on() {
    let start = DriverEvent::ProcessStart { pid: 0x1234.into(), comm: "python3".into() };
    let end = DriverEvent::ProcessEnd { pid: 0x1234.into(), comm: "python3".into() };
    for kernel in [Kernel::V6_1, Kernel::V6_12] {
        assert_eq!(written(kernel, &start) + &written(kernel, &end), "");
    }
    for kernel in [Kernel::V7_2, Kernel::V7_3] {
        assert_eq!(written(kernel, &start), "c 1234 python3\n");
        assert_eq!(written(kernel, &end), "d 1234 python3\n");
    }
}

#[test]
fn a_violation_without_a_process_is_not_told() {
    for kernel in KERNELS {
        let event = DriverEvent::VmFault { pid: 0.into(), comm: "x".into() };
        assert_eq!(written(kernel, &event), "");
    }
}

#[test]
fn no_process_is_written_as_0() {
    for kernel in KERNELS {
        let event = DriverEvent::PageFaultStart { pid: 0.into(), page: 0x10, write: true };
        assert_eq!(body(&written(kernel, &event)), "7 NS -0 @10(5a21) W\n");
    }
}

#[test]
fn a_line_ends_with_a_newline_and_nothing_else() {
    for kernel in KERNELS {
        let machine = SimMachine::builder().gpus(2).kernel(kernel).build().unwrap();
        let files = [open_all(&machine, 0), open_all(&machine, 1)];
        for one in Scenario::new(Story::Mixed).count(100).events(2) {
            machine.emit(one.gpu, &one.event);
            let line = read(&files[one.gpu], 8192).unwrap_or_default();
            assert!(line.is_empty() || line.ends_with(b"\n"));
            assert!(!line.contains(&0) && line.iter().filter(|byte| **byte == b'\n').count() <= 1);
            assert!(line.is_empty() || (4..=95).contains(&line.len()));
        }
    }
}

#[test]
fn names_are_at_most_15_bytes_of_any_value() {
    let name: Vec<u8> = (1..=40).collect();
    let comm = Comm::new(&name);
    assert_eq!(comm.as_bytes(), &name[..15]);
    assert_eq!(Comm::new(b"a\0b").as_bytes(), b"a");
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit(0, &DriverEvent::VmFault { pid: 0x1234.into(), comm });
        assert_eq!(read(&file, 100).unwrap(), [b"1 1234:", &name[..15], b"\n"].concat());
    }
}

/// A name may forge an event.
#[test]
fn a_newline_in_a_name_looks_like_a_second_line() {
    let forged = DriverEvent::VmFault { pid: 0x1234.into(), comm: "a\n3 1 HWS".into() };
    for kernel in KERNELS {
        assert_eq!(written(kernel, &forged), "1 1234:a\n3 1 HWS\n");
    }
}

#[test]
fn resets_name_their_cause_from_6_12_on() {
    let with = DriverEvent::PreReset { sequence: 0x1f, cause: Some(ResetCause::HwsHang) };
    let post = DriverEvent::PostReset { sequence: 0x1f, cause: None };
    assert_eq!(written(Kernel::V6_1, &with), "3 1f\n");
    assert_eq!(written(Kernel::V6_1, &post), "4 1f\n");
    for kernel in [Kernel::V6_12, Kernel::V7_2, Kernel::V7_3] {
        assert_eq!(written(kernel, &with), "3 1f HWS hang\n");
        assert_eq!(written(kernel, &post), "4 1f \n");
    }
}

#[test]
fn a_plain_restore_ends_in_nothing_nul_or_0() {
    let plain = DriverEvent::QueueRestore { pid: 77.into(), rescheduled: false };
    let again = DriverEvent::QueueRestore { pid: 77.into(), rescheduled: true };
    assert_eq!(body(&written(Kernel::V6_1, &plain)), "a NS -77 5a21\n");
    assert_eq!(body(&written(Kernel::V6_12Nul, &plain)), "a NS -77 5a21 \0\n");
    for kernel in [Kernel::V6_12, Kernel::V7_2, Kernel::V7_3, Kernel::Dkms] {
        assert_eq!(body(&written(kernel, &plain)), "a NS -77 5a21 0\n");
        assert_eq!(body(&written(kernel, &again)), "a NS -77 5a21 R\n");
    }
}

#[test]
fn an_ended_migration_has_an_error_code_from_7_2_on() {
    let end = DriverEvent::MigrateEnd {
        pid: 77.into(),
        page: 0x7_f000_0000,
        pages: 0x200,
        from: 0x5a21,
        to: 0,
        trigger: 2,
        error: -12,
    };
    for (kernel, tail) in [(Kernel::V6_12, "2\n"), (Kernel::V7_2, "2 -12\n")] {
        let line = body(&written(kernel, &end));
        assert_eq!(line, format!("6 NS -77 @7f0000000(200) 5a21->0 {tail}"));
    }
}

#[test]
fn processes_of_a_container_have_their_own_number_from_7_2_on() {
    let start = DriverEvent::MigrateStart {
        pid: Pid::in_namespace(166, 1),
        page: 0x10,
        pages: 1,
        from: 0,
        to: 0x5a21,
        prefetch: LOCATION_UNDEFINED,
        preferred: 0x5a21,
        trigger: 0,
    };
    for (kernel, pid) in
        [(Kernel::V6_1, 166), (Kernel::V6_12, 166), (Kernel::V7_2, 1), (Kernel::V7_3, 1)]
    {
        let line = body(&written(kernel, &start));
        assert_eq!(line, format!("5 NS -{pid} @10(1) 0->5a21 ffffffff:5a21 0\n"));
    }
}

#[test]
fn the_oldest_driver_has_four_events() {
    let kernel = Kernel::Oldest;
    let reset = DriverEvent::PreReset { sequence: 1, cause: Some(ResetCause::JobHang) };
    assert_eq!(written(kernel, &reset), "3 1\n");
    let hot = DriverEvent::Thermal { throttlers: 0x1_0000_0400, count: 7 };
    assert_eq!(written(kernel, &hot), "2 400:7\n", "32 bits");
    let fault = DriverEvent::PageFaultStart { pid: 9.into(), page: 1, write: true };
    assert_eq!(written(kernel, &fault), "");
}

/// Sensors are those of the physical GPU.
#[test]
fn throttling_is_told_on_the_first_partition_only() {
    let machine = SimMachine::builder().partitions(4).build().unwrap();
    let files: Vec<_> = (0..4).map(|gpu| open(&machine, gpu, &Client::root(), 0b10)).collect();
    let story = Scenario::new(Story::Thermal).rate(100_000).count(100);
    assert!(machine.play(story).unwrap().join().count(0, 2) > 0);
    assert!(drain(&files[0]).starts_with("2 "));
    assert!(files[1..].iter().all(|file| drain(file).is_empty()));
}
