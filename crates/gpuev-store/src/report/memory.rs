//! Memory that moves and faults: which way, why, and which ranges suffer.

use gpuev::names::migrate_trigger;
use gpuev::span::{Direction, Outcome, Span, SpanData};
use gpuev::{Access, Comm, Migration};

use super::frequent::Frequent;
use super::summary::{FaultHotSpot, MigrationSummary, Ranking, ThrashingRange, Who};

/// 2 MiB: what the driver moves at once where nobody said otherwise (`svm_range_get_default_granularity`).
const BLOCK: u64 = 2 << 20;
/// Blocks of one migration that are looked at.
const BLOCKS: u64 = 64;
/// Triggers that have names, and one place for the others.
pub(super) const TRIGGERS: usize = 8;
/// Ranges and hot spots that are followed at least.
const FOLLOWED: usize = 8192;

/// A block of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Block {
    who: Who,
    number: u64,
}

/// How a block was moved about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Motion {
    name: Comm,
    from: Option<u32>,
    bounces: u64,
    moves: u64,
    bytes: u64,
    triggers: [u32; TRIGGERS],
}

/// How a block faulted.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    name: Comm,
    faults: u64,
    writes: u64,
    migrated: u64,
    total_ns: u64,
}

/// Migrations of one direction and trigger.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    moved: u64,
    bytes: u64,
    failed: u64,
}

const DIRECTIONS: [Direction; 3] = [Direction::ToGpu, Direction::ToSystem, Direction::BetweenGpus];

#[derive(Debug)]
pub(super) struct Memory {
    motions: Frequent<Block, Motion>,
    faults: Frequent<Block, Faults>,
    moved: [[Moved; TRIGGERS]; DIRECTIONS.len()],
}

/// Where a trigger is counted: those of later kernels together.
pub(super) fn trigger_index(trigger: i32) -> usize {
    usize::try_from(trigger).map_or(TRIGGERS - 1, |number| number.min(TRIGGERS - 1))
}

/// The number that `index` stands for, if it is one.
pub(super) fn trigger_of(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            motions: Frequent::new(FOLLOWED),
            faults: Frequent::new(FOLLOWED),
            moved: Default::default(),
        }
    }

    /// A page fault that is over or given up.
    pub(super) fn fault(&mut self, who: Who, span: &Span) {
        let SpanData::PageFault { address, access, .. } = span.data else { return };
        if span.start.is_none() {
            return;
        }
        let faults = self.faults.count(Block { who, number: address / BLOCK });
        faults.name = known(span.process, faults.name);
        faults.faults += 1;
        faults.writes += u64::from(access == Some(Access::Write));
        faults.migrated += u64::from(span.outcome == Outcome::Migrated);
        let took = if span.outcome.is_paired() { span.duration_ns() } else { None };
        faults.total_ns = faults.total_ns.saturating_add(took.unwrap_or(0));
    }

    /// A migration of which the end was seen.
    pub(super) fn migration(&mut self, who: Who, span: &Span) {
        let SpanData::Migration { migration, error } = span.data else { return };
        if span.end.is_none() {
            return;
        }
        let direction = Direction::of(&migration) as usize;
        let moved = &mut self.moved[direction][trigger_index(migration.trigger)];
        if error.is_some_and(|error| error != 0) {
            moved.failed += 1;
            return;
        }
        moved.moved += 1;
        moved.bytes = moved.bytes.saturating_add(migration.size);
        self.motion(who, span.process, &migration);
    }

    fn motion(&mut self, who: Who, name: Comm, migration: &Migration) {
        let end = migration.address.saturating_add(migration.size);
        let first = migration.address / BLOCK;
        for number in first..end.div_ceil(BLOCK).min(first + BLOCKS) {
            let from = (number * BLOCK).max(migration.address);
            let to = (number + 1).saturating_mul(BLOCK).min(end);
            let motion = self.motions.count(Block { who, number });
            motion.name = known(name, motion.name);
            motion.bounces += u64::from(motion.from == Some(migration.to));
            motion.from = Some(migration.from);
            motion.moves += 1;
            motion.bytes = motion.bytes.saturating_add(to.saturating_sub(from));
            let trigger = &mut motion.triggers[trigger_index(migration.trigger)];
            *trigger = trigger.saturating_add(1);
        }
    }

    pub(super) fn migrations(&self) -> Vec<MigrationSummary> {
        let of_direction = |direction: Direction| {
            let moved = self.moved[direction as usize].iter().enumerate();
            let moved = moved.filter(|(_, moved)| moved.moved + moved.failed > 0);
            moved.map(move |(index, moved)| MigrationSummary {
                direction,
                trigger: migrate_trigger(trigger_of(index)),
                moved: moved.moved,
                bytes: moved.bytes,
                failed: moved.failed,
            })
        };
        DIRECTIONS.into_iter().flat_map(of_direction).collect()
    }

    pub(super) fn into_rankings(
        self,
        top: usize,
    ) -> (Ranking<ThrashingRange>, Ranking<FaultHotSpot>) {
        let (motions, faults) = (self.motions.error(), self.faults.error());
        let ranges = ranges(self.motions.into_sorted());
        let spots = self.faults.into_sorted().into_iter();
        let spots = spots.map(|(block, faults)| hot_spot(block, faults)).collect();
        (
            ranked(ranges, top, motions, |range| (range.bounces, range.bytes)),
            ranked(spots, top, faults, |spot| (spot.faults, spot.total_ns)),
        )
    }
}

