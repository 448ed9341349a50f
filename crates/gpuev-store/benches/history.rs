//! Write rate, read rate and size of a history, as lines `name value unit`.
//!
//! `cargo bench -p gpuev-store --bench history -- [ITEMS] [FILE]`

#![allow(missing_docs)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpuev::time::Anchor;
use gpuev::{Clock, Comm, Event, EventFacts, EventTime, GpuId, Item};
use gpuev_store::{History, Query, Row, Session, Writer};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let items: u64 =
        arguments.first().map_or(2_000_000, |n| n.parse().expect("the items should be a number"));
    let folder = tempfile::tempdir().expect("a folder should be made");
    let path = arguments.get(1).map_or(folder.path().join("bench.db"), PathBuf::from);
    if !path.exists() {
        write(&path, items);
    }
    read(&path);
}

#[allow(clippy::cast_precision_loss)]
fn write(path: &Path, items: u64) {
    let session = Session::unknown(Anchor { boot_ns: 0, unix_ns: BOOTED_UNIX_NS });
    let mut writer = Writer::open(path, &session).expect("a history should open");
    let mut text = String::new();
    let started = (Instant::now(), cpu_seconds());
    let made: Vec<Item> = (0..items.min(200_000)).map(|number| item(number, &mut text)).collect();
    let making = cpu_seconds() - started.1;
    let started = (Instant::now(), cpu_seconds());
    for number in 0..items {
        let item = &made[usize::try_from(number).expect("64 bits should be there") % made.len()];
        writer.append(item).expect("an event should be written");
    }
    writer.close_import().expect("the history should close");
    let items = items as f64;
    println!("history_write_rate {:.0} events/s", items / started.0.elapsed().as_secs_f64());
    println!("history_write_cpu {:.3} us/event", (cpu_seconds() - started.1) * 1e6 / items);
    println!(
        "history_size {:.1} bytes/event",
        std::fs::metadata(path).expect("the history should be there").len() as f64 / items
    );
    let _not_counted = making;
}

#[allow(clippy::cast_precision_loss)]
fn read(path: &Path) {
    let history = History::open(path).expect("the history should open");
    let (started, cpu, mut events, mut bytes) = (Instant::now(), cpu_seconds(), 0_u64, 0);
    history
        .visit(&Query::new(), |_, row| {
            if let Row::Event(facts) = row {
                events += 1;
                bytes += facts.raw.len();
            }
            ControlFlow::Continue(())
        })
        .expect("the history should be readable");
    let per_event = 1e9 / events as f64;
    println!("history_read {:.0} ns/event", started.elapsed().as_secs_f64() * per_event);
    println!("history_read_cpu {:.0} ns/event", (cpu_seconds() - cpu) * per_event);
    println!("history_lines {:.1} bytes/event", bytes as f64 / events as f64);
}

const BOOTED_UNIX_NS: i64 = 1_795_000_000_000_000_000;

/// A mix as of a program that faults much: page faults, a third of them migrating.
fn item(number: u64, text: &mut String) -> Item {
    use std::fmt::Write;
    text.clear();
    let gpu = u32::try_from(number / 8 % 8).expect("it should be below 8");
    let node = 0x1b11 + gpu;
    let page = 0x7_f000_0000 + number / 8 * 0x9e37 % 0x10_0000;
    let ns = 1_810_035_809_094 + number * 3_000;
    let pid = 4242 + gpu;
    let _infallible = match number % 8 {
        0 => write!(text, "7 {ns} -{pid} @{page:x}({node:x}) W"),
        1 => write!(text, "5 {ns} -{pid} @{page:x}(200) 0->{node:x} ffffffff:ffffffff 1"),
        2 => write!(text, "b {ns} -{pid} @{page:x}(200) {node:x} 1"),
        3 => write!(text, "6 {ns} -{pid} @{page:x}(200) 0->{node:x} 1 0"),
        4 => write!(text, "8 {ns} -{pid} @{page:x}({node:x}) M"),
        5 => write!(text, "7 {ns} -{pid} @{page:x}({node:x}) R"),
        6 => write!(text, "8 {ns} -{pid} @{page:x}({node:x}) U"),
        _ => write!(text, "{} {ns} -{pid} {node:x} 0", if number & 8 == 0 { "9" } else { "a" }),
    };
    let gpu = GpuId {
        index: gpu,
        bdf: gpuev::Bdf {
            domain: 0,
            bus: u8::try_from(gpu + 3).expect("it should be below 11"),
            device: 0,
            function: 0,
        },
        unique_id: None,
        partition: 0,
        kfd_id: node,
    };
    let time = EventTime {
        boot_ns: ns,
        clock: Clock::Driver,
        received_boot_ns: ns + 27_000,
        unix_ns: Anchor { boot_ns: 0, unix_ns: BOOTED_UNIX_NS }.unix_ns_of(ns),
    };
    Item::Event(Event::from_facts(EventFacts {
        gpu,
        seq: number,
        time,
        doubtful: false,
        comm: Comm::new(b"python3"),
        raw: text.as_bytes(),
    }))
}

#[allow(clippy::cast_precision_loss)]
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
