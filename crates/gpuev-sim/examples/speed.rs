//! How fast the simulator is, in figures: `cargo run --release -p gpuev-sim --example speed`.
//!
//! The generator and a plain reader (poll, read 64 KiB) share the machine, so the figures are of
//! both together.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gpuev_sim::{Client, DriverEvent, Scenario, SimMachine, Story};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const EVENT: DriverEvent = DriverEvent::PageFaultStart {
    pid: gpuev_sim::Pid::in_namespace(4242, 4242),
    page: 0x7_f000_0000,
    write: true,
};

fn main() -> io::Result<()> {
    println!("{:44} {:>12} {:>10}", "", "events/s", "dropped");
    for batch in [1, 10, 100] {
        raw(batch)?;
    }
    for rate in [1_000, 10_000, 100_000, 1_000_000] {
        played(rate)?;
    }
    Ok(())
}

/// Everything at once: as many lines a second as can be.
fn raw(batch: usize) -> io::Result<()> {
    let machine = SimMachine::new()?;
    let events = vec![EVENT; batch];
    let mut count = 0_u32;
    let start = Instant::now();
    read_while(&machine, || {
        while start.elapsed() < Duration::from_secs(2) {
            machine.emit_batch(0, &events);
            count += u32::try_from(batch).unwrap_or(0);
        }
    })?;
    report(&machine, &format!("emitted {batch} at a time"), f64::from(count), start);
    Ok(())
}

/// A story at a rate.
fn played(rate: u64) -> io::Result<()> {
    let machine = SimMachine::new()?;
    let start = Instant::now();
    let player = machine
        .play(Scenario::new(Story::FaultStorm).rate(rate).duration(Duration::from_secs(2)))?;
    let mut truth = None;
    read_while(&machine, || truth = Some(player.join()))?;
    let truth = truth.unwrap_or_default();
    let total = u32::try_from(truth.total()).unwrap_or(u32::MAX);
    let what = format!("played at {rate}/s ({} missed)", truth.missed);
    report(&machine, &what, f64::from(total), start);
    Ok(())
}

fn report(machine: &SimMachine, what: &str, events: f64, start: Instant) {
    let dropped: u64 = machine.event_files().iter().map(|file| file.dropped_lines).sum();
    println!("{what:44} {:12.0} {dropped:10}", events / start.elapsed().as_secs_f64());
}

/// Reads GPU 0 in a thread while `work` goes on.
fn read_while(machine: &SimMachine, work: impl FnOnce()) -> io::Result<()> {
    let file = machine.open_events(machine.kfd_gpu_id(0)?, &Client::root())?;
    rustix::io::write(&file, &u64::MAX.to_ne_bytes())?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| drain_until(&file, &done));
        work();
        done.store(true, Ordering::Release);
    });
    Ok(())
}

fn drain_until(file: &OwnedFd, done: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !done.load(Ordering::Acquire) {
        let mut fds = [PollFd::new(file, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).is_ok() {
            let _ = rustix::io::read(file, &mut buffer);
        }
    }
}
