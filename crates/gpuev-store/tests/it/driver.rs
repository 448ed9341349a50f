//! Events as the reader would make them of a driver's lines.

use gpuev::{
    Clock, Comm, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item, UniqueId, decode,
};

/// 2026-11-22 in nanoseconds since 1970, at which the machine of these tests was booted.
pub(crate) const BOOTED_UNIX_NS: i64 = 1_795_305_600_000_000_000;

pub(crate) fn gpu(index: u32) -> GpuId {
    GpuId {
        index,
        bdf: format!("0000:{:02x}:00.0", 3 + index).parse().unwrap(),
        unique_id: (index > 0).then(|| UniqueId(0x9246_f3a1_b0c7_0000 + u64::from(index))),
        partition: index / 4,
        kfd_id: 0x1b11 + index,
    }
}

/// `line` as event number `seq`, read at `received_boot_ns`.
pub(crate) fn event(index: u32, seq: u64, received_boot_ns: u64, line: &[u8]) -> Item {
    doubtful_event(index, seq, received_boot_ns, line, false)
}

pub(crate) fn doubtful_event(
    index: u32,
    seq: u64,
    received_boot_ns: u64,
    line: &[u8],
    doubtful: bool,
) -> Item {
    let stamp = decode(line).stamp();
    let boot_ns = stamp.map_or(received_boot_ns, |stamp| stamp.boot_ns);
    let time = EventTime {
        boot_ns,
        clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
        received_boot_ns,
        unix_ns: BOOTED_UNIX_NS.saturating_add_unsigned(boot_ns),
    };
    let comm = match stamp {
        Some(stamp) if stamp.pid != 0 => Comm::new(format!("job {}", stamp.pid).as_bytes()),
        _ => Comm::NONE,
    };
    let facts = EventFacts { gpu: gpu(index), seq, time, doubtful, pid: None, comm, raw: line };
    Item::Event(Event::from_facts(facts))
}

pub(crate) fn gap(index: u32, from_boot_ns: u64, to_boot_ns: u64, count: Option<u64>) -> Item {
    Item::Gap(Gap {
        gpu: gpu(index),
        cause: GapCause::DriverFifoFull,
        count,
        from_boot_ns,
        to_boot_ns,
        unix_ns: BOOTED_UNIX_NS.saturating_add_unsigned(to_boot_ns),
    })
}

/// A page fault of `pid` at `boot_ns`, read a microsecond later.
pub(crate) fn fault(seq: u64, boot_ns: u64, pid: u32) -> Item {
    let line = format!("7 {boot_ns} -{pid} @{seq:x}(1b11) W");
    event(0, seq, boot_ns + 1_000, line.as_bytes())
}
