//! What beginnings and ends come to: how long things took, and what moved where.

use std::collections::VecDeque;

use gpuev::names::{eviction_trigger, reset_cause};
use gpuev::span::{Cause, Outcome, Span, SpanData, SpanKind, Spans};
use gpuev::{EventFacts, Gap, GpuId, Record};

use super::counts::PROCESSES;
use super::duration::Durations;
use super::fold::{Boots, Options};
use super::frequent::Frequent;
use super::memory::{Memory, TRIGGERS, trigger_index, trigger_of};
use super::summary::{
    CauseSummary, EvictionSummary, FaultHotSpot, MigrationSummary, Ranking, ResetSummary,
    SpanSummary, ThrashingRange, Who,
};

/// Pairs events, so that [`Costs`] can be told what is over.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    spans: Spans,
    boots: Boots,
}

impl Pairing {
    /// What follows is of another source; what was open has no end.
    pub(super) fn begin(&mut self, boot_id: Option<&str>, done: impl FnMut(u32, Span)) {
        self.finish(done);
        self.boots.begin(boot_id);
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self, mut done: impl FnMut(u32, Span)) {
        let boot = self.boots.number();
        self.spans.finish(|span| done(boot, span));
    }

    pub(super) fn event(
        &mut self,
        facts: &EventFacts<'_>,
        record: &Record<'_>,
        mut done: impl FnMut(u32, Span),
    ) {
        self.boots.see();
        let boot = self.boots.number();
        self.spans.push_decoded(facts, record, |span| done(boot, span));
    }

    pub(super) fn gap(&mut self, gap: &Gap, mut done: impl FnMut(u32, Span)) {
        self.boots.see();
        let boot = self.boots.number();
        self.spans.push_gap(gap, |span| done(boot, span));
    }
}

/// What the spans came to.
#[derive(Debug)]
pub(super) struct Costs {
    kinds: [KindTally; SpanKind::ALL.len()],
    /// The last resets, at most `top`.
    resets: VecDeque<ResetSummary>,
    top: usize,
    causes: Vec<CauseSummary>,
    /// By GPU, those that were reset: how often, and how long they were down.
    down: Vec<(GpuId, u64, u64)>,
    memory: Memory,
    evictions: [Eviction; TRIGGERS],
    lives: Frequent<Who, Life>,
}

#[derive(Debug)]
struct KindTally {
    durations: Durations,
    outcomes: [u64; Outcome::ALL.len()],
}

#[derive(Debug)]
struct Eviction {
    evictions: u64,
    reschedules: u64,
    durations: Durations,
}

/// A process's own spans.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    pub(super) lived_ns: Option<u64>,
    pub(super) open: bool,
    pub(super) evicted_ns: u64,
}

/// GPUs that are told apart by their resets.
const MOST_GPUS: usize = 1024;

impl Costs {
    pub(super) fn new(options: Options) -> Self {
        let kind = |_| KindTally { durations: Durations::new(), outcomes: [0; Outcome::ALL.len()] };
        let eviction = |_| Eviction { evictions: 0, reschedules: 0, durations: Durations::new() };
        Self {
            kinds: std::array::from_fn(kind),
            resets: VecDeque::new(),
            top: options.top,
            causes: Vec::new(),
            down: Vec::new(),
            memory: Memory::new(),
            evictions: std::array::from_fn(eviction),
            lives: Frequent::new(PROCESSES),
        }
    }

    /// What a process's own spans came to.
    pub(super) fn life(&mut self, who: Who) -> Life {
        self.lives.get(&who).copied().unwrap_or_default()
    }

    /// How often a GPU was reset, and how long it was down.
    pub(super) fn down(&self, gpu: GpuId) -> (u64, u64) {
        let of_gpu = self.down.iter().find(|(one, ..)| is_same(*one, gpu));
        of_gpu.map_or((0, 0), |(_, resets, down_ns)| (*resets, *down_ns))
    }

    /// Ranges that thrash, hot spots, and what moved which way.
    pub(super) fn take_memory(
        &mut self,
        top: usize,
    ) -> (Ranking<ThrashingRange>, Ranking<FaultHotSpot>, Vec<MigrationSummary>) {
        let memory = std::mem::replace(&mut self.memory, Memory::new());
        let migrations = memory.migrations();
        let (thrashing, hot_spots) = memory.into_rankings(top);
        (thrashing, hot_spots, migrations)
    }

