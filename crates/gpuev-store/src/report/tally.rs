//! What is counted, item by item.

use std::collections::VecDeque;

use gpuev::names::{eviction_trigger, reset_cause};
use gpuev::span::{Outcome, Span, SpanData, SpanKind};
use gpuev::{Comm, EventFacts, EventType, Gap, GapCause, GpuId, Record};
use gpuev::{EventData, EventTime};

use super::duration::Durations;
use super::fold::Options;
use super::frequent::Frequent;
use super::memory::{Memory, TRIGGERS, known, ranked, trigger_index, trigger_of};
use super::summary::{
    CauseSummary, EvictionSummary, GapSummary, GpuSummary, MemoryFaults, Peak, ProcessSummary,
    Ranking, Report, ResetSummary, Source, SpanSummary, TypeCounts, Who,
};
use super::throttle::{Throttling, by_reason};
use super::timeline::{GAPS, GPUS, TYPES, Timeline, type_index};

/// Processes that are followed at least.
const PROCESSES: usize = 1024;
/// GPUs that are told apart; a machine has 512 partitions at most.
const MOST_GPUS: usize = 1024;
const MINUTE_NS: i64 = 60_000_000_000;

#[derive(Debug)]
pub(super) struct Tally {
    pub(super) range: Option<(i64, i64)>,
    types: [u64; TYPES],
    doubtful: u64,
    minutes: Minutes,
    gpus: Vec<GpuTally>,
    /// The place in `gpus` that was used last.
    last_gpu: usize,
    timeline: Timeline,
    processes: Frequent<Who, Process>,
    memory_faults: Frequent<Who, Faults>,
    spans: [SpanTally; SpanKind::ALL.len()],
    resets: VecDeque<ResetSummary>,
    causes: Vec<CauseSummary>,
    memory: Memory,
    evictions: [Eviction; TRIGGERS],
    gaps: Vec<GapSummary>,
    /// What is not told apart further.
    options: Options,
}

#[derive(Debug)]
struct GpuTally {
    gpu: GpuId,
    types: [u64; TYPES],
    resets: u64,
    down_ns: u64,
    throttling: Throttling,
    gaps: u64,
    lost: u64,
}

/// A process, or all that did not name one.
#[derive(Debug, Clone, Copy, Default)]
struct Process {
    name: Comm,
    types: [u64; TYPES],
    seen: Option<(i64, i64)>,
    lived_ns: Option<u64>,
    open: bool,
    evicted_ns: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    name: Comm,
    faults: u64,
    seen: Option<(i64, i64)>,
}

#[derive(Debug)]
struct SpanTally {
    durations: Durations,
    outcomes: [u64; Outcome::ALL.len()],
}

#[derive(Debug)]
struct Eviction {
    evictions: u64,
    reschedules: u64,
    durations: Durations,
}

/// Counts the minute that goes on and the one before: lines swap by milliseconds.
#[derive(Debug, Default)]
struct Minutes {
    now: (i64, u64),
    before: (i64, u64),
    peak: Option<(i64, u64)>,
}

impl Minutes {
    fn count(&mut self, unix_ns: i64) {
        let minute = unix_ns.div_euclid(MINUTE_NS);
        if minute == self.now.0 {
            self.now.1 += 1;
        } else if minute == self.before.0 {
            self.before.1 += 1;
        } else {
            self.judge(self.before);
            self.before = self.now;
            self.now = (minute, 1);
        }
    }

    fn judge(&mut self, (minute, count): (i64, u64)) {
        if count > self.peak.map_or(0, |(_, most)| most) {
            self.peak = Some((minute, count));
        }
    }

    fn finish(mut self) -> Option<Peak> {
        self.judge(self.before);
        self.judge(self.now);
        let (minute, events) = self.peak?;
        Some(Peak { unix_ns: minute.saturating_mul(MINUTE_NS), events })
    }
}

