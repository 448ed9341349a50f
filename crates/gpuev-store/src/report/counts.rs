//! What is counted, event by event, whatever came before.

use std::collections::HashMap;

use gpuev::{
    Comm, EventData, EventFacts, EventType, Filter, Gap, GapCause, GpuId, Life, Lives, Record,
};

use super::costs::{Costs, Down, Lived, Unpaired, is_same};
use super::fold::{Current, Machines, Options};
use super::frequent::Frequent;
use super::memory::{known, ranked};
use super::period::GpuCounts;
use super::summary::{
    GapSummary, GpuSummary, LeftOut, MemoryFaults, Peak, ProcessSummary, Ranking, Report, Source,
    TypeCounts, Who,
};
use super::throttle::{Throttling, by_reason};
use super::timeline::{GAPS, GPUS, TYPES, Timeline, type_index};
use super::watched::{Blindness, Present, any_watched};

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
    /// What is wanted of what was recorded.
    wanted: Filter,
    sources: Vec<Source>,
    source_count: u64,
    left_out: LeftOut,
    not_kept: bool,
    observed_ns: u64,
    /// By boot, until when its sources watched, and whether one began before.
    watched_until_ns: HashMap<u32, u64>,
    overlapping: bool,
    present: Option<Present>,
    /// Stretches of the source of which nothing is kept.
    source_not_kept: Vec<(u64, u64)>,
    current: Current,
    lives: Lives,
    range: Option<(i64, i64)>,
    doubtful: u64,
    minutes: Minutes,
    machines: Machines,
    /// That of the present source.
    machine: usize,
    gpus: Vec<GpuTally>,
    /// The place in `gpus` that was used last.
    last_gpu: usize,
    timeline: Timeline,
    processes: Frequent<Who, Process>,
    memory_faults: Frequent<Who, Faults>,
    gaps: Vec<GapSummary>,
}

#[derive(Debug)]
struct GpuTally {
    /// Which machine's.
    machine: usize,
    gpu: GpuId,
    types: [u64; TYPES],
    throttling: Throttling,
    now: Blindness,
    watched_ns: u64,
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
    pub(super) fn new(options: Options, wanted: Filter) -> Self {
        let mut left_out = LeftOut::default();
        left_out.add(&wanted);
        left_out.by_query = wanted != Filter::new();
        Self {
            options,
            wanted,
            sources: Vec::new(),
            source_count: 0,
            left_out,
            not_kept: false,
            observed_ns: 0,
            watched_until_ns: HashMap::new(),
            overlapping: false,
            present: None,
            source_not_kept: Vec::new(),
            current: Current::default(),
            lives: Lives::default(),
            range: None,
            doubtful: 0,
            minutes: Minutes::default(),
            machines: Machines::default(),
            machine: 0,
            gpus: Vec::new(),
            last_gpu: 0,
            timeline: Timeline::new(),
            processes: Frequent::new(PROCESSES),
            memory_faults: Frequent::new(PROCESSES),
            gaps: Vec::new(),
        }
    }

    /// What follows is from `source`.
    pub(super) fn begin(&mut self, source: &Source) {
        self.end_source();
        let boot = self.current.begin(source.boot_id.as_deref());
        self.lives.begin(boot);
        self.machine = self.machines.begin(boot, source.host.as_deref());
        self.present = Some(Present::of(source));
        self.note_overlap(boot, source);
        self.source_not_kept.clone_from(&source.not_kept);
        if source.filter != Filter::new() {
            self.left_out.add(&source.filter);
            self.left_out.by_recorder = true;
        }
        for gpu in &source.gpus {
            if source.filter.passes_gpu(*gpu) && self.wanted.passes_gpu(*gpu) {
                let place = self.gpu(*gpu);
                self.gpus[place].now.begin(&source.not_kept);
            }
        }
        for (gpu, since_ns) in &source.came_later {
            let machine = self.machine;
            let place = self.gpus.iter().position(|one| one.is(machine, *gpu));
            if let Some(tally) = place.and_then(|place| self.gpus.get_mut(place)) {
                tally.now.came_ns(*since_ns);
            }
        }
        self.source_count += 1;
        if self.sources.len() < MOST_SOURCES {
            self.sources.push(source.clone());
        }
    }

