//! What a history costs: to write, to record live, to read, to summarise. Lines of `figure`, what, who, value, unit.
//!
//! `cargo bench -p gpuev-store --bench history -- [EVENTS] [FILE]`: so many events, 10 million by default; a file
//! that is there already is only read.

#![allow(missing_docs)]

mod live;
mod plain;
mod sessions;
mod stream;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpuev_store::report::Options;
use gpuev_store::{Histories, History, Query, Session, Writer};

use stream::Stream;

/// What the design speaks of.
const EVENTS: u64 = 10_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let events =
        arguments.first().map_or(EVENTS, |n| n.parse().expect("the events should be a number"));
    let folder = tempfile::tempdir().expect("a folder should be made");
    let path = arguments.get(1).map_or(folder.path().join("bench.db"), PathBuf::from);
    if !path.exists() {
        let writer = write(&path, events);
        let inserts = plain::write(&folder.path().join("plain.db"), events);
        figure("record to disk, beside plain batched inserts", "Writer", writer / inserts, "times");
        live::record(&folder.path().join("live.db"));
        sessions::measure(folder.path());
    }
    let report = summarise(&path);
    let count = read(&path);
    figure("summarise, beside a pass that only counts", "report", report / count, "times");
}

fn figure(what: &str, who: &str, value: f64, unit: &str) {
    println!("figure\t{what}\t{who}\t{value}\t{unit}");
}

/// CPU seconds.
#[allow(clippy::cast_precision_loss)] // shown with a few digits
fn write(path: &Path, events: u64) -> f64 {
    let mut writer = Writer::open(path, &Session::unknown(stream::BOOTED)).expect("it should open");
    let made: Vec<_> = Stream::default().take(200_000).collect();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut left = events;
    while left > 0 {
        for item in &made[..made.len().min(usize::try_from(left).unwrap_or(usize::MAX))] {
            writer.append(item).expect("an event should be written");
        }
        left = left.saturating_sub(made.len() as u64);
    }
    writer.close_import().expect("the history should close");
    let (per_event, used) = (1e6 / events as f64, cpu_seconds() - cpu);
    figure("record to disk", "Writer", events as f64 / started.elapsed().as_secs_f64(), "events/s");
    figure("CPU of writing an event", "Writer", used * per_event, "µs");
    let bytes = std::fs::metadata(path).expect("the history should be there").len();
    figure("size of an event on disk", "Writer", bytes as f64 / events as f64, "bytes");
    used
}

/// The best of three, for what else runs is no matter of ours; all three take the same memory.
#[allow(clippy::cast_precision_loss)] // likewise
fn summarise(path: &Path) -> f64 {
    // Twice: the first asks for the time before, and what is resident now is the peak from then on.
    let before = peak_memory().and_then(|_| peak_memory());
    let history = Histories::open_file(path).expect("the history should open");
    let (mut best, mut cpu, mut events) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..3 {
        let (started, used) = (Instant::now(), cpu_seconds());
        let report = history.report(&Query::new(), Options::default());
        events = report.expect("the history should be readable").events;
        best = best.min(started.elapsed().as_secs_f64());
        cpu = cpu.min(cpu_seconds() - used);
    }
    let (millions, event) = (events as f64 / 1e6, 1e9 / events as f64);
    figure(&format!("summarise {millions} million events"), "report", best, "s");
    figure("CPU of summarising an event", "report", cpu * event, "ns");
    let grown = peak_memory().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    if let Some(bytes) = grown {
        figure("peak memory of a report", "report", bytes as f64 / 1e6, "MB");
    }
    cpu
}

#[allow(clippy::cast_precision_loss)] // likewise
fn read(path: &Path) -> f64 {
    let history = History::open(path).expect("the history should open");
    let (cpu, mut events) = (cpu_seconds(), 0_u64);
    let count = |_, _: gpuev_store::Row<'_>| {
        events += 1;
        ControlFlow::Continue(())
    };
    history.visit(&Query::new(), count).expect("the history should be readable");
    let used = cpu_seconds() - cpu;
    figure("CPU of reading an event's row", "visit", used * 1e9 / events as f64, "ns");
    used
}

/// Peak resident bytes since it was last asked.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kilobytes * 1024)
}

#[allow(clippy::cast_precision_loss)] // seconds of a benchmark
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