impl Tally {
    pub(super) fn new(options: Options) -> Self {
        Self {
            range: None,
            types: [0; TYPES],
            doubtful: 0,
            minutes: Minutes::default(),
            gpus: Vec::new(),
            last_gpu: 0,
            timeline: Timeline::new(),
            processes: Frequent::new(PROCESSES),
            memory_faults: Frequent::new(PROCESSES),
            spans: std::array::from_fn(|_| SpanTally {
                durations: Durations::new(),
                outcomes: [0; Outcome::ALL.len()],
            }),
            resets: VecDeque::new(),
            causes: Vec::new(),
            memory: Memory::new(),
            evictions: std::array::from_fn(|_| Eviction {
                evictions: 0,
                reschedules: 0,
                durations: Durations::new(),
            }),
            gaps: Vec::new(),
            options,
        }
    }

    pub(super) fn event(&mut self, boot: u32, facts: &EventFacts<'_>, record: &Record<'_>) {
        let unix_ns = facts.time.unix_ns;
        let kind = type_index(record.event_type());
        widen(&mut self.range, unix_ns);
        self.types[kind] += 1;
        self.doubtful += u64::from(facts.doubtful);
        self.minutes.count(unix_ns);
        let place = self.gpu(facts.gpu);
        self.timeline.count(unix_ns, [kind, GPUS + place]);
        let gpu = &mut self.gpus[place];
        gpu.types[kind] += 1;
        let Some(event_type) = record.event_type() else { return };
        if event_type == EventType::ThermalThrottle
            && let EventData::ThermalThrottle { throttlers, count } = EventData::of(record)
        {
            gpu.throttling.add(facts.time.boot_ns, throttlers, count);
        }
        let Some(pid) = pid_of(record) else { return };
        let who = Who { boot, pid };
        let name = record.task().map_or(facts.comm, |task| Comm::new(task.name));
        let process = self.processes.count(who);
        process.name = known(name, process.name);
        process.types[kind] += 1;
        widen(&mut process.seen, unix_ns);
        if event_type == EventType::VmFault {
            let faults = self.memory_faults.count(who);
            faults.name = known(name, faults.name);
            faults.faults += 1;
            widen(&mut faults.seen, unix_ns);
        }
    }

    pub(super) fn span(&mut self, boot: u32, span: &Span) {
        let kind = span.kind();
        let tally = &mut self.spans[kind as usize];
        tally.outcomes[span.outcome as usize] += 1;
        let duration_ns = span.duration_ns().filter(|_| span.outcome.is_paired());
        if let Some(ns) = duration_ns {
            tally.durations.add(ns);
        }
        let who = Who { boot, pid: span.pid.unwrap_or(0) };
        match span.data {
            SpanData::Reset { sequence, cause } => {
                let place = self.gpu(span.gpu);
                let down_ns = duration_ns.unwrap_or(0);
                self.gpus[place].resets += 1;
                self.gpus[place].down_ns += down_ns;
                self.reset(span, sequence, cause, duration_ns);
            }
            SpanData::PageFault { .. } => self.memory.fault(who, span),
            SpanData::Migration { .. } => self.memory.migration(who, span),
            SpanData::QueueEviction { trigger, reschedules, .. } => {
                self.eviction(who, trigger, reschedules, duration_ns);
            }
            SpanData::Process => self.life(who, span, duration_ns),
            _ => {}
        }
    }

    pub(super) fn gap(&mut self, gap: &Gap) {
        let length = gap.to_boot_ns.saturating_sub(gap.from_boot_ns);
        let from_unix_ns = gap.unix_ns.saturating_sub_unsigned(length);
        widen(&mut self.range, gap.unix_ns);
        let place = self.gpu(gap.gpu);
        self.timeline.count(gap.unix_ns, [GAPS]);
        let gpu = &mut self.gpus[place];
        gpu.gaps += 1;
        gpu.lost = gpu.lost.saturating_add(gap.count.unwrap_or(0));
        let summary = match self.gaps.iter_mut().position(|one| one.cause == gap.cause) {
            Some(place) => &mut self.gaps[place],
            None => {
                self.gaps.push(first_gap(gap.cause, from_unix_ns, gap.unix_ns));
                self.gaps.last_mut().expect("one was pushed, so there should be a last")
            }
        };
        summary.gaps += 1;
        summary.lost = summary.lost.saturating_add(gap.count.unwrap_or(0));
        summary.of_unknown_size += u64::from(gap.count.is_none());
        summary.total_ns = summary.total_ns.saturating_add(length);
        summary.first_unix_ns = summary.first_unix_ns.min(from_unix_ns);
        summary.last_unix_ns = summary.last_unix_ns.max(gap.unix_ns);
    }

