//! Bytes moved and page faults over time.

use std::collections::BTreeMap;
use std::io::Write;

use gpuev::span::Direction;
use gpuev::{Event, EventData, Migration};

use super::Page;
use super::tracks::{Track, Tracks};

/// Nanoseconds that are counted together.
const INTERVAL_NS: u64 = 100_000_000;
const MOVED: &str = "bytes moved in 100 ms";
const FAULTS: &str = "page faults in 100 ms";

#[derive(Debug, Default)]
pub(super) struct Counters {
    gpus: BTreeMap<u64, Counts>,
}

/// What one GPU did in one interval.
#[derive(Debug, Default)]
struct Counts {
    interval: u64,
    moved: Moved,
    faults: u64,
}

/// Bytes by direction.
#[derive(Debug, Default)]
struct Moved {
    to_gpu: u64,
    to_system: u64,
    between_gpus: u64,
}

impl Moved {
    fn add(&mut self, migration: &Migration) {
        let bytes = match Direction::of(migration) {
            Direction::ToGpu => &mut self.to_gpu,
            Direction::ToSystem => &mut self.to_system,
            Direction::BetweenGpus => &mut self.between_gpus,
        };
        *bytes = bytes.saturating_add(migration.size);
    }
}

impl Counters {
    pub(super) fn count<W: Write>(
        &mut self,
        page: &mut Page<W>,
        tracks: &mut Tracks,
        event: &Event,
    ) {
        let data = event.data();
        let counted = matches!(
            data,
            EventData::PageFaultStart { .. } | EventData::MigrateEnd { error: None | Some(0), .. }
        );
        if !counted {
            return;
        }
        let gpu = tracks.gpu(page, event.gpu);
        let interval = page.clock.at(event.time.boot_ns) / INTERVAL_NS;
        let counts = self.gpus.entry(gpu.group).or_insert(Counts { interval, ..Counts::default() });
        if interval > counts.interval {
            counts.write(page, gpu.group);
            if interval > counts.interval + 1 {
                counts.write_zero(page, gpu.group);
            }
            *counts = Counts { interval, ..Counts::default() };
        }
        match data {
            EventData::MigrateEnd { migration, .. } => counts.moved.add(&migration),
            _ => counts.faults += 1,
        }
    }

    /// Nothing follows, or nothing that joins this.
    pub(super) fn finish<W: Write>(&mut self, page: &mut Page<W>) {
        for (group, counts) in std::mem::take(&mut self.gpus) {
            counts.write(page, group);
            counts.write_zero(page, group);
        }
    }
}

impl Counts {
    fn write<W: Write>(&self, page: &mut Page<W>, group: u64) {
        let at = self.interval.saturating_mul(INTERVAL_NS);
        let gpu = Track { group, number: group };
        let Moved { to_gpu, to_system, between_gpus } = self.moved;
        let moved = [("to_gpu", to_gpu), ("to_system", to_system), ("between_gpus", between_gpus)];
        page.counter(gpu, MOVED, at, &moved);
        page.counter(gpu, FAULTS, at, &[("faults", self.faults)]);
    }

    /// The interval after it had nothing: without this, its value would be drawn on.
    fn write_zero<W: Write>(&self, page: &mut Page<W>, group: u64) {
        Self { interval: self.interval.saturating_add(1), ..Self::default() }.write(page, group);
    }
}
