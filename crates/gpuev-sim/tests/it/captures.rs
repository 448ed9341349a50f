//! The same event with the same values gives the same bytes as the genuine driver's.

use std::path::{Path, PathBuf};

use gpuev_sim::{
    Client, Comm, DriverEvent, Kernel, LOCATION_UNDEFINED, Pid, ResetCause, SimMachine,
};

use crate::client::{open, read};

const GPU: u32 = 0x5a21;
const PAGE: u64 = 0x7_f000_0000;
const PAGES: u64 = 0x200;
const KERNELS: [(&str, Kernel); 4] = [
    ("6.1.176", Kernel::V6_1),
    ("6.12.95", Kernel::V6_12),
    ("7.2.13", Kernel::V7_2),
    ("7.3.4", Kernel::V7_3),
];

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures").join(version)
}

/// The event behind a capture, by the file's name; `pid` is that of the recording.
fn event(name: &str, pid: Pid) -> DriverEvent {
    let fault = |comm: &[u8]| DriverEvent::VmFault { pid: 0x1234.into(), comm: Comm::new(comm) };
    let pre = |sequence, cause| DriverEvent::PreReset { sequence, cause };
    let start = |trigger| DriverEvent::MigrateStart {
        pid,
        page: PAGE,
        pages: PAGES,
        from: 0,
        to: GPU,
        prefetch: LOCATION_UNDEFINED,
        preferred: LOCATION_UNDEFINED,
        trigger,
    };
    let number = name.bytes().last().map_or(0, |digit| i32::from(digit) - i32::from(b'0'));
    match name {
        "01_vmfault" => fault(b"python3"),
        "01_vmfault_15chars" => fault(b"abcdefghijklmnopqrstu"),
        "01_vmfault_newline" => fault(b"a\nb"),
        "01_vmfault_no_name" => fault(b""),
        "01_vmfault_not_utf8" => fault(b"\xff\xfe\x01"),
        "01_vmfault_space_colon" => fault(b"a b:c"),
        "02_thermal" => DriverEvent::Thermal { throttlers: 0x400, count: 7 },
        "02_thermal_wide" => {
            DriverEvent::Thermal { throttlers: u64::MAX, count: 0x1234_5678_9abc_def0 }
        }
        "02_thermal_zero" => DriverEvent::Thermal { throttlers: 0, count: 0 },
        "03_pre_reset_none" => pre(1, None),
        "03_pre_reset_unknown" => pre(2, Some(ResetCause::Unknown)),
        "03_pre_reset_job" => pre(3, Some(ResetCause::JobHang)),
        "03_pre_reset_ring_gfx_0.0.0" => {
            pre(4, Some(ResetCause::JobHangOnRing("gfx_0.0.0".into())))
        }
        "03_pre_reset_ras" => pre(5, Some(ResetCause::RasError)),
        "03_pre_reset_mes" => pre(6, Some(ResetCause::MesHang)),
        "03_pre_reset_hws" => pre(7, Some(ResetCause::HwsHang)),
        "03_pre_reset_user" => pre(8, Some(ResetCause::UserTrigger)),
        "03_pre_reset_userq" => pre(9, Some(ResetCause::UserQueueTrigger)),
        "04_post_reset_none" => DriverEvent::PostReset { sequence: 0, cause: None },
        "04_post_reset_job" => DriverEvent::PostReset {
            sequence: 0,
            cause: Some(ResetCause::JobHangOnRing("gfx_0.0.0".into())),
        },
        "05_migrate_start_overlong" => DriverEvent::MigrateStart {
            pid,
            page: u64::MAX,
            pages: 0x7fff_ffff_ffff_ffff,
            from: u32::MAX,
            to: u32::MAX,
            prefetch: u32::MAX,
            preferred: u32::MAX,
            trigger: i32::MAX,
        },
        name if name.starts_with("05_migrate_start_t") => start(number),
        "06_migrate_end" => DriverEvent::MigrateEnd {
            pid,
            page: PAGE,
            pages: PAGES,
            from: 0,
            to: GPU,
            trigger: 1,
            error: 0,
        },
        "06_migrate_end_error" => DriverEvent::MigrateEnd {
            pid,
            page: PAGE,
            pages: PAGES,
            from: GPU,
            to: 0,
            trigger: 2,
            error: -12,
        },
        "07_pf_start_read" => DriverEvent::PageFaultStart { pid, page: PAGE, write: false },
        name if name.starts_with("07_pf_start") || name.starts_with("overflow") => {
            DriverEvent::PageFaultStart { pid, page: PAGE, write: true }
        }
        "08_pf_end_migrated" => DriverEvent::PageFaultEnd { pid, page: PAGE, migrated: true },
        "08_pf_end_updated" => DriverEvent::PageFaultEnd { pid, page: PAGE, migrated: false },
        name if name.starts_with("09_evict") => DriverEvent::QueueEviction { pid, trigger: number },
        "10_restore" => DriverEvent::QueueRestore { pid, rescheduled: false },
        "10_restore_rescheduled" => DriverEvent::QueueRestore { pid, rescheduled: true },
        name if name.starts_with("11_unmap") => {
            DriverEvent::UnmapFromGpu { pid, page: PAGE, pages: PAGES, trigger: number }
        }
        "12_process_start" => {
            DriverEvent::ProcessStart { pid: 0x1234.into(), comm: "python3".into() }
        }
        "12_process_start_newline" => {
            DriverEvent::ProcessStart { pid: 0x1234.into(), comm: "a\nb c".into() }
        }
        "13_process_end" => DriverEvent::ProcessEnd { pid: 0x1234.into(), comm: "python3".into() },
        other => panic!("no event known for the capture {other}"),
    }
}