    /// The stream of one boot ends at `end`.
    pub(super) fn close(&mut self, end_boot_ns: u64) {
        self.gpus.iter_mut().for_each(|gpu| gpu.throttling.close(end_boot_ns));
    }

    /// The place of `gpu`. Beyond [`MOST_GPUS`] all are the last.
    fn gpu(&mut self, gpu: GpuId) -> usize {
        let same = |one: &GpuTally| {
            let one = &one.gpu;
            (one.bdf, one.partition, one.unique_id) == (gpu.bdf, gpu.partition, gpu.unique_id)
        };
        if self.gpus.get(self.last_gpu).is_some_and(same) {
            return self.last_gpu;
        }
        self.last_gpu = match self.gpus.iter().position(same) {
            Some(place) => place,
            None if self.gpus.len() < MOST_GPUS => {
                self.gpus.push(GpuTally::new(gpu));
                self.timeline.add_series();
                self.gpus.len() - 1
            }
            None => MOST_GPUS - 1,
        };
        self.last_gpu
    }

    fn reset(
        &mut self,
        span: &Span,
        sequence: u32,
        cause: gpuev::span::Cause,
        down_ns: Option<u64>,
    ) {
        let known = cause.bytes().map(|text| reset_cause(text).unwrap_or("other"));
        let place = self.causes.iter().position(|one| one.cause == known).unwrap_or_else(|| {
            self.causes.push(CauseSummary { cause: known, resets: 0, down_ns: 0 });
            self.causes.len() - 1
        });
        self.causes[place].resets += 1;
        self.causes[place].down_ns += down_ns.unwrap_or(0);
        if self.resets.len() >= self.options.top.max(1) {
            self.resets.pop_front();
        }
        self.resets.push_back(ResetSummary {
            gpu: span.gpu,
            unix_ns: span.time().map_or(0, |time: EventTime| time.unix_ns),
            sequence,
            cause,
            down_ns,
            outcome: span.outcome,
        });
    }

    fn eviction(&mut self, who: Who, trigger: Option<i32>, again: u32, took: Option<u64>) {
        let Some(trigger) = trigger else { return };
        let eviction = &mut self.evictions[trigger_index(trigger)];
        eviction.evictions += 1;
        eviction.reschedules += u64::from(again);
        let Some(ns) = took else { return };
        eviction.durations.add(ns);
        if let Some(process) = self.processes.get(&who) {
            process.evicted_ns = process.evicted_ns.saturating_add(ns);
        }
    }

    fn life(&mut self, who: Who, span: &Span, took: Option<u64>) {
        let Some(process) = self.processes.get(&who) else { return };
        process.lived_ns = process.lived_ns.max(took);
        process.open |= span.start.is_some() && span.end.is_none();
    }

    pub(super) fn into_report(self, sources: Vec<Source>, totals: (u64, u64)) -> Report {
        let top = self.options.top;
        let (source_count, observed_ns) = totals;
        let (thrashing, fault_hot_spots, migrations) = {
            let migrations = self.memory.migrations();
            let (thrashing, spots) = self.memory.into_rankings(top);
            (thrashing, spots, migrations)
        };
        let mut causes = self.causes;
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.resets));
        let mut gaps = self.gaps;
        gaps.sort_by_key(|gap| GapCause::ALL.iter().position(|cause| *cause == gap.cause));
        let throttling = by_reason(self.gpus.iter().map(|gpu| &gpu.throttling));
        // Only the order of the list; series of the timeline go with it.
        let mut order: Vec<usize> = (0..self.gpus.len()).collect();
        order.sort_by_key(|place| {
            let gpu = self.gpus[*place].gpu;
            (gpu.index, gpu.bdf, gpu.partition)
        });
        Report {
            sources,
            source_count,
            first_unix_ns: self.range.map(|(first, _)| first),
            last_unix_ns: self.range.map(|(_, last)| last),
            observed_ns,
            events: self.types.iter().sum(),
            doubtful: self.doubtful,
            types: TypeCounts(self.types),
            peak_minute: self.minutes.finish(),
            timeline: self.timeline.with_gpus_in(&order),
            gpus: order.iter().map(|place| self.gpus[*place].summary()).collect(),
            processes: processes(self.processes, top),
            spans: SpanKind::ALL.into_iter().zip(self.spans).map(SpanTally::summary).collect(),
            reset_causes: causes,
            resets: self.resets.into(),
            throttling,
            migrations,
            thrashing,
            fault_hot_spots,
            evictions: evictions(self.evictions),
            memory_faults: memory_faults(self.memory_faults, top),
            gaps,
        }
    }
}

