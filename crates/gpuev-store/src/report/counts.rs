//! What is counted, event by event, whatever came before.

use gpuev::{Comm, EventData, EventFacts, EventType, Gap, GapCause, GpuId, Record};

use super::costs::{Costs, Life, is_same};
use super::fold::{Boots, Options};
use super::frequent::Frequent;
use super::memory::{known, ranked};
use super::period::GpuCounts;
use super::summary::{
    GapSummary, GpuSummary, MemoryFaults, Peak, ProcessSummary, Ranking, Report, Source,
    TypeCounts, Who,
};
use super::throttle::{Throttling, by_reason};
use super::timeline::{GAPS, GPUS, TYPES, Timeline, type_index};

/// Sources that are told one by one.
const MOST_SOURCES: usize = 1000;
/// Processes that are followed at least.
pub(super) const PROCESSES: usize = 1024;
/// GPUs that are told apart; a machine has 512 partitions at most.
const MOST_GPUS: usize = 1024;
const MINUTE_NS: i64 = 60_000_000_000;

/// The part of a report that looks at each event by itself; the other is [`Costs`].
#[derive(Debug)]
pub(super) struct Counts {
    options: Options,
    sources: Vec<Source>,
    source_count: u64,
    observed_ns: u64,
    current: Option<Current>,
    boots: Boots,
    range: Option<(i64, i64)>,
    doubtful: u64,
    minutes: Minutes,
    gpus: Vec<GpuTally>,
    /// The place in `gpus` that was used last.
    last_gpu: usize,
    timeline: Timeline,
    processes: Frequent<Who, Process>,
    memory_faults: Frequent<Who, Faults>,
    gaps: Vec<GapSummary>,
}

/// The source that items come from.
#[derive(Debug, Clone, Copy, Default)]
struct Current {
    from_unix_ns: Option<i64>,
    to_unix_ns: Option<i64>,
    /// Times of its first and last item.
    seen: Option<(i64, i64)>,
    end_boot_ns: u64,
}

