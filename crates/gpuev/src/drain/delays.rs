//! A thread may stand still anywhere, and the world goes on: whatever the driver then writes or drops arrives, or lies in
//! a gap. The simulator says what it accepted; gaps are held against the moments at which it was written to.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use gpuev_sim::{Client, Kernel, SimMachine};

use crate::seam::{Moment, Standing};
use crate::time::boot_now_ns;
use crate::{
    EventData, EventMask, EventReader, Filter, Gap, GapCause, Item, KfdVersion, Machine, Monitor,
    OpenWith, Scope,
};

/// More than any FIFO holds.
const FLOOD: usize = 400;
const MOMENTS: [Moment; 4] =
    [Moment::BeforeRead, Moment::AfterRead, Moment::BeforeClose, Moment::AfterClose];
const KERNELS: [Kernel; 4] = [Kernel::V6_1, Kernel::V6_12, Kernel::V7_3, Kernel::Dkms];

/// A line, by when it was written.
#[derive(Debug, Clone, Copy)]
struct Line {
    from_boot_ns: u64,
    to_boot_ns: u64,
}

/// A driver and what it did.
#[derive(Clone)]
struct World {
    sim: SimMachine,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl World {
    fn new(kernel: Kernel) -> Self {
        Self { sim: SimMachine::builder().kernel(kernel).build().unwrap(), lines: Arc::default() }
    }

    fn machine(&self) -> Machine {
        let (major, minor) = self.sim.kfd_version();
        let opener = self.sim.clone();
        let open = move |gpu: &crate::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
        let source = OpenWith::new(KfdVersion { major, minor }, Scope::everything("a test"), open);
        Machine::at(self.sim.root()).with_event_source(source)
    }

    /// Writes lines that can be told apart, one after the other.
    fn write(&self, count: usize) {
        let mut lines = self.lines.lock().unwrap();
        for _ in 0..count {
            let from_boot_ns = boot_now_ns();
            let line = format!("7 {from_boot_ns} -0 @{:x}(64) W\n", lines.len());
            self.sim.emit_raw(0, 7, None, line.as_bytes());
            lines.push(Line { from_boot_ns, to_boot_ns: boot_now_ns() });
        }
    }

    /// From now on, whoever passes `moment` for the `nth` time finds that the driver has been flooded meanwhile.
    fn flood_at(&self, moment: Moment, nth: usize) -> Standing {
        let (world, passed) = (self.clone(), AtomicUsize::new(0));
        Standing::still(move |now| {
            if now == moment && passed.fetch_add(1, Ordering::Relaxed) == nth {
                world.write(FLOOD);
            }
            Ok(())
        })
    }

    /// Every line is among `items` once, or lies in one of their gaps.
    fn check(&self, items: &[Item], what: &str) {
        let lines = self.lines.lock().unwrap();
        let mut came = vec![0; lines.len()];
        let mut gaps: Vec<&Gap> = Vec::new();
        for item in items {
            match item {
                Item::Gap(gap) => gaps.push(gap),
                Item::Event(event) => {
                    if let EventData::PageFaultStart { address, .. } = event.data() {
                        came[usize::try_from(address / 4096).unwrap()] += 1;
                    }
                }
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let in_gap = gaps.iter().any(|gap| {
                gap.from_boot_ns <= line.from_boot_ns && line.to_boot_ns <= gap.to_boot_ns
            });
            assert!(came[number] == 1 || came[number] == 0 && in_gap, "{what}: {number} {line:?}");
        }
    }
}

#[test]
fn a_reader_that_stands_still_anywhere_tells_of_every_loss() {
    for kernel in KERNELS {
        for moment in [Moment::BeforeRead, Moment::AfterRead] {
            for nth in 0..4 {
                let world = World::new(kernel);
                let machine = world.machine();
                let gpu = machine.gpus().unwrap().remove(0);
                let mut reader = EventReader::open(&machine, &gpu, EventMask::ALL).unwrap();
                let _still = world.flood_at(moment, nth);
                let mut items = Vec::new();
                for _ in 0..4 {
                    world.write(1);
                    items.extend(std::iter::from_fn(|| reader.next().unwrap()));
                }
                world.check(&items, &format!("{kernel:?} {moment:?} {nth}"));
            }
        }
    }
}

#[test]
fn a_monitor_that_stands_still_anywhere_tells_of_every_loss() {
    for kernel in KERNELS {
        for moment in MOMENTS {
            for nth in 0..3 {
                let world = World::new(kernel);
                let monitor = Monitor::start(&world.machine()).unwrap();
                let mut items = monitor.subscribe(Filter::new());
                let still = world.flood_at(moment, nth);
                let mut taken = Vec::new();
                for _ in 0..3 {
                    world.write(1);
                    monitor.release();
                    world.write(1);
                    monitor.resume().unwrap();
                }
                drop(still);
                // Behind the last gap all is read again.
                let mut yields = 0;
                while yields < 3 {
                    let item = items.wait(None).unwrap();
                    let is_yield = |gap: &Gap| gap.cause == GapCause::Yielded;
                    yields += usize::from(matches!(&item, Item::Gap(gap) if is_yield(gap)));
                    taken.push(item);
                }
                drop(monitor);
                taken.extend(items);
                world.check(&taken, &format!("{kernel:?} {moment:?} {nth}"));
            }
        }
    }
}

/// `/proc` may take as long as it likes, once all files are closed.
#[test]
fn nobody_waits_for_the_names_of_what_was_read_before_a_close() {
    let world = World::new(Kernel::V7_3);
    let monitor = Arc::new(Monitor::start(&world.machine()).unwrap());
    let mut items = monitor.subscribe(Filter::new());
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let still = Standing::still(move |moment| {
        if moment == Moment::BeforeLookup {
            let _nobody_asks = entered.send(());
            let _goes_on = may_go_on.lock().unwrap().recv();
        }
        Ok(())
    });
    world.sim.emit_raw(0, 7, None, b"7 1 -4242 @7fff00000(64) W\n");
    // The thread that looks names up, then the one that releases.
    has_entered.recv().unwrap();
    let releasing = std::thread::spawn({
        let monitor = Arc::clone(&monitor);
        move || monitor.release()
    });
    while world.sim.event_files().iter().any(|file| !file.closed) {
        std::thread::yield_now();
    }
    assert!(monitor.gpus().is_empty() && monitor.failures().is_empty());
    drop(go_on);
    releasing.join().unwrap();
    assert!(matches!(items.try_next(), Some(Item::Event(_))), "it is handed out all the same");
    drop(still);
    monitor.resume().unwrap();
    let Some(Item::Gap(gap)) = items.wait(None) else { panic!("the time away is told") };
    assert_eq!(gap.cause, GapCause::Yielded);
}

/// A GPU goes while a thread stands still behind a read: whatever was dropped before lies in a gap.
#[test]
fn what_a_gpu_dropped_before_it_went_lies_in_a_gap() {
    for kernel in KERNELS {
        for moment in [Moment::BeforeRead, Moment::AfterRead] {
            let world = World::new(kernel);
            let monitor = Monitor::start(&world.machine()).unwrap();
            let mut items = monitor.subscribe(Filter::new());
            let (other, passed) = (world.clone(), AtomicUsize::new(0));
            let still = Standing::still(move |now| {
                if now == moment && passed.fetch_add(1, Ordering::Relaxed) == 0 {
                    other.write(FLOOD);
                    other.sim.remove_gpu(0).unwrap();
                }
                Ok(())
            });
            world.write(1);
            let mut taken = Vec::new();
            loop {
                let item = items.wait(None).unwrap();
                let is_removed = |gap: &Gap| gap.cause == GapCause::GpuRemoved;
                let is_last = matches!(&item, Item::Gap(gap) if is_removed(gap));
                taken.push(item);
                if is_last {
                    break;
                }
            }
            drop(still);
            world.check(&taken, &format!("{kernel:?} {moment:?}"));
        }
    }
}

/// The last lines and the end of an event file are one edge to a thread that was busy meanwhile.
#[test]
fn an_end_that_comes_with_the_last_lines_is_noticed() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let world = World { sim, lines: Arc::default() };
    let monitor = Monitor::start(&world.machine()).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    let (other, passed) = (world.clone(), AtomicUsize::new(0));
    let _still = Standing::still(move |moment| {
        if moment == Moment::BeforeRead && passed.fetch_add(1, Ordering::Relaxed) == 0 {
            other.write(3);
            // It comes back as it was, before anybody has looked: the topology tells nothing.
            other.sim.remove_gpu(0).unwrap();
            other.sim.restore_gpu(0).unwrap();
        }
        Ok(())
    });
    world.sim.emit_raw(1, 2, None, b"2 400:7\n");
    let causes = [GapCause::GpuRemoved, GapCause::Reopened];
    let mut gaps = (&mut items).filter_map(|item| match item {
        Item::Gap(gap) => Some(gap.cause),
        Item::Event(_) => None,
    });
    assert_eq!([gaps.next(), gaps.next()].map(Option::unwrap), causes);
}

#[test]
fn a_reader_notices_an_end_that_comes_with_the_last_lines() {
    let world = World::new(Kernel::V7_3);
    let machine = world.machine();
    let gpu = machine.gpus().unwrap().remove(0);
    let mut reader = EventReader::open(&machine, &gpu, EventMask::ALL).unwrap();
    world.write(3);
    world.sim.remove_gpu(0).unwrap();
    for _ in 0..3 {
        assert!(matches!(reader.wait(None), Ok(Some(Item::Event(_)))));
    }
    assert_eq!(reader.wait(None).unwrap_err().kind(), crate::ErrorKind::GpuRemoved);
}

#[test]
fn a_read_that_fails_for_a_moment_is_tried_again() {
    use rustix::io::Errno;
    for errno in [Errno::NOMEM, Errno::INTR, Errno::IO, Errno::BUSY] {
        let world = World::new(Kernel::V7_3);
        let monitor = Monitor::start(&world.machine()).unwrap();
        let mut items = monitor.subscribe(Filter::new());
        let failures = AtomicUsize::new(0);
        let _still = Standing::still(move |moment| {
            let fails =
                moment == Moment::BeforeRead && failures.fetch_add(1, Ordering::Relaxed) < 3;
            if fails { Err(errno.into()) } else { Ok(()) }
        });
        world.write(5);
        for _ in 0..5 {
            assert!(matches!(items.wait(None), Some(Item::Event(_))), "no gap, no end");
        }
    }
}