/// The stamp and the process of a line that has them.
fn stamp(line: &[u8]) -> Option<(u64, u32)> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace().skip(1);
    let ns = words.next()?.parse().ok()?;
    Some((ns, words.next()?.strip_prefix('-')?.parse().ok()?))
}

fn replace(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|part| part == old.as_bytes()).unwrap();
    [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat()
}

/// What the simulated driver writes for a capture, with the stamp of the recording.
fn written(kernel: Kernel, name: &str, recorded: &[u8]) -> Vec<u8> {
    let machine = SimMachine::builder().kernel(kernel).build().unwrap();
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let (ns, pid) = stamp(recorded).unwrap_or_default();
    let mut event = event(name, pid.into());
    if let DriverEvent::PostReset { sequence, .. } = &mut event {
        *sequence = u32::from(recorded[2] - b'0');
    }
    machine.emit(0, &event);
    let bytes = read(&file, 8192).unwrap();
    match stamp(&bytes) {
        Some((now, _)) if ns != 0 => {
            // As many digits as the recording's, else an over-long line is cut elsewhere.
            replace(&bytes, &now.to_string(), &ns.to_string())
        }
        _ => bytes,
    }
}

#[test]
fn every_capture_is_written_byte_by_byte() {
    let mut compared = 0;
    for (version, kernel) in KERNELS {
        for entry in std::fs::read_dir(folder(version)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name.starts_with("overflow") || name.ends_with("overlong") {
                continue;
            }
            let recorded = std::fs::read(&path).unwrap();
            assert_eq!(written(kernel, &name, &recorded), recorded, "{version} {name}");
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
}

/// The text up to where the buffer ends depends on the stamp's digits; the shape does not.
#[test]
fn over_long_messages_are_cut_as_the_driver_cuts_them() {
    for (version, kernel) in KERNELS {
        let recorded =
            std::fs::read(folder(version).join("05_migrate_start_overlong.bin")).unwrap();
        let (_, pid) = stamp(&recorded).unwrap();
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        machine.emit(0, &event("05_migrate_start_overlong", pid.into()));
        let bytes = read(&file, 8192).unwrap();
        let (ns, _) = stamp(&bytes).unwrap();
        let (recorded_ns, _) = stamp(&recorded).unwrap();
        let text = "7fffffffffffffff) ffffffff->ffffffff ffffffff:ffffffff ";
        assert!(String::from_utf8_lossy(&bytes).contains(text), "{version}");
        assert!(!bytes.contains(&b'\n'), "{version}: no newline");
        if kernel == Kernel::V7_3 {
            assert_eq!((bytes.len(), recorded.len()), (95, 95));
            continue;
        }
        let digits = |ns: u64| ns.to_string().len();
        assert_eq!(bytes.len() + digits(recorded_ns), recorded.len() + digits(ns), "{version}");
        assert_eq!((recorded[95], bytes[95]), (0, 0), "{version}: the text ends in a NUL");
        assert_eq!((recorded[96], bytes[96]), (0, 0), "{version}: the canary's first byte");
    }
}

#[test]
fn an_overflow_holds_as_many_lines_as_the_genuine_one() {
    for (version, kernel) in KERNELS {
        let recorded = std::fs::read(folder(version).join("overflow_3000_pf_start.bin")).unwrap();
        let first = recorded.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        let (ns, pid) = stamp(first).unwrap();
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        // The recorded lines themselves, and as many more: their lengths decide what fits.
        let lines: Vec<&[u8]> = recorded.split_inclusive(|byte| *byte == b'\n').collect();
        for line in lines.iter().cycle().take(3000) {
            machine.emit_raw(0, 7, None, line);
        }
        assert!(ns > 0 && pid > 0);
        assert_eq!(read(&file, 1 << 16).unwrap(), recorded, "{version}");
        let stats = machine.event_files()[0];
        assert_eq!(stats.accepted_lines + stats.dropped_lines, 3000);
        assert_eq!(stats.accepted_lines, lines.len() as u64);
    }
}
