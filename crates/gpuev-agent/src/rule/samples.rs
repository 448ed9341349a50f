//! One signal of each kind and type: what a condition is tried out on before it meets genuine ones.

use std::sync::Arc;

use gpuev::health::Health;
use gpuev::span::{Cause, Outcome, Span, SpanData, SpanKind};
use gpuev::{
    Bdf, Clock, Comm, Event, EventFacts, EventTime, EventType, Gap, GapCause, GpuId, Migration,
    UniqueId,
};

use crate::signal::{GpuChange, RasIncrease, RasKind, Signal, What};

use super::select::{self, Selection};

/// Lines as Linux 7.2 writes them, with every field.
const LINES: [&[u8]; 14] = [
    b"ff what is this",
    b"1 1092:python3",
    b"2 1000000000:7",
    b"3 1 job hang",
    b"4 1 ",
    b"5 1810035809094 -4242 @7fff00000(200) 0->5a21 5a21:5a21 1",
    b"6 1810035809094 -4242 @7fff00000(200) 0->5a21 1 0",
    b"7 1810035809094 -4242 @7fff00000(5a21) W",
    b"8 1810035809094 -4242 @7fff00000(5a21) M",
    b"9 1810035809094 -4242 5a21 2",
    b"a 1810035809094 -4242 5a21 0",
    b"b 1810035809094 -4242 @7fff00000(200) 5a21 0",
    b"c 1092 python3",
    b"d 1092 python3",
];

const TIME: EventTime = EventTime {
    boot_ns: 1_810_035_809_094,
    clock: Clock::Driver,
    received_boot_ns: 1_810_035_812_345,
    unix_ns: 1_700_000_000_000_000_000,
};

/// A signal of each kind and type that `on` takes.
pub(super) fn of(on: Selection) -> Vec<Signal> {
    all().into_iter().filter(|signal| on.has(select::slot(signal))).collect()
}

fn all() -> Vec<Signal> {
    let gpu = GpuId {
        index: 0,
        bdf: Bdf { domain: 0, bus: 3, device: 0, function: 0 },
        unique_id: Some(UniqueId(1)),
        partition: 0,
        kfd_id: 0x5a21,
    };
    let events = LINES.map(|line| What::Event(event(gpu, line)));
    let spans = SpanKind::ALL.map(|kind| What::Span(span(gpu, kind)));
    let gap = Gap {
        gpu,
        cause: GapCause::DriverFifoFull,
        count: Some(7),
        from_boot_ns: TIME.boot_ns,
        to_boot_ns: TIME.boot_ns,
        unix_ns: TIME.unix_ns,
    };
    let ras =
        RasIncrease { block: "umc".to_owned(), kind: RasKind::Correctable, increase: 1, total: 2 };
    let others = [What::Gap(gap), What::Health, What::RasErrors(ras), What::Gpu(GpuChange::Lost)];
    let signal = |what| Signal {
        what,
        boot_ns: TIME.boot_ns,
        unix_ns: TIME.unix_ns,
        gpu,
        life: gpuev::Life::default(),
        process: None,
        ambiguous: false,
        health: Some(Arc::new(Health::default())),
        reset: None,
    };
    events.into_iter().chain(spans).chain(others).map(signal).collect()
}

fn event(gpu: GpuId, raw: &[u8]) -> Event {
    let comm = Comm::new(b"python3");
    let pid = Some(4242);
    Event::from_facts(EventFacts { gpu, seq: 0, time: TIME, doubtful: false, pid, comm, raw })
}

fn span(gpu: GpuId, kind: SpanKind) -> Span {
    let migration = Migration { address: 4096, size: 4096, from: 0, to: gpu.kfd_id, trigger: 1 };
    let node = gpu.kfd_id;
    let data = match kind {
        SpanKind::Reset => SpanData::Reset { sequence: 1, cause: Cause::new(b"job hang") },
        SpanKind::PageFault => SpanData::PageFault { address: 4096, node, access: None },
        SpanKind::Migration => SpanData::Migration { migration, error: Some(0) },
        SpanKind::QueueEviction => {
            SpanData::QueueEviction { node, trigger: Some(2), reschedules: 0 }
        }
        _ => SpanData::Process,
    };
    Span {
        gpu,
        pid: Some(4242),
        tid: None,
        life: gpuev::Life::default(),
        process: Comm::new(b"python3"),
        start: Some(TIME),
        end: Some(TIME),
        outcome: Outcome::Completed,
        doubtful: false,
        across_gap: false,
        nested: false,
        data,
    }
}

const _: () = assert!(LINES.len() == EventType::ALL.len() + 1);
