//! What beginnings and ends come to: how long things took, and what moved where.

use std::collections::{HashMap, VecDeque};

use gpuev::names::{eviction_trigger, reset_cause};
use gpuev::span::{Cause, Outcome, Span, SpanData, SpanKind, Spans};
use gpuev::{Bdf, EventFacts, Filter, Gap, GpuId, Record};

use super::counts::PROCESSES;
use super::duration::Durations;
use super::fold::{Current, Machines, Options};
use super::frequent::Frequent;
use super::memory::{Memory, TRIGGERS, trigger_index, trigger_of};
use super::summary::{
    CauseSummary, EvictionSummary, FaultHotSpot, MigrationSummary, Ranking, ResetSummary, Source,
    SpanSummary, ThrashingRange, Who,
};

/// By kind of span, whether starts or ends of it were left out.
pub(super) type Unpaired = [bool; SpanKind::ALL.len()];

/// Pairs events, so that [`Costs`] can be told what is over.
#[derive(Debug)]
pub(super) struct Pairing {
    spans: Spans,
    current: Current,
    /// What is wanted of what was recorded.
    wanted: Filter,
    /// What is not paired in this source, because one half of it was left out.
    halves: Unpaired,
    /// The same of all sources.
    left_out: Unpaired,
}

impl Pairing {
    pub(super) fn new(wanted: Filter) -> Self {
        let halves = SpanKind::ALL.map(|kind| !wanted.passes_both_ends_of(kind));
        let (spans, current) = (Spans::default(), Current::default());
        Self { spans, current, wanted, halves, left_out: halves }
    }

    /// What follows is of another source; what was open has no end.
    pub(super) fn begin(&mut self, source: &Source, mut done: impl FnMut(u32, Span)) {
        let before = self.current.last();
        let boot = self.current.begin(source.boot_id.as_deref());
        self.spans.begin(boot, |span| done(before, span));
        for kind in SpanKind::ALL {
            let both = |filter: &Filter| filter.passes_both_ends_of(kind);
            self.halves[kind as usize] = !both(&source.filter) || !both(&self.wanted);
            self.left_out[kind as usize] |= self.halves[kind as usize];
        }
    }

    /// The boot that the source is of.
    pub(super) fn boot(&self) -> u32 {
        self.current.last()
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self, mut done: impl FnMut(u32, Span)) {
        let boot = self.current.last();
        self.spans.finish(|span| done(boot, span));
    }

    pub(super) fn event(
        &mut self,
        facts: &EventFacts<'_>,
        record: &Record<'_>,
        mut done: impl FnMut(u32, Span),
    ) {
        let boot = self.current.boot();
        match record.event_type().and_then(SpanKind::of) {
            Some(kind) if self.halves[kind as usize] => {
                self.spans.push_alone(facts, record, |span| done(boot, span));
            }
            _ => self.spans.push_decoded(facts, record, |span| done(boot, span)),
        }
    }

    /// A process begins or ends with an event that is not wanted.
    pub(super) fn unwanted(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.spans.see(facts, record);
    }

    pub(super) fn gap(&mut self, gap: &Gap, mut done: impl FnMut(u32, Span)) {
        let boot = self.current.boot();
        self.spans.push_gap(gap, |span| done(boot, span));
    }

    pub(super) fn left_out(&self) -> Unpaired {
        self.left_out
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
    /// By GPU, those that were reset.
    machines: Machines,
    /// By machine and GPU.
    down: Vec<((usize, GpuId), Down)>,
    memory: Memory,
    evictions: [Eviction; TRIGGERS],
    lives: Frequent<Who, Lived>,
    /// Evictions within others that go on, by process and GPU.
    nested: HashMap<(Who, Bdf, u32), Nested>,
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

/// Resets of a GPU.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Down {
    pub(super) resets: u64,
    /// How many of them were seen to begin and to end, and how long they took.
    pub(super) timed: u64,
    pub(super) down_ns: u64,
}

/// A process's own spans.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lived {
    pub(super) lived_ns: Option<u64>,
    pub(super) guessed: bool,
    pub(super) open: bool,
    pub(super) evicted_ns: u64,
}

/// Evictions that are over within others that are not: from when on, and how long they took, the oldest first. None
/// touches another.
#[derive(Debug, Default)]
struct Nested(Vec<(u64, u64)>);

/// Nested evictions that are told apart.
const NESTED: usize = 256;

impl Nested {
    /// What began at `from` is over, and so is all within it.
    fn end(&mut self, from: u64, took_ns: u64) {
        while self.0.pop_if(|(inner, _)| *inner >= from).is_some() {}
        if self.0.len() >= NESTED {
            let (_, oldest_ns) = self.0.remove(0);
            if let Some((_, second_ns)) = self.0.first_mut() {
                *second_ns = second_ns.saturating_add(oldest_ns);
            }
        }
        self.0.push((from, took_ns));
    }

