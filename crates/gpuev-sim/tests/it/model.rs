//! Any sequence of lines, masks and reads gives what a FIFO in memory gives.

use std::collections::VecDeque;

use gpuev_sim::{Client, Kernel};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::{machine, open, read, set_mask};

#[derive(Clone, Debug)]
enum Step {
    /// A line of so many bytes.
    Line(usize),
    Read(usize),
    Mask(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (4_usize..=103).prop_map(Step::Line),
        2 => (1_usize..=3000).prop_map(Step::Read),
        1 => Just(Step::Read(1 << 16)),
        1 => prop::bool::weighted(0.8).prop_map(Step::Mask),
    ]
}

/// What the driver's FIFO does, in the simplest words.
struct Model {
    capacity: usize,
    held: VecDeque<u8>,
    dropped: u64,
}

impl Model {
    fn put(&mut self, line: &[u8]) {
        if self.held.len() + line.len() <= self.capacity {
            self.held.extend(line);
        } else {
            self.dropped += 1;
        }
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        self.held.drain(..size.min(self.held.len())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_fifo_is_that_of_the_model(
        kernel in prop::sample::select(vec![Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3]),
        steps in vec(step(), 1..600),
    ) {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), u64::MAX);
        let mut model =
            Model { capacity: kernel.fifo_bytes(), held: VecDeque::new(), dropped: 0 };
        let mut on = true;
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Line(bytes) => {
                    let line = format!("{:0width$}\n", number, width = bytes - 1);
                    machine.emit_raw(0, 2, None, line.as_bytes());
                    if on {
                        model.put(line.as_bytes());
                    }
                }
                Step::Read(size) => {
                    prop_assert_eq!(read(&file, *size).unwrap_or_default(), model.take(*size));
                }
                Step::Mask(let_through) => {
                    on = *let_through;
                    set_mask(&file, if on { u64::MAX } else { 0 });
                }
            }
            prop_assert_eq!(machine.held_bytes(0), model.held.len());
        }
        prop_assert_eq!(read(&file, 1 << 16).unwrap_or_default(), model.take(usize::MAX));
        prop_assert_eq!(machine.event_files()[0].dropped_lines, model.dropped);
    }
}