    /// Sources of one boot that are known to have watched at one time.
    fn note_overlap(&mut self, boot: u32, source: &Source) {
        let (Some(from_ns), Some(to_ns)) = (source.from_boot_ns, source.to_boot_ns) else { return };
        let until_ns = self.watched_until_ns.entry(boot).or_insert(0);
        self.overlapping |= from_ns < *until_ns && from_ns < to_ns;
        *until_ns = to_ns.max(*until_ns);
    }

    /// The source goes on at least until then.
    pub(super) fn goes_on(&mut self, unix_ns: i64) {
        if let Some(present) = &mut self.present {
            present.goes_on(unix_ns);
        }
    }

    /// The time that the source was watched is known.
    fn end_source(&mut self) {
        let asked = self.present.take().and_then(|present| present.asked(&self.options));
        let Some(asked) = asked else {
            self.gpus.iter_mut().for_each(|gpu| gpu.now = Blindness::default());
            return;
        };
        for gpu in self.gpus.iter_mut().filter(|gpu| gpu.now.is_watched) {
            gpu.now.end();
            gpu.watched_ns = gpu.watched_ns.saturating_add(gpu.now.watched_ns(asked));
            gpu.throttling.close(asked.to_ns, &gpu.now.blind);
        }
        let within = |(from, to): &(u64, u64)| *from < asked.to_ns && *to > asked.from_ns;
        self.not_kept |= self.source_not_kept.iter().any(within);
        let watched = self.gpus.iter().map(|gpu| &gpu.now).filter(|now| now.is_watched);
        for (from, to) in any_watched(watched, asked) {
            self.observed_ns = self.observed_ns.saturating_add(to - from);
            self.timeline.watch(asked.unix_ns(from), asked.unix_ns(to));
        }
        self.gpus.iter_mut().for_each(|gpu| gpu.now = Blindness::default());
    }

    /// The GPU's place, at something of it that was received at `received_ns`.
    fn seen(&mut self, gpu: GpuId, received_ns: u64, at: (u64, i64)) -> usize {
        self.current.boot();
        self.present.get_or_insert_default().see(received_ns, at);
        let place = self.gpu(gpu);
        if !self.gpus[place].now.is_watched {
            self.gpus[place].now.begin(&self.source_not_kept);
        }
        place
    }

    fn life(&mut self, facts: &EventFacts<'_>, record: &Record<'_>, pid: u32) -> Life {
        self.lives.of(facts.gpu, pid, record.event_type(), facts.time.received_boot_ns)
    }

    /// A process begins or ends with an event that is not wanted.
    pub(super) fn unwanted(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        if let Some(pid) = facts.owner_in(record) {
            self.life(facts, record, pid);
        }
    }