#[derive(Debug)]
struct GpuTally {
    gpu: GpuId,
    types: [u64; TYPES],
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
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    name: Comm,
    faults: u64,
    seen: Option<(i64, i64)>,
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

impl Counts {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            sources: Vec::new(),
            source_count: 0,
            observed_ns: 0,
            current: None,
            boots: Boots::default(),
            range: None,
            doubtful: 0,
            minutes: Minutes::default(),
            gpus: Vec::new(),
            last_gpu: 0,
            timeline: Timeline::new(),
            processes: Frequent::new(PROCESSES),
            memory_faults: Frequent::new(PROCESSES),
            gaps: Vec::new(),
        }
    }

    /// What follows is from `source`.
    pub(super) fn begin(&mut self, source: Source) {
        self.end_source();
        self.boots.begin(source.boot_id.as_deref());
        let Source { from_unix_ns, to_unix_ns, .. } = source;
        self.current = Some(Current { from_unix_ns, to_unix_ns, ..Current::default() });
        self.source_count += 1;
        if self.sources.len() < MOST_SOURCES {
            self.sources.push(source);
        }
    }

    fn see(&mut self, unix_ns: i64, boot_ns: u64) {
        self.boots.see();
        let current = self.current.get_or_insert_default();
        widen(&mut current.seen, unix_ns);
        current.end_boot_ns = current.end_boot_ns.max(boot_ns);
    }

    /// The time that the source was watched is known.
    fn end_source(&mut self) {
        let Some(current) = self.current.take() else { return };
        let seen_to = current.seen.map(|(_, last)| last);
        let from = current.from_unix_ns.or(current.seen.map(|(first, _)| first));
        let to = current.to_unix_ns.max(seen_to).map(|to| to.min(self.options.to_unix_ns));
        let from = from.map(|from| from.max(self.options.from_unix_ns));
        if let (Some(from), Some(to)) = (from, to) {
            let length = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
            self.observed_ns = self.observed_ns.saturating_add(length(from, to));
            let after = seen_to.map_or(0, |seen| length(seen, to));
            let end_boot_ns = current.end_boot_ns.saturating_add(after);
            self.gpus.iter_mut().for_each(|gpu| gpu.throttling.close(end_boot_ns));
        }
    }

    pub(super) fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        let unix_ns = facts.time.unix_ns;
        self.see(unix_ns, facts.time.received_boot_ns);
        let kind = type_index(record.event_type());
        widen(&mut self.range, unix_ns);
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
        let Some(pid) = facts.owner_in(record) else { return };
        let who = Who { boot: self.boots.number(), pid };
        // Of a thread whose process is not known there is only the thread's name.
        let name = match record.task() {
            Some(task) if facts.pid.is_none() => Comm::new(task.name),
            _ => facts.process_in(record).map_or(Comm::NONE, Comm::new),
        };
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

    pub(super) fn gap(&mut self, gap: &Gap) {
        let length = gap.to_boot_ns.saturating_sub(gap.from_boot_ns);
        let from_unix_ns = gap.unix_ns.saturating_sub_unsigned(length);
        self.see(gap.unix_ns, gap.to_boot_ns);
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

    /// The place of `gpu`. Beyond [`MOST_GPUS`] all are the last.
    fn gpu(&mut self, gpu: GpuId) -> usize {
        let same = |one: &GpuTally| is_same(one.gpu, gpu);
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

    /// What there is of each GPU so far, in order of index and address.
    pub(super) fn gpus(&self) -> Vec<GpuCounts> {
        let counts = |gpu: &GpuTally| GpuCounts {
            gpu: gpu.gpu,
            types: TypeCounts(gpu.types),
            gaps: gpu.gaps,
            lost: gpu.lost,
        };
        self.order().into_iter().map(|place| counts(&self.gpus[place])).collect()
    }

    /// The places of the GPUs in order of index and address.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.gpus.len()).collect();
        order.sort_by_key(|place| {
            let gpu = self.gpus[*place].gpu;
            (gpu.index, gpu.bdf, gpu.partition)
        });
        order
    }

    /// The report of these counts and of what was paired.
    pub(super) fn into_report(mut self, mut costs: Costs) -> Report {
        self.end_source();
        let top = self.options.top;
        let (thrashing, fault_hot_spots, migrations) = costs.take_memory(top);
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.sort_by_key(|gap| GapCause::ALL.iter().position(|cause| *cause == gap.cause));
        // Only the order of the list; series of the timeline go with it.
        let order = self.order();
        let mut types = [0; TYPES];
        for gpu in &self.gpus {
            types.iter_mut().zip(gpu.types).for_each(|(all, one)| *all += one);
        }
        Report {
            sources: self.sources,
            source_count: self.source_count,
            first_unix_ns: self.range.map(|(first, _)| first),
            last_unix_ns: self.range.map(|(_, last)| last),
            observed_ns: self.observed_ns,
            events: types.iter().sum(),
            doubtful: self.doubtful,
            types: TypeCounts(types),
            peak_minute: self.minutes.finish(),
            timeline: self.timeline.with_gpus_in(&order),
            throttling: by_reason(self.gpus.iter().map(|gpu| &gpu.throttling)),
            gpus: order.iter().map(|place| self.gpus[*place].summary(&costs)).collect(),
            processes: processes(self.processes, &mut costs, top),
            spans: costs.spans(),
            reset_causes: costs.reset_causes(),
            evictions: costs.evictions(),
            resets: costs.resets(),
            migrations,
            thrashing,
            fault_hot_spots,
            memory_faults: memory_faults(self.memory_faults, top),
            gaps,
        }
    }
}

impl GpuTally {
    fn new(gpu: GpuId) -> Self {
        Self { gpu, types: [0; TYPES], throttling: Throttling::new(), gaps: 0, lost: 0 }
    }

    fn summary(&self, costs: &Costs) -> GpuSummary {
        let (resets, down_ns) = costs.down(self.gpu);
        GpuSummary {
            gpu: self.gpu,
            types: TypeCounts(self.types),
            resets,
            down_ns,
            throttled_ns: self.throttling.throttled_ns(),
            throttle_interrupts: self.throttling.interrupts(),
            gaps: self.gaps,
            lost: self.lost,
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

fn processes(
    all: Frequent<Who, Process>,
    costs: &mut Costs,
    top: usize,
) -> Ranking<ProcessSummary> {
    let missing_at_most = all.error();
    let all = all.into_sorted().into_iter().map(|(who, process)| {
        let (first_unix_ns, last_unix_ns) = process.seen.unwrap_or_default();
        let Life { lived_ns, open, evicted_ns } = costs.life(who);
        ProcessSummary {
            who,
            name: process.name,
            types: TypeCounts(process.types),
            first_unix_ns,
            last_unix_ns,
            lived_ns,
            open,
            evicted_ns,
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

/// Lets `range` hold `time`.
fn widen(range: &mut Option<(i64, i64)>, time: i64) {
    *range = Some(range.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
}
