//! Lines to records and back.

use gpuev_kfd::codec::{DropCount, Migration, Record, Reset, Stamp, Task};
use gpuev_kfd::{Access, EventType, FaultOutcome, Fields, RestoreFlag, decode, names};
use proptest::prelude::*;

const AT: Stamp = Stamp { boot_ns: 40_507_688_414_784, pid: 156_893 };

fn fields(line: &[u8]) -> Fields<'_> {
    let record = decode(line);
    assert_eq!(record.tail, b"", "{}", line.escape_ascii());
    record.fields
}

#[test]
fn every_variant_of_every_event() {
    let range = Migration { page: 0x7_f0f1_5200, pages: 0x2c02, from: 0, to: 0x1ea0 };
    let cases: Vec<(&[u8], Fields<'_>)> = vec![
        (b"1 1234:a b:c", Fields::VmFault(Task { pid: 0x1234, name: b"a b:c" })),
        (b"1 1234:", Fields::VmFault(Task { pid: 0x1234, name: b"" })),
        (b"2 400:7", Fields::ThermalThrottle { throttlers: 0x400, count: 7 }),
        (b"3 1f", Fields::GpuPreReset(Reset { sequence: 0x1f, cause: None })),
        (b"3 1 ", Fields::GpuPreReset(Reset { sequence: 1, cause: Some(b"") })),
        (b"4 1 HWS hang", Fields::GpuPostReset(Reset { sequence: 1, cause: Some(b"HWS hang") })),
        (
            b"5 40507688414784 -156893 @7f0f15200(2c02) 0->1ea0 ffffffff:0 1",
            Fields::MigrateStart { at: AT, range, prefetch: u32::MAX, preferred: 0, trigger: 1 },
        ),
        (
            b"6 40507688414784 -156893 @7f0f15200(2c02) 0->1ea0 1",
            Fields::MigrateEnd { at: AT, range, trigger: 1, error: None },
        ),
        (
            b"6 40507688414784 -156893 @7f0f15200(2c02) 0->1ea0 1 -12",
            Fields::MigrateEnd { at: AT, range, trigger: 1, error: Some(-12) },
        ),
        (
            b"7 40507688414784 -156893 @7fa608127(ad5c) R",
            Fields::PageFaultStart {
                at: AT,
                page: 0x7_fa60_8127,
                node: 0xad5c,
                access: Access::Read,
            },
        ),
        (
            b"8 40507688414784 -156893 @7fa608127(ad5c) M",
            Fields::PageFaultEnd {
                at: AT,
                page: 0x7_fa60_8127,
                node: 0xad5c,
                outcome: FaultOutcome::Migrated,
            },
        ),
        (
            b"9 40507688414784 -156893 1ea0 3",
            Fields::QueueEviction { at: AT, node: 0x1ea0, trigger: 3 },
        ),
        (
            b"b 40507688414784 -156893 @7fa608127(200) 1ea0 2",
            Fields::UnmapFromGpu {
                at: AT,
                page: 0x7_fa60_8127,
                pages: 0x200,
                node: 0x1ea0,
                trigger: 2,
            },
        ),
        (b"c 1234 my job", Fields::ProcessStart(Task { pid: 0x1234, name: b"my job" })),
        (b"d 1234 ", Fields::ProcessEnd(Task { pid: 0x1234, name: b"" })),
    ];
    for (line, expected) in cases {
        assert_eq!(fields(line), expected, "{}", line.escape_ascii());
    }
}

#[test]
fn a_number_that_no_kernel_gives_a_thread_is_no_pid() {
    let lines: [fn(u32) -> String; 10] = [
        |pid| format!("1 {pid:x}:python3"),
        |pid| format!("5 1 -{pid} @7f0f15200(2c02) 0->1ea0 ffffffff:0 1"),
        |pid| format!("6 1 -{pid} @7f0f15200(2c02) 0->1ea0 1"),
        |pid| format!("7 1 -{pid} @7fff00000(64) W"),
        |pid| format!("8 1 -{pid} @7fff00000(64) M"),
        |pid| format!("9 1 -{pid} 64 3"),
        |pid| format!("a 1 -{pid} 64 R"),
        |pid| format!("b 1 -{pid} @7fff00000(64) 64 3"),
        |pid| format!("c {pid:x} python3"),
        |pid| format!("d {pid:x} python3"),
    ];
    for line in lines {
        let (largest, larger) = (line(1 << 22), line((1 << 22) + 1));
        assert!(decode(largest.as_bytes()).event_type().is_some(), "{largest}");
        assert_eq!(decode(larger.as_bytes()).event_type(), None, "{larger}");
    }
}