    pub(super) fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        let (time, unix_ns) = (facts.time, facts.time.unix_ns);
        let place = self.seen(facts.gpu, time.received_boot_ns, (time.boot_ns, unix_ns));
        let kind = type_index(record.event_type());
        widen(&mut self.range, unix_ns);
        self.doubtful += u64::from(facts.doubtful);
        self.minutes.count(unix_ns);
        self.timeline.count(unix_ns, [kind, GPUS + place]);
        let gpu = &mut self.gpus[place];
        gpu.types[kind] += 1;
        gpu.now.event(time.received_boot_ns);
        let Some(event_type) = record.event_type() else { return };
        if event_type == EventType::ThermalThrottle
            && let EventData::ThermalThrottle { throttlers, count } = EventData::of(record)
        {
            gpu.throttling.add(time.boot_ns, (throttlers, count), &gpu.now.blind);
        }
        let Some(pid) = facts.owner_in(record) else { return };
        let life = self.life(facts, record, pid);
        let who = Who { boot: self.current.boot(), pid, life };
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
        let place = self.seen(gap.gpu, gap.to_boot_ns, (gap.to_boot_ns, gap.unix_ns));
        self.lives.gap(gap);
        // What was missed before this source began is no part of it.
        let began_ns = self.present.as_ref().and_then(Present::began_ns).unwrap_or(0);
        let before = began_ns.min(gap.to_boot_ns).saturating_sub(gap.from_boot_ns);
        let shown_from =
            from_unix_ns.saturating_add_unsigned(before).max(self.options.from_unix_ns);
        let shown_to = gap.unix_ns.min(self.options.to_unix_ns.saturating_sub(1)).max(shown_from);
        widen(&mut self.range, shown_from);
        widen(&mut self.range, shown_to);
        self.timeline.count_through(shown_from, shown_to, GAPS);
        let gpu = &mut self.gpus[place];
        gpu.now.gap(gap);
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
        let machine = self.machine;
        let same = |one: &GpuTally| one.is(machine, gpu);
        if self.gpus.get(self.last_gpu).is_some_and(same) {
            return self.last_gpu;
        }
        self.last_gpu = match self.gpus.iter().position(same) {
            Some(place) => place,
            None if self.gpus.len() < MOST_GPUS => {
                self.gpus.push(GpuTally::new(machine, gpu));
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
        let seen = |gpu: &&GpuTally| gpu.gaps > 0 || gpu.types.iter().any(|count| *count > 0);
        let gpus = self.order().into_iter().map(|place| &self.gpus[place]);
        gpus.filter(seen).map(counts).collect()
    }

    /// The places of the GPUs in order of index and address.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.gpus.len()).collect();
        order.sort_by_key(|place| {
            let GpuTally { machine, gpu, .. } = self.gpus[*place];
            (self.machines.name(machine), gpu.index, gpu.bdf, gpu.partition)
        });
        order
    }

    /// The report of these counts and of what was paired.
    pub(super) fn into_report(mut self, mut costs: Costs, unpaired: Unpaired) -> Report {
        self.end_source();
        let top = self.options.top;
        let (thrashing, fault_hot_spots, migrations) = costs.take_memory(top);
        let mut gaps = std::mem::take(&mut self.gaps);
        let known = |gap: &GapSummary| GapCause::ALL.iter().position(|cause| *cause == gap.cause);
        gaps.sort_by_key(|gap| (known(gap).unwrap_or(usize::MAX), gap.cause.name()));
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
            left_out: self.left_out,
            not_kept: self.not_kept,
            log_missing: false,
            overlapping: self.overlapping,
            unreadable: Vec::new(),
            events: types.iter().sum(),
            doubtful: self.doubtful,
            types: TypeCounts(types),
            peak_minute: self.minutes.finish(),
            timeline: self.timeline.with_gpus_in(&order).shown(),
            throttling: by_reason(self.gpus.iter().map(|gpu| (&gpu.throttling, gpu.watched_ns))),
            gpus: order
                .iter()
                .map(|place| self.gpus[*place].summary(&self.machines, &costs))
                .collect(),
            processes: processes(self.processes, &mut costs, top),
            spans: costs.spans(unpaired),
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
    fn new(machine: usize, gpu: GpuId) -> Self {
        Self {
            machine,
            gpu,
            types: [0; TYPES],
            throttling: Throttling::new(),
            now: Blindness::default(),
            watched_ns: 0,
            gaps: 0,
            lost: 0,
        }
    }

    fn is(&self, machine: usize, gpu: GpuId) -> bool {
        self.machine == machine && is_same(self.gpu, gpu)
    }

    fn summary(&self, machines: &Machines, costs: &Costs) -> GpuSummary {
        let Down { resets, timed, down_ns } = costs.down(self.machine, self.gpu);
        GpuSummary {
            host: machines.name(self.machine).map(str::to_owned),
            gpu: self.gpu,
            types: TypeCounts(self.types),
            resets,
            resets_timed: timed,
            down_ns,
            watched_ns: self.watched_ns,
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
        let Lived { lived_ns, guessed: lived_guessed, open, evicted_ns } = costs.lived(who);
        ProcessSummary {
            who,
            name: process.name,
            types: TypeCounts(process.types),
            first_unix_ns,
            last_unix_ns,
            lived_ns,
            lived_guessed,
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
