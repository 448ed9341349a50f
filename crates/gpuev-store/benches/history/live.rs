//! What `gpuev record` does, at a steady rate: files of the driver, draining thread, queue, recording thread, disk.
//!
//! The driver is a thread that writes lines to sockets. It holds no FIFO to a size: what the recorder can take is
//! measured, not what a driver would have dropped.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use gpuev::process::Processes;
use gpuev::{Filter, GapCause, Gpu, Item, KfdVersion, Machine, Monitor, OpenWith, Scope, time};
use gpuev_sim::SimMachine;
use gpuev_store::{History, Query, Recorder, Session, Writer};

use crate::{cpu_seconds, figure, stream};

/// What the design speaks of.
const RATE: u64 = 300_000;
const DURATION: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);
const GPUS: usize = 8;

#[allow(clippy::cast_precision_loss)] // shown with a few digits
pub(crate) fn record(path: &Path) {
    let sim = SimMachine::builder().gpus(GPUS).build().expect("a machine should be simulated");
    let (opened, driver) = channel();
    let machine = machine(&sim, opened);
    let monitor = Monitor::start(&machine).expect("the machine should be watched");
    let session = Session::of(&machine).with_gpus(&monitor.gpus());
    let writer = Writer::open(path, &session).expect("the history should open");
    let items = monitor.subscribe(Filter::new());
    let recorder =
        Recorder::start(writer, items, Processes::of(&machine)).expect("the recorder should start");
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let feeding = std::thread::spawn(move || feed(driver.try_iter().collect()));
    let (written, feeding_cpu) = feeding.join().expect("the driver should not panic");
    drop(monitor);
    recorder.finish().expect("all should be recorded");
    let took = started.elapsed().as_secs_f64();
    let per_event = 1e6 / written as f64;
    let (recorded, lost) = count(path);
    figure("recorded live, at 300,000/s", "record", recorded as f64 / took, "events/s");
    let missing = written.saturating_sub(recorded).max(lost);
    figure("not recorded of those", "record", missing as f64, "events");
    let used = cpu_seconds() - cpu - feeding_cpu;
    figure("CPU of recording an event live", "record", used * per_event, "µs");
}

fn machine(sim: &SimMachine, opened: Sender<UnixStream>) -> Machine {
    let opened = Mutex::new(opened);
    let open = move |_: &Gpu| {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let _nobody_listens_any_more = opened.lock().map(|opened| opened.send(ours));
        Ok(OwnedFd::from(theirs))
    };
    let version = KfdVersion { major: 1, minor: 23 };
    let source = OpenWith::new(version, Scope::everything("a benchmark"), open);
    Machine::at(sim.root()).with_event_source(source)
}

/// Writes events at the rate. Returns how many, and the CPU seconds that it took.
fn feed(mut files: Vec<UnixStream>) -> (u64, f64) {
    assert_eq!(files.len(), GPUS);
    let per_tick = RATE * u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX) / 1_000_000_000;
    let begun = Instant::now();
    let (mut number, mut due, mut text) = (0, begun, String::new());
    let mut lines = vec![String::new(); GPUS];
    while begun.elapsed() < DURATION {
        for _ in 0..per_tick {
            stream::line(&mut text, number, time::boot_now_ns());
            let gpu = stream::gpu(number).index as usize;
            lines[gpu].push_str(&text);
            lines[gpu].push('\n');
            number += 1;
        }
        for (file, lines) in files.iter_mut().zip(&mut lines) {
            file.write_all(lines.as_bytes()).expect("the reader should be there");
            lines.clear();
        }
        due += TICK;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    #[allow(clippy::cast_precision_loss)] // seconds of a benchmark
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    (number, cpu)
}

/// Events in the file, and those that the recorder was too slow for.
fn count(path: &Path) -> (u64, u64) {
    let history = History::open(path).expect("the history should open");
    let (mut events, mut lost) = (0, 0);
    for item in history.items(&Query::new()) {
        match item.expect("the history should be readable") {
            Item::Event(_) => events += 1,
            Item::Gap(gap) if gap.cause == GapCause::SubscriberSlow => {
                lost += gap.count.unwrap_or(0);
            }
            Item::Gap(_) => {}
        }
    }
    (events, lost)
}