#[test]
fn what_may_be_a_count_of_dropped_events_is_an_unknown_event() {
    for (line, id, boot_ns) in [
        (&b"e 40507688414784 -156893 5"[..], 14, 40_507_688_414_784),
        // A patch of 2024 had it as number 12, with a time that no pid has.
        (b"c 40507688414784 -156893 5", 12, 40_507_688_414_784),
        (b"c 9876543 -156893 5", 12, 9_876_543),
        (b"1f 40507688414784 -156893 5", 31, 40_507_688_414_784),
    ] {
        let record = decode(line);
        assert_eq!(record.fields, Fields::Unknown { id: Some(id), line });
        let at = Stamp { boot_ns, pid: 156_893 };
        assert_eq!(record.drop_count(), Some(DropCount { id, at, count: 5 }));
    }
    for line in [
        &b"9 40507688414784 -156893 5"[..],
        b"e 40507688414784 -156893 5a21",
        b"e 40507688414784 -156893 5 0",
        b"e 40507688414784 156893 5",
        b"c 2674 -42 5",
        b"c 2674 python3",
    ] {
        assert_eq!(decode(line).drop_count(), None, "{}", line.escape_ascii());
    }
}

#[test]
fn the_four_ends_of_queue_restore() {
    let cases: [(&[u8], RestoreFlag); 4] = [
        (b"a 40507688414784 -156893 fc7d", RestoreFlag::Absent),
        (b"a 40507688414784 -156893 fc7d 0", RestoreFlag::Plain),
        (b"a 40507688414784 -156893 fc7d R", RestoreFlag::Rescheduled),
        (b"a 40507688414784 -156893 fc7d \0", RestoreFlag::Nul),
    ];
    for (line, flag) in cases {
        assert_eq!(fields(line), Fields::QueueRestore { at: AT, node: 0xfc7d, flag });
    }
}

#[test]
fn fields_of_a_later_kernel_are_kept_as_the_tail() {
    let record = decode(b"9 40507688414784 -156893 1ea0 3 77 x");
    assert_eq!(record.event_type(), Some(EventType::QueueEviction));
    assert_eq!(record.tail, b" 77 x");
    let record = decode(b"6 40507688414784 -156893 @1(2) 0->1 1 late");
    assert!(matches!(record.fields, Fields::MigrateEnd { error: None, .. }));
    assert_eq!(record.tail, b" late");
    let record = decode(b"7 40507688414784 -156893 @1(2) W\0");
    assert_eq!(record.tail, b"\0");
}

#[test]
fn what_no_kernel_writes_is_unknown_and_whole() {
    let lines: [&[u8]; 19] = [
        b"",
        b" ",
        b"f",
        b"f 1 2 3",
        b"123456789 x",
        b"1",
        b"1 ",
        b"01 1234:x",
        b"1 0x12:x",
        b"1 1234 x",
        b"2 400",
        b"2 11112222333344445:1",
        b"3 ",
        b"5 1 -2 @7(200) 0->5a21 0:0 214748364800",
        b"7 040 -2 @7(1) R",
        b"7 99999999999999999999 -2 @7(1) R",
        b"7 1 -2 @7(1) X",
        b"7 1 -2 @7(1) RW",
        b"9 1 -2 1ea0 -0",
    ];
    for line in lines {
        let record = decode(line);
        assert!(
            matches!(record.fields, Fields::Unknown { line: kept, .. } if kept == line),
            "{} is {record:?}",
            line.escape_ascii()
        );
    }
    assert!(matches!(decode(b"f 1").fields, Fields::Unknown { id: Some(15), .. }));
    assert!(matches!(decode(b"hello").fields, Fields::Unknown { id: None, .. }));
}

#[test]
fn throttlers_have_names() {
    let mask = 1 << 36 | 1 << 0 | 1 << 10;
    assert_eq!(names::throttlers(mask).collect::<Vec<_>>(), ["PPT0", "TEMP_HOTSPOT"]);
    assert_eq!(names::unnamed_throttlers(mask), 1 << 10);
}

#[test]
fn triggers_and_causes_have_names() {
    assert_eq!(names::migrate_trigger(3), Some("ttm_eviction"));
    assert_eq!(names::eviction_trigger(5), Some("criu_restore"));
    assert_eq!(names::unmap_trigger(0), Some("mmu_notify"));
    assert_eq!(names::unmap_trigger(3), None);
    assert_eq!(names::migrate_trigger(-1), None);
    assert_eq!(names::reset_cause(b"job hang on ring:gfx_0.0.0"), Some("job hang"));
    assert_eq!(names::reset_cause(b"user queue trigger"), Some("user queue trigger"));
    assert_eq!(names::reset_cause(b""), None);
}