/// The newer name, if it is one.
pub(super) fn known(name: Comm, before: Comm) -> Comm {
    if name == Comm::NONE { before } else { name }
}

/// The first `top` of `all` by `weight`; of equal ones, those that come first.
pub(super) fn ranked<T>(
    mut all: Vec<T>,
    top: usize,
    missing_at_most: u64,
    weight: impl Fn(&T) -> (u64, u64),
) -> Ranking<T> {
    all.sort_by_key(|one| std::cmp::Reverse(weight(one)));
    let more = all.len().saturating_sub(top) as u64;
    all.truncate(top);
    Ranking { entries: all, more, missing_at_most }
}

fn hot_spot(block: Block, faults: Faults) -> FaultHotSpot {
    let Faults { name, faults, writes, migrated, total_ns } = faults;
    let address = block.number * BLOCK;
    FaultHotSpot { who: block.who, name, address, faults, writes, migrated, total_ns }
}

/// Blocks that turned, side by side and as often, as one range.
fn ranges(blocks: Vec<(Block, Motion)>) -> Vec<ThrashingRange> {
    let mut ranges: Vec<ThrashingRange> = Vec::new();
    for (block, motion) in blocks.into_iter().filter(|(_, motion)| motion.bounces > 0) {
        let address = block.number * BLOCK;
        let beside = |range: &&mut ThrashingRange| {
            range.who == block.who
                && range.address + range.size == address
                && range.bounces == motion.bounces
        };
        if let Some(range) = ranges.last_mut().filter(|range| beside(range)) {
            range.size += BLOCK;
            range.moves = range.moves.max(motion.moves);
            range.bytes = range.bytes.saturating_add(motion.bytes);
            range.triggers = most(&range.triggers, &triggers(&motion));
        } else {
            ranges.push(ThrashingRange {
                who: block.who,
                name: motion.name,
                address,
                size: BLOCK,
                bounces: motion.bounces,
                moves: motion.moves,
                bytes: motion.bytes,
                triggers: triggers(&motion),
            });
        }
    }
    ranges
}

type Triggers = Vec<(Option<&'static str>, u64)>;

fn triggers(motion: &Motion) -> Triggers {
    let counts = motion.triggers.iter().enumerate().filter(|(_, count)| **count > 0);
    counts.map(|(index, count)| (migrate_trigger(trigger_of(index)), u64::from(*count))).collect()
}

/// Of each trigger the larger count.
fn most(a: &Triggers, b: &Triggers) -> Triggers {
    let mut most = a.clone();
    for (name, count) in b {
        match most.iter_mut().find(|(one, _)| one == name) {
            Some((_, there)) => *there = (*there).max(*count),
            None => most.push((*name, *count)),
        }
    }
    most
}
