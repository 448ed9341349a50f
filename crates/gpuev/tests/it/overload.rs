//! No silent loss: under random overload, on every kernel, what the driver wrote is what the reader delivered
//! and what its gaps cover. The simulator counts what it accepted and dropped; the reader is not asked.

use gpuev::{EventMask, EventReader, Item};
use gpuev_sim::{Kernel, SimMachine};
use proptest::prelude::*;

use crate::driver::machine_of;

/// What the driver and the reader do, in turn.
#[derive(Debug, Clone)]
enum Step {
    /// So many lines of so many bytes.
    Emit { lines: usize, length: usize },
    /// The reader takes all there is, or so many items.
    Read { items: usize },
}

/// What became of a line, and when.
struct Line {
    boot_ns: u64,
    accepted: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let emit = (1..60_usize, 8..103_usize).prop_map(|(lines, length)| Step::Emit { lines, length });
    let flood =
        (60..400_usize, 8..103_usize).prop_map(|(lines, length)| Step::Emit { lines, length });
    let read = prop_oneof![Just(usize::MAX), 1..40_usize].prop_map(|items| Step::Read { items });
    prop::collection::vec(prop_oneof![3 => emit, 1 => flood, 3 => read], 1..30)
}

/// A message of exactly `length` bytes, its newline included; one of 95 or more has none, as the driver's.
fn message(length: usize) -> Vec<u8> {
    let mut text = b"f 0".to_vec();
    text.resize(length - 1, b'0');
    text.push(if length < 96 { b'\n' } else { b'0' });
    if length >= 96 {
        text[95] = 0;
        text.resize(103, 7);
    }
    text
}

struct Run {
    sim: SimMachine,
    reader: EventReader,
    lines: Vec<Line>,
    items: Vec<Item>,
}

impl Run {
    fn new(kernel: Kernel) -> Self {
        let sim = SimMachine::builder().kernel(kernel).build().unwrap();
        let machine = machine_of(&sim);
        let gpu = machine.gpus().unwrap().remove(0);
        let reader = EventReader::open(&machine, &gpu, EventMask::ALL).unwrap();
        Self { sim, reader, lines: Vec::new(), items: Vec::new() }
    }

    fn accepted(&self) -> u64 {
        let file = &self.sim.event_files()[0];
        file.accepted_lines - file.drop_reports
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Emit { lines, length } => (0..lines).for_each(|_| self.emit(length)),
            Step::Read { items } => self.read(items),
        }
    }

    fn emit(&mut self, length: usize) {
        let before = self.accepted();
        self.sim.emit_raw(0, 15, None, &message(length));
        let accepted = self.accepted() > before;
        self.lines.push(Line { boot_ns: gpuev::time::boot_now_ns(), accepted });
    }

    fn read(&mut self, items: usize) {
        for _ in 0..items {
            match self.reader.next().unwrap() {
                Some(item) => self.items.push(item),
                None => return,
            }
        }
    }

    /// Every accepted line arrived, in order and whole; before the line that follows a dropped one there is a
    /// gap that covers the moment of the drop.
    fn check(&self) {
        // A driver may put in what it dropped, which may as well be another event.
        let is_count = |item: &&Item| matches!(item, Item::Event(e) if e.raw().starts_with(b"e "));
        let mut items = self.items.iter().filter(|item| !is_count(item));
        let mut gaps = Vec::new();
        let mut open_drops: Vec<u64> = Vec::new();
        for line in &self.lines {
            if !line.accepted {
                open_drops.push(line.boot_ns);
                continue;
            }
            while let Item::Gap(gap) = items.next().expect("an accepted line should arrive") {
                gaps.push((gap.from_boot_ns, gap.to_boot_ns));
            }
            for drop in open_drops.drain(..) {
                let covered = gaps.iter().any(|(from, to)| (*from..=*to).contains(&drop));
                assert!(covered, "a drop at {drop} is in none of {gaps:?}");
            }
        }
        gaps.extend(items.map(|item| match item {
            Item::Gap(gap) => (gap.from_boot_ns, gap.to_boot_ns),
            Item::Event(event) => panic!("nobody wrote {}", event.raw().escape_ascii()),
        }));
        for drop in open_drops {
            let covered = gaps.iter().any(|(from, to)| (*from..=*to).contains(&drop));
            assert!(covered, "a last drop at {drop} is in none of {gaps:?}");
        }
    }
}

fn nothing_is_lost_silently(kernel: Kernel, steps: &[Step]) {
    let mut run = Run::new(kernel);
    for step in steps {
        run.take(step);
    }
    run.read(usize::MAX);
    // AMD's own driver puts its count of drops into the FIFO when it is read. A simulated one on a socket does
    // not see the read, only the next event.
    run.emit(20);
    run.read(usize::MAX);
    run.check();
}

macro_rules! on_each_kernel {
    ($($name:ident => $kernel:expr,)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(60))]
            $(
                #[test]
                fn $name(steps in steps()) {
                    nothing_is_lost_silently($kernel, &steps);
                }
            )*
        }
    };
}

on_each_kernel! {
    on_the_oldest => Kernel::Oldest,
    on_6_1 => Kernel::V6_1,
    on_6_12 => Kernel::V6_12,
    on_6_12_with_the_nul => Kernel::V6_12Nul,
    on_7_2 => Kernel::V7_2,
    on_7_3 => Kernel::V7_3,
    on_amds_own => Kernel::Dkms,
}