/// Any number that a kernel can give a thread.
fn pid() -> std::ops::RangeInclusive<u32> {
    0..=1 << 22
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), pid()).prop_map(|(boot_ns, pid)| Stamp { boot_ns, pid })
}

fn migration() -> impl Strategy<Value = Migration> {
    any::<(u64, u64, u32, u32)>().prop_map(|(page, pages, from, to)| Migration {
        page,
        pages,
        from,
        to,
    })
}

/// Every typed message, with names from a fixed set so that nothing needs to outlive the strategy.
pub(crate) fn record() -> impl Strategy<Value = Record<'static>> {
    let text = prop::sample::select(vec![
        &b""[..],
        b"python3",
        b"my train job",
        b"a:b c",
        b"\xff\xfe\x01",
        "⚡gpu".as_bytes(),
        b" lead",
        b"3 1 HWS",
    ]);
    let task = (pid(), text.clone()).prop_map(|(pid, name)| Task { pid, name });
    let reset = (any::<u32>(), prop::option::of(text))
        .prop_map(|(sequence, cause)| Reset { sequence, cause });
    let fields = prop_oneof![
        task.clone().prop_map(Fields::VmFault),
        any::<(u64, u64)>()
            .prop_map(|(throttlers, count)| Fields::ThermalThrottle { throttlers, count }),
        reset.clone().prop_map(Fields::GpuPreReset),
        reset.prop_map(Fields::GpuPostReset),
        (stamp(), migration(), any::<(u32, u32, i32)>()).prop_map(
            |(at, range, (prefetch, preferred, trigger))| Fields::MigrateStart {
                at,
                range,
                prefetch,
                preferred,
                trigger
            }
        ),
        (stamp(), migration(), any::<(i32, Option<i32>)>()).prop_map(
            |(at, range, (trigger, error))| Fields::MigrateEnd { at, range, trigger, error }
        ),
        (stamp(), any::<(u64, u32, bool)>()).prop_map(|(at, (page, node, write))| {
            let access = if write { Access::Write } else { Access::Read };
            Fields::PageFaultStart { at, page, node, access }
        }),
        (stamp(), any::<(u64, u32, bool)>()).prop_map(|(at, (page, node, moved))| {
            let outcome = if moved { FaultOutcome::Migrated } else { FaultOutcome::Mapped };
            Fields::PageFaultEnd { at, page, node, outcome }
        }),
        (stamp(), any::<(u32, i32)>()).prop_map(|(at, (node, trigger))| Fields::QueueEviction {
            at,
            node,
            trigger
        }),
        (stamp(), any::<u32>(), 0..4_u8).prop_map(|(at, node, flag)| {
            let flags = [
                RestoreFlag::Absent,
                RestoreFlag::Plain,
                RestoreFlag::Rescheduled,
                RestoreFlag::Nul,
            ];
            Fields::QueueRestore { at, node, flag: flags[usize::from(flag)] }
        }),
        (stamp(), any::<(u64, u64, u32, i32)>()).prop_map(|(at, (page, pages, node, trigger))| {
            Fields::UnmapFromGpu { at, page, pages, node, trigger }
        }),
        task.clone().prop_map(Fields::ProcessStart),
        task.prop_map(Fields::ProcessEnd),
    ];
    fields.prop_map(|fields| Record { fields, tail: b"" })
}

proptest! {
    #[test]
    fn a_record_encodes_to_a_line_that_decodes_to_it(record in record()) {
        let mut line = Vec::new();
        record.encode(&mut line);
        if line.len() < 95 {
            prop_assert_eq!(decode(&line), record);
        } else {
            let unknown = matches!(decode(&line).fields, Fields::Unknown { .. });
            prop_assert!(unknown, "the driver cut it");
        }
    }

    #[test]
    fn any_line_decodes_to_a_record_that_encodes_to_it(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut encoded = Vec::new();
        decode(&line).encode(&mut encoded);
        prop_assert_eq!(encoded, line);
    }

    #[test]
    fn any_likely_line_decodes_to_a_record_that_encodes_to_it(
        line in "[1-9a-f] [0-9a-f]{1,20}[ :-]{0,2}[0-9]{0,4} ?@?[0-9a-f]{0,8}[()]?[0-9a-f]{0,4}\\)? ?[0-9a-f>RWMU -]{0,12}"
    ) {
        let mut encoded = Vec::new();
        decode(line.as_bytes()).encode(&mut encoded);
        prop_assert_eq!(encoded, line.as_bytes());
    }
}