    fn total_ns(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, ns)| sum.saturating_add(*ns))
    }
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
            machines: Machines::default(),
            down: Vec::new(),
            memory: Memory::new(),
            evictions: std::array::from_fn(eviction),
            lives: Frequent::new(PROCESSES),
            nested: HashMap::new(),
        }
    }

    /// A boot of the machine with this name begins.
    pub(super) fn begin(&mut self, boot: u32, host: Option<&str>) {
        self.machines.begin(boot, host);
    }

    /// What a process's own spans came to.
    pub(super) fn lived(&mut self, who: Who) -> Lived {
        self.lives.get(&who).copied().unwrap_or_default()
    }

    /// How often a GPU was reset, and how long it was down.
    pub(super) fn down(&self, machine: usize, gpu: GpuId) -> Down {
        let of_gpu = self.down.iter().find(|((of, one), _)| *of == machine && is_same(*one, gpu));
        of_gpu.map_or_else(Down::default, |(_, down)| *down)
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

    pub(super) fn spans(&self, left_out: Unpaired) -> Vec<SpanSummary> {
        let of_kind = |(kind, tally): (SpanKind, &KindTally)| {
            let outcomes = Outcome::ALL.into_iter().map(|one| (one, tally.outcomes[one as usize]));
            SpanSummary {
                kind,
                durations: tally.durations.clone(),
                unpaired_by_filter: left_out[kind as usize],
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
        let mut resets: Vec<ResetSummary> = self.resets.iter().copied().collect();
        resets.sort_by_key(|reset| reset.unix_ns);
        resets
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
        if let Some(ns) = took_ns.filter(|_| !span.nested) {
            tally.durations.add(ns);
        }
        let who = Who { boot, pid: span.pid.or(span.tid).unwrap_or(0), life: span.life };
        match span.data {
            SpanData::Reset { sequence, cause } => {
                self.reset(boot, span, (sequence, cause), took_ns);
            }
            SpanData::PageFault { .. } => self.memory.fault(who, span),
            SpanData::Migration { .. } => self.memory.migration(who, span),
            SpanData::QueueEviction { trigger: Some(trigger), reschedules, .. } => {
                self.eviction(who, span, (trigger, reschedules));
            }
            SpanData::Process => {
                let lived = self.lives.count(who);
                if took_ns > lived.lived_ns {
                    (lived.lived_ns, lived.guessed) = (took_ns, span.across_gap);
                }
                lived.open |= span.start.is_some() && span.end.is_none();
            }
            _ => {}
        }
    }

    fn reset(
        &mut self,
        boot: u32,
        span: &Span,
        (sequence, cause): (u32, Cause),
        took_ns: Option<u64>,
    ) {
        let (timed, down_ns) = (u64::from(took_ns.is_some()), took_ns.unwrap_or(0));
        let known = cause.bytes().map(|text| reset_cause(text).unwrap_or("other"));
        let place = self.causes.iter().position(|one| one.cause == known).unwrap_or_else(|| {
            self.causes.push(CauseSummary { cause: known, resets: 0, timed: 0, down_ns: 0 });
            self.causes.len() - 1
        });
        let of_cause = &mut self.causes[place];
        of_cause.resets += 1;
        of_cause.timed += timed;
        of_cause.down_ns = of_cause.down_ns.saturating_add(down_ns);
        if let Some(of_gpu) = self.down_of(boot, span.gpu) {
            of_gpu.resets += 1;
            of_gpu.timed += timed;
            of_gpu.down_ns = of_gpu.down_ns.saturating_add(down_ns);
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
            across_gap: span.across_gap,
            outcome: span.outcome,
        });
    }

    fn down_of(&mut self, boot: u32, gpu: GpuId) -> Option<&mut Down> {
        let machine = self.machines.of_boot(boot);
        let same = |((of, one), _): &((usize, GpuId), Down)| *of == machine && is_same(*one, gpu);
        let place = match self.down.iter().position(same) {
            Some(place) => place,
            None if self.down.len() < MOST_GPUS => {
                self.down.push(((machine, gpu), Down::default()));
                self.down.len() - 1
            }
            None => return None,
        };
        self.down.get_mut(place).map(|(_, down)| down)
    }

    /// An eviction that is over or given up. Its process's time without queues is that of the outermost; where that
    /// has no end, of those within it.
    fn eviction(&mut self, who: Who, span: &Span, (trigger, again): (i32, u32)) {
        let eviction = &mut self.evictions[trigger_index(trigger)];
        eviction.evictions += 1;
        eviction.reschedules += u64::from(again);
        let took_ns = span.duration_ns().filter(|_| span.outcome.is_paired());
        if let Some(ns) = took_ns.filter(|_| !span.nested) {
            eviction.durations.add(ns);
        }
        let key = (who, span.gpu.bdf, span.gpu.partition);
        if let (Some(ns), Some(start)) = (took_ns, span.start) {
            self.nested.entry(key).or_default().end(start.boot_ns, ns);
        }
        if !span.nested
            && let Some(over) = self.nested.remove(&key)
        {
            let lived = self.lives.count(who);
            lived.evicted_ns = lived.evicted_ns.saturating_add(over.total_ns());
        }
    }
}

/// Whether both are one GPU, whatever its index.
pub(super) fn is_same(one: GpuId, other: GpuId) -> bool {
    (one.bdf, one.partition, one.unique_id) == (other.bdf, other.partition, other.unique_id)
}
