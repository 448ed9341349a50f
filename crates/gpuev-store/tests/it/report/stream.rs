//! Streams as a reader would deliver them, of lines and of the simulator's stories.

use std::collections::HashMap;

use gpuev::{
    Clock, Comm, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item, UniqueId, decode,
};
use gpuev_sim::{DriverEvent, Scenario};

/// The beginning of a stream by both clocks.
const BOOT_NS: u64 = 3_600_000_000_000;
const UNIX_NS: i64 = 1_800_000_000_000_000_000;

/// Items of a stream that begins at 0.
pub(crate) struct Stream {
    pub(crate) items: Vec<Item>,
    seq: Vec<u64>,
    /// What `/proc` says.
    names: HashMap<u32, Comm>,
}

/// The GPU with this index.
pub(crate) fn gpu(index: usize) -> GpuId {
    let number = u32::try_from(index).unwrap();
    let bdf = format!("{:04x}:{:02x}:00.0", number >> 8, number & 0xff);
    GpuId {
        index: number,
        bdf: bdf.parse().unwrap(),
        unique_id: Some(UniqueId(0x9246_f3a1_0000_0000 + u64::from(number))),
        partition: 0,
        kfd_id: 100 + number,
    }
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { items: Vec::new(), seq: Vec::new(), names: HashMap::new() }
    }

    /// `count` events of a story.
    pub(crate) fn of_story(story: &str, gpus: usize, count: u64) -> Self {
        let scenario = Scenario::by_name(story).unwrap().seed(11).count(count);
        let mut stream = Self::new();
        for one in scenario.events(gpus) {
            if let DriverEvent::ProcessStart { pid, comm } = one.event {
                stream.names.insert(pid.host, Comm::new(comm.as_bytes()));
            }
            let line = line(one.gpu, BOOT_NS + one.at_ns, &one.event);
            stream.line(one.gpu, one.at_ns, &line);
        }
        stream
    }

    pub(crate) fn unix_ns(at_ns: u64) -> i64 {
        UNIX_NS.checked_add_unsigned(at_ns).unwrap()
    }

    /// A line of the driver, read at once.
    pub(crate) fn line(&mut self, index: usize, at_ns: u64, raw: &[u8]) {
        if self.seq.len() <= index {
            self.seq.resize(index + 1, 0);
        }
        let seq = self.seq[index];
        self.seq[index] += 1;
        let stamp = decode(raw).stamp();
        let clock = if stamp.is_some() { Clock::Driver } else { Clock::Receipt };
        let boot_ns = BOOT_NS + at_ns;
        let unix_ns = Self::unix_ns(at_ns);
        let time = EventTime { boot_ns, clock, received_boot_ns: boot_ns, unix_ns };
        let comm = stamp.and_then(|stamp| self.names.get(&stamp.pid).copied()).unwrap_or_default();
        let facts =
            EventFacts { gpu: gpu(index), seq, time, doubtful: false, pid: None, comm, raw };
        self.items.push(Item::Event(Event::from_facts(facts)));
    }

    pub(crate) fn gap(
        &mut self,
        index: usize,
        cause: GapCause,
        count: Option<u64>,
        from_ns: u64,
        to_ns: u64,
    ) {
        self.items.push(Item::Gap(Gap {
            gpu: gpu(index),
            cause,
            count,
            from_boot_ns: BOOT_NS + from_ns,
            to_boot_ns: BOOT_NS + to_ns,
            unix_ns: Self::unix_ns(to_ns),
        }));
    }
}

/// `event` as Linux 6.16 writes it.
fn line(gpu: usize, ns: u64, event: &DriverEvent) -> Vec<u8> {
    let node = 100 + gpu;
    let pid = event.pid().map_or(0, |pid| pid.host);
    let id = event.id();
    let mut line = match *event {
        DriverEvent::VmFault { .. } => format!("1 {pid:x}:"),
        DriverEvent::ProcessStart { .. } | DriverEvent::ProcessEnd { .. } => {
            format!("{id:x} {pid:x} ")
        }
        DriverEvent::Thermal { throttlers, count } => format!("2 {throttlers:x}:{count:x}"),
        DriverEvent::PreReset { sequence, .. } | DriverEvent::PostReset { sequence, .. } => {
            format!("{id} {sequence:x} ")
        }
        DriverEvent::MigrateStart { page, pages, from, to, prefetch, preferred, trigger, .. } => {
            format!(
                "5 {ns} -{pid} @{page:x}({pages:x}) {from:x}->{to:x} {prefetch:x}:{preferred:x} {trigger}"
            )
        }
        DriverEvent::MigrateEnd { page, pages, from, to, trigger, error, .. } => {
            format!("6 {ns} -{pid} @{page:x}({pages:x}) {from:x}->{to:x} {trigger} {error}")
        }
        DriverEvent::PageFaultStart { page, write, .. } => {
            format!("7 {ns} -{pid} @{page:x}({node:x}) {}", if write { 'W' } else { 'R' })
        }
        DriverEvent::PageFaultEnd { page, migrated, .. } => {
            format!("8 {ns} -{pid} @{page:x}({node:x}) {}", if migrated { 'M' } else { 'U' })
        }
        DriverEvent::QueueEviction { trigger, .. } => format!("9 {ns} -{pid} {node:x} {trigger}"),
        DriverEvent::QueueRestore { rescheduled, .. } => {
            format!("a {ns} -{pid} {node:x} {}", if rescheduled { 'R' } else { '0' })
        }
        DriverEvent::UnmapFromGpu { page, pages, trigger, .. } => {
            format!("b {ns} -{pid} @{page:x}({pages:x}) {node:x} {trigger}")
        }
        _ => panic!("the simulator should have no other event"),
    }
    .into_bytes();
    match event {
        DriverEvent::VmFault { comm, .. }
        | DriverEvent::ProcessStart { comm, .. }
        | DriverEvent::ProcessEnd { comm, .. } => line.extend_from_slice(comm.as_bytes()),
        DriverEvent::PreReset { cause: Some(cause), .. } => {
            let (text, ring) = cause.text();
            line.extend_from_slice(text.as_bytes());
            line.extend_from_slice(ring);
        }
        _ => {}
    }
    line
}
