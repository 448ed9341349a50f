//! Events of eight programs on eight GPUs that fault much: page faults, half of them with a migration, unmaps,
//! evictions and restores; every start has its end. 330,000 a second.

use std::fmt::Write;

use gpuev::time::Anchor;
use gpuev::{Bdf, Clock, Comm, Event, EventFacts, EventTime, GpuId, Item};

/// When the machine was booted.
pub(crate) const BOOTED: Anchor = Anchor { boot_ns: 0, unix_ns: 1_795_000_000_000_000_000 };

/// The events, for ever.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    number: u64,
    text: String,
}

impl Iterator for Stream {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let number = self.number;
        self.number += 1;
        let gpu = gpu(number);
        let ns = 1_810_035_809_094 + number * 3_000;
        line(&mut self.text, number, ns);
        let time = EventTime {
            boot_ns: ns,
            clock: Clock::Driver,
            received_boot_ns: ns + 27_000 + number % 7 * 400,
            unix_ns: BOOTED.unix_ns_of(ns),
        };
        let (comm, raw) = (Comm::new(b"python3"), self.text.as_bytes());
        let facts = EventFacts { gpu, seq: number, time, doubtful: false, pid: None, comm, raw };
        Some(Item::Event(Event::from_facts(facts)))
    }
}

/// Writes the driver's line number `number`, of the time `ns`.
pub(crate) fn line(text: &mut String, number: u64, ns: u64) {
    text.clear();
    let GpuId { index, kfd_id: node, .. } = gpu(number);
    let page = 0x7_f000_0000 + number / 8 * 0x9e37 % 0x10_0000;
    let pid = 4242 + index;
    let _infallible = match number % 8 {
        0 => write!(text, "7 {ns} -{pid} @{page:x}({node:x}) W"),
        1 => write!(text, "5 {ns} -{pid} @{page:x}(200) 0->{node:x} ffffffff:ffffffff 1"),
        2 => write!(text, "b {ns} -{pid} @{page:x}(200) {node:x} 1"),
        3 => write!(text, "6 {ns} -{pid} @{page:x}(200) 0->{node:x} 1 0"),
        4 => write!(text, "8 {ns} -{pid} @{page:x}({node:x}) M"),
        5 => write!(text, "7 {ns} -{pid} @{page:x}({node:x}) R"),
        6 => write!(text, "8 {ns} -{pid} @{page:x}({node:x}) U"),
        _ if number & 64 == 0 => write!(text, "9 {ns} -{pid} {node:x} 0"),
        _ => write!(text, "a {ns} -{pid} {node:x} 0"),
    };
}

/// The GPU of event number `number`.
pub(crate) fn gpu(number: u64) -> GpuId {
    let index = u32::try_from(number / 8 % 8).expect("it should be below 8");
    let bus = u8::try_from(index + 3).expect("it should be below 11");
    GpuId {
        index,
        bdf: Bdf { domain: 0, bus, device: 0, function: 0 },
        unique_id: None,
        partition: 0,
        kfd_id: 0x1b11 + index,
    }
}
