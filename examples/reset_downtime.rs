//! How long GPUs are down for resets, and why.
//!
//! `cargo run -p gpuev --example reset_downtime`

use std::time::Duration;

use gpuev::span::{Limits, Span, SpanData, Spans};
use gpuev::{DEFAULT_LIMIT, EventType, Filter, Machine, Monitor};

fn main() -> gpuev::Result<()> {
    let resets = [EventType::GpuPreReset, EventType::GpuPostReset];
    let wanted = Filter::new().types(resets, false);
    let builder = Monitor::builder(&Machine::host());
    let (_monitor, items) = builder.start_with(wanted, DEFAULT_LIMIT)?;
    // Pairs starts with their ends; what never ends is told too.
    let mut spans = Spans::new(Limits::default());
    for item in items {
        spans.push(&item, tell);
    }
    spans.finish(tell);
    Ok(())
}

fn tell(span: Span) {
    let SpanData::Reset { sequence, cause } = &span.data else { return };
    let cause = String::from_utf8_lossy(cause.bytes().unwrap_or(b"no cause given"));
    let gpu = span.gpu.index;
    match span.duration_ns().map(Duration::from_nanos) {
        Some(down) => println!("GPU {gpu}: reset {sequence} took {down:.1?} ({cause})"),
        None => println!("GPU {gpu}: reset {sequence}: {} ({cause})", span.outcome.name()),
    }
}