impl GpuTally {
    fn new(gpu: GpuId) -> Self {
        Self {
            gpu,
            types: [0; TYPES],
            resets: 0,
            down_ns: 0,
            throttling: Throttling::new(),
            gaps: 0,
            lost: 0,
        }
    }

    fn summary(&self) -> GpuSummary {
        GpuSummary {
            gpu: self.gpu,
            types: TypeCounts(self.types),
            resets: self.resets,
            down_ns: self.down_ns,
            throttled_ns: self.throttling.throttled_ns(),
            throttle_interrupts: self.throttling.interrupts(),
            gaps: self.gaps,
            lost: self.lost,
        }
    }
}

impl SpanTally {
    fn summary((kind, tally): (SpanKind, Self)) -> SpanSummary {
        let outcomes = Outcome::ALL.into_iter().map(|one| (one, tally.outcomes[one as usize]));
        SpanSummary {
            kind,
            durations: tally.durations,
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

fn first_gap(cause: GapCause, first_unix_ns: i64, last_unix_ns: i64) -> GapSummary {
    GapSummary {
        cause,
        gaps: 0,
        lost: 0,
        of_unknown_size: 0,
        total_ns: 0,
        first_unix_ns,
        last_unix_ns,
    }
}

fn processes(all: Frequent<Who, Process>, top: usize) -> Ranking<ProcessSummary> {
    let missing_at_most = all.error();
    let all = all.into_sorted().into_iter().map(|(who, process)| {
        let (first_unix_ns, last_unix_ns) = process.seen.unwrap_or_default();
        ProcessSummary {
            who,
            name: process.name,
            types: TypeCounts(process.types),
            first_unix_ns,
            last_unix_ns,
            lived_ns: process.lived_ns,
            open: process.open,
            evicted_ns: process.evicted_ns,
        }
    });
    ranked(all.collect(), top, missing_at_most, |process| (process.types.total(), 0))
}

fn memory_faults(all: Frequent<Who, Faults>, top: usize) -> Ranking<MemoryFaults> {
    let missing_at_most = all.error();
    let all = all.into_sorted().into_iter().map(|(who, faults)| {
        let (first_unix_ns, last_unix_ns) = faults.seen.unwrap_or_default();
        let Faults { name, faults, .. } = faults;
        MemoryFaults { who, name, faults, first_unix_ns, last_unix_ns }
    });
    ranked(all.collect(), top, missing_at_most, |process| (process.faults, 0))
}

fn evictions(all: [Eviction; TRIGGERS]) -> Vec<EvictionSummary> {
    let mut evictions: Vec<_> = all
        .into_iter()
        .enumerate()
        .filter(|(_, eviction)| eviction.evictions > 0)
        .map(|(index, eviction)| EvictionSummary {
            trigger: eviction_trigger(trigger_of(index)),
            evictions: eviction.evictions,
            reschedules: eviction.reschedules,
            durations: eviction.durations,
        })
        .collect();
    evictions.sort_by_key(|eviction| std::cmp::Reverse(eviction.evictions));
    evictions
}

/// Lets `range` hold `time`.
fn widen(range: &mut Option<(i64, i64)>, time: i64) {
    *range = Some(range.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
}

fn pid_of(record: &Record<'_>) -> Option<u32> {
    let pid = match record.stamp() {
        Some(stamp) => stamp.pid,
        None => record.task()?.pid,
    };
    (pid != 0).then_some(pid)
}