    pub(super) fn spans(&self) -> Vec<SpanSummary> {
        let of_kind = |(kind, tally): (SpanKind, &KindTally)| {
            let outcomes = Outcome::ALL.into_iter().map(|one| (one, tally.outcomes[one as usize]));
            SpanSummary {
                kind,
                durations: tally.durations.clone(),
                outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
            }
        };
        SpanKind::ALL.into_iter().zip(&self.kinds).map(of_kind).collect()
    }

    pub(super) fn reset_causes(&self) -> Vec<CauseSummary> {
        let mut causes = self.causes.clone();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.resets));
        causes
    }

    pub(super) fn resets(&self) -> Vec<ResetSummary> {
        self.resets.iter().copied().collect()
    }

    pub(super) fn evictions(&self) -> Vec<EvictionSummary> {
        let all = self.evictions.iter().enumerate();
        let mut evictions: Vec<_> = all
            .filter(|(_, eviction)| eviction.evictions > 0)
            .map(|(index, eviction)| EvictionSummary {
                trigger: eviction_trigger(trigger_of(index)),
                evictions: eviction.evictions,
                reschedules: eviction.reschedules,
                durations: eviction.durations.clone(),
            })
            .collect();
        evictions.sort_by_key(|eviction| std::cmp::Reverse(eviction.evictions));
        evictions
    }

    /// Takes a span of that boot.
    pub(super) fn span(&mut self, boot: u32, span: &Span) {
        let tally = &mut self.kinds[span.kind() as usize];
        tally.outcomes[span.outcome as usize] += 1;
        let took_ns = span.duration_ns().filter(|_| span.outcome.is_paired());
        if let Some(ns) = took_ns {
            tally.durations.add(ns);
        }
        let who = Who { boot, pid: span.pid.or(span.tid).unwrap_or(0) };
        match span.data {
            SpanData::Reset { sequence, cause } => self.reset(span, sequence, cause, took_ns),
            SpanData::PageFault { .. } => self.memory.fault(who, span),
            SpanData::Migration { .. } => self.memory.migration(who, span),
            SpanData::QueueEviction { trigger: Some(trigger), reschedules, .. } => {
                self.eviction(who, trigger, reschedules, took_ns);
            }
            SpanData::Process => {
                let life = self.lives.count(who);
                life.lived_ns = life.lived_ns.max(took_ns);
                life.open |= span.start.is_some() && span.end.is_none();
            }
            _ => {}
        }
    }

    fn reset(&mut self, span: &Span, sequence: u32, cause: Cause, took_ns: Option<u64>) {
        let down_ns = took_ns.unwrap_or(0);
        let known = cause.bytes().map(|text| reset_cause(text).unwrap_or("other"));
        let place = self.causes.iter().position(|one| one.cause == known).unwrap_or_else(|| {
            self.causes.push(CauseSummary { cause: known, resets: 0, down_ns: 0 });
            self.causes.len() - 1
        });
        self.causes[place].resets += 1;
        self.causes[place].down_ns += down_ns;
        match self.down.iter().position(|(gpu, ..)| is_same(*gpu, span.gpu)) {
            Some(place) => {
                let (_, resets, total_ns) = &mut self.down[place];
                (*resets, *total_ns) = (*resets + 1, *total_ns + down_ns);
            }
            None if self.down.len() < MOST_GPUS => self.down.push((span.gpu, 1, down_ns)),
            None => {}
        }
        if self.resets.len() >= self.top.max(1) {
            self.resets.pop_front();
        }
        self.resets.push_back(ResetSummary {
            gpu: span.gpu,
            unix_ns: span.time().map_or(0, |time| time.unix_ns),
            sequence,
            cause,
            down_ns: took_ns,
            outcome: span.outcome,
        });
    }

    fn eviction(&mut self, who: Who, trigger: i32, again: u32, took_ns: Option<u64>) {
        let eviction = &mut self.evictions[trigger_index(trigger)];
        eviction.evictions += 1;
        eviction.reschedules += u64::from(again);
        let Some(ns) = took_ns else { return };
        eviction.durations.add(ns);
        let life = self.lives.count(who);
        life.evicted_ns = life.evicted_ns.saturating_add(ns);
    }
}

/// Whether both are one GPU, whatever its index.
pub(super) fn is_same(one: GpuId, other: GpuId) -> bool {
    (one.bdf, one.partition, one.unique_id) == (other.bdf, other.partition, other.unique_id)
}
