//! Any record encodes to a line that decodes to it.

#![no_main]

use arbitrary::Arbitrary;
use gpuev_kfd::codec::{Migration, Reset, Stamp, Task};
use gpuev_kfd::framing::MESSAGE_SIZE;
use gpuev_kfd::{Access, FaultOutcome, Fields, Record, RestoreFlag, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Message, Tail)| {
    let (message, tail) = input;
    let fields = message.fields();
    let tail = if takes_rest(&fields) { b"" } else { tail.bytes() };
    let record = Record { fields, tail };
    let mut line = Vec::new();
    record.encode(&mut line);

    let decoded = decode(&line);
    if line.len() >= MESSAGE_SIZE - 1 {
        let unknown = matches!(decoded.fields, Fields::Unknown { line: kept, .. } if kept == line);
        assert!(unknown, "the driver would have cut it, but it is {decoded:?}");
    } else {
        assert_eq!(decoded, record, "{}", line.escape_ascii());
    }
});

/// Whether the last field is, or would be, text to the end of the line, which leaves no tail.
fn takes_rest(fields: &Fields<'_>) -> bool {
    matches!(
        fields,
        Fields::VmFault(_)
            | Fields::GpuPreReset(_)
            | Fields::GpuPostReset(_)
            | Fields::ProcessStart(_)
            | Fields::ProcessEnd(_)
    )
}

/// What a later kernel may append. None of these can be read as a field of today.
#[derive(Debug, Arbitrary)]
enum Tail {
    None,
    Nul,
    NulAndMore,
    Field,
}

impl Tail {
    fn bytes(&self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Nul => b"\0",
            Self::NulAndMore => b"\0 7",
            Self::Field => b" x9",
        }
    }
}

#[derive(Debug, Arbitrary)]
struct At {
    boot_ns: u64,
    pid: Pid,
}

/// A number that a kernel may give a thread: at most `PID_MAX_LIMIT`.
#[derive(Debug, Arbitrary)]
struct Pid(u32);

impl Pid {
    fn number(&self) -> u32 {
        self.0 % ((1 << 22) + 1)
    }
}

#[derive(Debug, Arbitrary)]
struct Range {
    page: u64,
    pages: u64,
    from: u32,
    to: u32,
}

#[derive(Debug, Arbitrary)]
enum Flag {
    Absent,
    Plain,
    Rescheduled,
    Nul,
}

/// Every message that a driver can write.
#[derive(Debug, Arbitrary)]
enum Message {
    VmFault(Pid, Vec<u8>),
    ThermalThrottle(u64, u64),
    GpuPreReset(u32, Option<Vec<u8>>),
    GpuPostReset(u32, Option<Vec<u8>>),
    MigrateStart(At, Range, u32, u32, i32),
    MigrateEnd(At, Range, i32, Option<i32>),
    PageFaultStart(At, u64, u32, bool),
    PageFaultEnd(At, u64, u32, bool),
    QueueEviction(At, u32, i32),
    QueueRestore(At, u32, Flag),
    UnmapFromGpu(At, u64, u64, u32, i32),
    ProcessStart(Pid, Vec<u8>),
    ProcessEnd(Pid, Vec<u8>),
}

impl Message {
    fn fields(&self) -> Fields<'_> {
        match *self {
            Self::VmFault(ref pid, ref name) => Fields::VmFault(Task { pid: pid.number(), name }),
            Self::ThermalThrottle(throttlers, count) => {
                Fields::ThermalThrottle { throttlers, count }
            }
            Self::GpuPreReset(sequence, ref cause) => {
                Fields::GpuPreReset(Reset { sequence, cause: cause.as_deref() })
            }
            Self::GpuPostReset(sequence, ref cause) => {
                Fields::GpuPostReset(Reset { sequence, cause: cause.as_deref() })
            }
            Self::MigrateStart(ref at, ref range, prefetch, preferred, trigger) => {
                let (at, range) = (at.stamp(), range.migration());
                Fields::MigrateStart { at, range, prefetch, preferred, trigger }
            }
            Self::MigrateEnd(ref at, ref range, trigger, error) => {
                Fields::MigrateEnd { at: at.stamp(), range: range.migration(), trigger, error }
            }
            Self::PageFaultStart(ref at, page, node, write) => {
                let access = if write { Access::Write } else { Access::Read };
                Fields::PageFaultStart { at: at.stamp(), page, node, access }
            }
            Self::PageFaultEnd(ref at, page, node, moved) => {
                let outcome = if moved { FaultOutcome::Migrated } else { FaultOutcome::Mapped };
                Fields::PageFaultEnd { at: at.stamp(), page, node, outcome }
            }
            Self::QueueEviction(ref at, node, trigger) => {
                Fields::QueueEviction { at: at.stamp(), node, trigger }
            }
            Self::QueueRestore(ref at, node, ref flag) => {
                Fields::QueueRestore { at: at.stamp(), node, flag: flag.restore() }
            }
            Self::UnmapFromGpu(ref at, page, pages, node, trigger) => {
                Fields::UnmapFromGpu { at: at.stamp(), page, pages, node, trigger }
            }
            Self::ProcessStart(ref pid, ref name) => {
                Fields::ProcessStart(Task { pid: pid.number(), name })
            }
            Self::ProcessEnd(ref pid, ref name) => {
                Fields::ProcessEnd(Task { pid: pid.number(), name })
            }
        }
    }
}

impl At {
    fn stamp(&self) -> Stamp {
        Stamp { boot_ns: self.boot_ns, pid: self.pid.number() }
    }
}

impl Range {
    fn migration(&self) -> Migration {
        Migration { page: self.page, pages: self.pages, from: self.from, to: self.to }
    }
}

impl Flag {
    fn restore(&self) -> RestoreFlag {
        match self {
            Self::Absent => RestoreFlag::Absent,
            Self::Plain => RestoreFlag::Plain,
            Self::Rescheduled => RestoreFlag::Rescheduled,
            Self::Nul => RestoreFlag::Nul,
        }
    }
}
