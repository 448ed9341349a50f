//! The numbers of a report against those of a slow and obvious one, on random histories with sessions, reboots,
//! filters, gaps, steps of the clock, pids that come again, and evictions within evictions.

use std::collections::{BTreeMap, BTreeSet};

use gpuev::span::{Outcome, SpanKind};
use gpuev::time::Anchor;
use gpuev::{
    Clock, Comm, Event, EventFacts, EventTime, EventType, Filter, Gap, GapCause, GpuId, Item,
    decode,
};
use gpuev_store::report::{Options, Report};
use gpuev_store::{Histories, Query, Session, Writer};
use proptest::prelude::*;

use super::stream::gpu;

const MS: u64 = 1_000_000;
const BOOTED: i64 = 1_795_000_000_000_000_000;
const GPUS: usize = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Gap { gpu: usize, ms: u64, cause: usize, count: Option<u64> },
    Session { reboot: bool, off_ms: u64, filter: u8 },
    ClockSet(i64),
    Begin { slot: usize, gpus: u8, told: bool },
    End { slot: usize },
    Of { slot: usize, what: u8 },
    Throttle { gpu: usize },
    PreReset { gpu: usize },
    PostReset { gpu: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let gap = (0..GPUS, 1..90_000_u64, 0..5_usize, prop::option::of(0..9_u64));
    prop_oneof![
        6 => (1..5_000_u64).prop_map(Step::Wait),
        1 => (30_000..400_000_u64).prop_map(Step::Wait),
        3 => gap.prop_map(|(gpu, ms, cause, count)| Step::Gap { gpu, ms, cause, count }),
        2 => (any::<bool>(), 1..500_000_u64, 0..6_u8)
            .prop_map(|(reboot, off_ms, filter)| Step::Session { reboot, off_ms, filter }),
        1 => (-7_200_000..7_200_000_i64).prop_map(Step::ClockSet),
        4 => (0..3_usize, 1..8_u8, any::<bool>())
            .prop_map(|(slot, gpus, told)| Step::Begin { slot, gpus, told }),
        3 => (0..3_usize).prop_map(|slot| Step::End { slot }),
        20 => (0..3_usize, 0..12_u8).prop_map(|(slot, what)| Step::Of { slot, what }),
        2 => (0..GPUS).prop_map(|gpu| Step::Throttle { gpu }),
        2 => (0..GPUS).prop_map(|gpu| Step::PreReset { gpu }),
        2 => (0..GPUS).prop_map(|gpu| Step::PostReset { gpu }),
    ]
}

/// An item, and which process it truly is of.
#[derive(Debug, Clone)]
struct Told {
    item: Item,
    process: Option<usize>,
}

/// One run of a recorder.
#[derive(Debug, Clone)]
struct Run {
    boot: usize,
    filter: Filter,
    from: Anchor,
    to: Anchor,
    items: Vec<Told>,
}

/// A process that lives.
#[derive(Debug, Clone)]
struct Process {
    number: usize,
    pid: u32,
    gpus: Vec<usize>,
}

/// Makes a history of steps.
struct Story {
    boot: usize,
    boot_ns: u64,
    offset_ns: i64,
    runs: Vec<Run>,
    slots: [Option<Process>; 3],
    processes: usize,
    resets: [u64; GPUS],
    seq: u64,
}

fn filter(number: u8) -> Filter {
    use EventType as T;
    match number {
        0 => Filter::new()
            .types([T::QueueEviction, T::VmFault, T::ProcessStart, T::ProcessEnd], true),
        1 => Filter::new().gpus([gpu(0), gpu(2)]),
        _ => Filter::new(),
    }
}

impl Story {
    fn of(steps: &[Step]) -> Vec<Run> {
        let mut story = Self {
            boot: 0,
            boot_ns: 5_000_000 * MS,
            offset_ns: BOOTED,
            runs: Vec::new(),
            slots: [None, None, None],
            processes: 0,
            resets: [0; GPUS],
            seq: 0,
        };
        story.begin(Filter::new());
        steps.iter().for_each(|step| story.step(step));
        story.end();
        story.runs
    }

    fn now(&self) -> Anchor {
        let unix_ns = self.offset_ns + i64::try_from(self.boot_ns).unwrap();
        Anchor { boot_ns: self.boot_ns, unix_ns }
    }

    fn begin(&mut self, filter: Filter) {
        let (from, to) = (self.now(), self.now());
        self.runs.push(Run { boot: self.boot, filter, from, to, items: Vec::new() });
    }

    fn end(&mut self) {
        let now = self.now();
        self.runs.last_mut().unwrap().to = now;
    }

    fn step(&mut self, step: &Step) {
        // Nothing happens at the same time as something else.
        self.boot_ns += MS;
        match *step {
            Step::Wait(ms) => self.boot_ns += ms * MS,
            Step::ClockSet(ms) => self.offset_ns += ms * 1_000_000,
            Step::Gap { gpu, ms, cause, count } => self.gap(gpu, ms, cause, count),
            Step::Session { reboot, off_ms, filter: number } => {
                self.end();
                self.boot_ns += off_ms * MS;
                if reboot {
                    self.slots = [None, None, None];
                    self.boot += 1;
                    self.offset_ns = self.now().unix_ns - 7_000_000 * 1_000_000;
                    self.boot_ns = 7_000_000 * MS;
                }
                self.begin(filter(number));
            }
            Step::Begin { slot, gpus, told } => self.process(slot, gpus, told),
            Step::End { slot } => self.process_ends(slot),
            Step::Of { slot, what } => self.of_process(slot, what),
            Step::Throttle { gpu } => self.line(gpu, None, "2 1000000000:1"),
            Step::PreReset { gpu } => {
                self.resets[gpu] += 1;
                self.line(gpu, None, &format!("3 {:x} job hang", self.resets[gpu]));
            }
            Step::PostReset { gpu } => self.line(gpu, None, &format!("4 {:x} ", self.resets[gpu])),
        }
    }

    fn gap(&mut self, index: usize, ms: u64, cause: usize, count: Option<u64>) {
        let from_boot_ns = self.boot_ns;
        self.boot_ns += ms * MS;
        let now = self.now();
        self.put(
            None,
            Item::Gap(Gap {
                gpu: gpu(index),
                cause: GapCause::ALL[cause % GapCause::ALL.len()],
                count,
                from_boot_ns,
                to_boot_ns: now.boot_ns,
                unix_ns: now.unix_ns,
            }),
        );
    }

    fn process(&mut self, slot: usize, gpus: u8, told: bool) {
        if self.slots[slot].is_some() {
            return;
        }
        // Long enough that what has no start is told from what ended.
        self.boot_ns += 1_500 * MS;
        let gpus = (0..GPUS).filter(|gpu| gpus >> gpu & 1 == 1).collect();
        let pid = [7, 1, 4242][slot];
        self.processes += 1;
        let process = Process { number: self.processes, pid, gpus };
        if told {
            for gpu in &process.gpus {
                self.line(*gpu, Some(&process), &format!("c {pid:x} job"));
                self.boot_ns += MS;
            }
        }
        self.slots[slot] = Some(process);
    }

    fn process_ends(&mut self, slot: usize) {
        let Some(process) = self.slots[slot].take() else { return };
        for gpu in &process.gpus {
            self.line(*gpu, Some(&process), &format!("d {:x} job", process.pid));
            self.boot_ns += MS;
        }
    }

    fn of_process(&mut self, slot: usize, what: u8) {
        let Some(process) = self.slots[slot].clone() else { return };
        let on = process.gpus[usize::from(what) % process.gpus.len()];
        let (ns, pid, node) = (self.boot_ns, process.pid, gpu(on).kfd_id);
        let line = match what {
            0..=2 => format!("9 {ns} -{pid} {node:x} 1"),
            3..=5 => format!("a {ns} -{pid} {node:x} 0"),
            6 => format!("1 {pid:x}:job"),
            7 | 8 => format!("7 {ns} -{pid} @7f00({node:x}) W"),
            9 | 10 => format!("8 {ns} -{pid} @7f00({node:x}) M"),
            _ => format!("b {ns} -{pid} @7f00(1) {node:x} 0"),
        };
        self.line(on, Some(&process), &line);
    }

    fn line(&mut self, index: usize, process: Option<&Process>, raw: &str) {
        let Anchor { boot_ns, unix_ns } = self.now();
        let clock =
            if decode(raw.as_bytes()).stamp().is_some() { Clock::Driver } else { Clock::Receipt };
        let time = EventTime { boot_ns, clock, received_boot_ns: boot_ns, unix_ns };
        self.seq += 1;
        let facts = EventFacts {
            gpu: gpu(index),
            seq: self.seq,
            time,
            doubtful: false,
            pid: process.map(|process| process.pid),
            comm: Comm::NONE,
            raw: raw.as_bytes(),
        };
        self.put(process, Item::Event(Event::from_facts(facts)));
    }

    /// The recorder takes what it wants.
    fn put(&mut self, process: Option<&Process>, item: Item) {
        let run = self.runs.last_mut().unwrap();
        let wanted = match &item {
            Item::Event(event) => run.filter.passes(&event.facts(), &event.record()),
            Item::Gap(gap) => run.filter.passes_gpu(gap.gpu),
        };
        if wanted {
            run.items.push(Told { item, process: process.map(|process| process.number) });
        }
    }
}

fn write(path: &std::path::Path, runs: &[Run]) {
    let mut writer: Option<Writer> = None;
    for run in runs {
        let mut session = Session::unknown(run.from).with_filter(run.filter.clone());
        session.boot_id = Some(format!("boot {}", run.boot));
        session.alive = Some(run.to);
        session.gpus = (0..GPUS).map(|index| (gpu(index), None)).collect();
        match &mut writer {
            Some(writer) => writer.next_session(&session).unwrap(),
            None => writer = Some(Writer::import(path, &session).unwrap()),
        }
        let writer = writer.as_mut().unwrap();
        run.items.iter().for_each(|told| writer.append(&told.item).unwrap());
    }
    writer.unwrap().close_import().unwrap();
}

/// A stretch of time.
type Stretch = (u64, u64);

/// How long at least one of `stretches` goes on within `from` and `to` while none of `but` does: moment by moment.
fn covered(stretches: &[Stretch], but: &[Stretch], (from, to): Stretch) -> u64 {
    let mut moments: BTreeSet<u64> = [from, to].into();
    moments.extend(stretches.iter().chain(but).flat_map(|(from, to)| [*from, *to]));
    let moments: Vec<u64> = moments.into_iter().filter(|at| (from..=to).contains(at)).collect();
    let holds = |all: &[Stretch], at: u64| all.iter().any(|(from, to)| (*from..*to).contains(&at));
    let pairs = moments.windows(2).filter(|pair| holds(stretches, pair[0]) && !holds(but, pair[0]));
    pairs.map(|pair| pair[1] - pair[0]).sum()
}

/// What is asked for.
#[derive(Debug, Clone)]
struct Asked {
    from: i64,
    to: i64,
    types: Option<Vec<EventType>>,
}

impl Asked {
    fn filter(&self) -> Filter {
        self.types.clone().map_or_else(Filter::new, |types| Filter::new().types(types, false))
    }

    fn query(&self) -> Query {
        Query::new().from_unix_ns(self.from).to_unix_ns(self.to).filter(self.filter())
    }

    fn wants(&self, item: &Item) -> bool {
        match item {
            Item::Event(event) => {
                let at = event.time.unix_ns;
                self.from <= at
                    && at < self.to
                    && self.filter().passes(&event.facts(), &event.record())
            }
            Item::Gap(gap) => {
                let length = i64::try_from(gap.to_boot_ns - gap.from_boot_ns).unwrap();
                gap.unix_ns >= self.from && gap.unix_ns - length < self.to
            }
        }
    }
}

/// What an obvious report says.
#[derive(Debug, Default, PartialEq)]
struct Numbers {
    events: u64,
    observed_ns: u64,
    lost: u64,
    complete: bool,
    types: BTreeMap<&'static str, u64>,
    /// By GPU: events, watched, throttled, gaps, resets, of these timed, down.
    gpus: BTreeMap<u32, [u64; 7]>,
    /// By cause: gaps, lost, unknown, time.
    gaps: BTreeMap<&'static str, [u64; 4]>,
    /// By kind and outcome.
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// By kind: how many took how long together.
    durations: BTreeMap<&'static str, (u64, u64)>,
    /// Of each process: pid, events, evicted, lived.
    processes: Vec<(u32, u64, u64, Option<u64>)>,
}

fn told_by(report: &Report) -> Numbers {
    let mut told = Numbers {
        events: report.events,
        observed_ns: report.observed_ns,
        lost: report.lost(),
        complete: report.is_complete(),
        ..Numbers::default()
    };
    told.types = report
        .types
        .iter()
        .map(|(one, count)| (one.map_or("UNKNOWN", EventType::name), count))
        .collect();
    for one in &report.gpus {
        let throttled = one.throttled_ns;
        let (resets, timed, down) = (one.resets, one.resets_timed, one.down_ns);
        let row = [one.types.total(), one.watched_ns, throttled, one.gaps, resets, timed, down];
        told.gpus.insert(one.gpu.index, row);
    }
    for gap in &report.gaps {
        let row = [gap.gaps, gap.lost, gap.of_unknown_size, gap.total_ns];
        told.gaps.insert(gap.cause.name(), row);
    }
    for span in &report.spans {
        let kind = span.kind.name();
        for (outcome, count) in &span.outcomes {
            told.outcomes.insert((kind, outcome.name()), *count);
        }
        if span.durations.count() > 0 {
            told.durations.insert(kind, (span.durations.count(), span.durations.total_ns()));
        }
    }
    for one in &report.processes.entries {
        told.processes.push((one.who.pid, one.types.total(), one.evicted_ns, one.lived_ns));
    }
    told.processes.sort_unstable();
    told
}

/// What is open of one kind on a GPU.
#[derive(Debug, Clone)]
struct Open {
    kind: SpanKind,
    gpu: GpuId,
    pid: u32,
    process: Option<usize>,
    sequence: u32,
    from: u64,
}

#[derive(Debug, Default)]
struct TrueProcess {
    pid: u32,
    events: u64,
    evicted: BTreeMap<u32, Vec<Stretch>>,
    lived: Option<u64>,
}

/// The obvious report.
#[derive(Default)]
struct Obvious {
    numbers: Numbers,
    processes: BTreeMap<usize, TrueProcess>,
    open: Vec<Open>,
    /// Kinds that are not paired.
    halves: Vec<SpanKind>,
}

impl Obvious {
    fn of(runs: &[Run], asked: &Asked) -> Numbers {
        let mut obvious = Self::default();
        obvious.numbers.complete = true;
        for run in runs {
            let ends = run.to.unix_ns >= asked.from && run.from.unix_ns < asked.to;
            if ends {
                obvious.run(run, asked);
            }
        }
        let Self { mut numbers, processes, .. } = obvious;
        for one in processes.into_values() {
            let evicted = one.evicted.values().map(|all| covered(all, &[], (0, u64::MAX))).sum();
            numbers.processes.push((one.pid, one.events, evicted, one.lived));
        }
        numbers.processes.sort_unstable();
        numbers
    }

    fn run(&mut self, run: &Run, asked: &Asked) {
        self.numbers.complete &= run.filter == Filter::new();
        self.halves = SpanKind::ALL.into_iter().collect();
        self.halves.retain(|kind| {
            ![&run.filter, &asked.filter()].into_iter().all(|one| one.passes_both_ends_of(*kind))
        });
        let wanted: Vec<&Told> = run.items.iter().filter(|told| asked.wants(&told.item)).collect();
        for told in &wanted {
            match &told.item {
                Item::Event(event) => self.event(event, told.process),
                Item::Gap(gap) => self.gap(gap),
            }
        }
        for open in std::mem::take(&mut self.open) {
            self.over(&open, None, Outcome::Open);
        }
        self.time(run, &wanted, asked);
    }

    /// Who watched when.
    fn time(&mut self, run: &Run, wanted: &[&Told], asked: &Asked) {
        // The clock as it was at the end says what was asked for.
        let offset = run.to.unix_ns - i64::try_from(run.to.boot_ns).unwrap();
        let by_boot = |unix: i64| u64::try_from(unix.saturating_sub(offset)).unwrap_or(0);
        let from = run.from.boot_ns.max(by_boot(asked.from));
        let to = run.to.boot_ns.min(by_boot(asked.to)).max(from);
        let mut any: Vec<Stretch> = Vec::new();
        for index in (0..GPUS).filter(|index| run.filter.passes_gpu(gpu(*index))) {
            let of_gpu = |told: &&&Told| match &told.item {
                Item::Event(event) => event.gpu == gpu(index),
                Item::Gap(gap) => gap.gpu == gpu(index),
            };
            let items: Vec<&&Told> = wanted.iter().filter(of_gpu).collect();
            let mut blind = Vec::new();
            let mut throttled = Vec::new();
            for (place, told) in items.iter().enumerate() {
                match &told.item {
                    Item::Gap(gap) => {
                        let next = items.get(place + 1).map_or(u64::MAX, |next| end_of(&next.item));
                        let removed = gap.cause == GapCause::GpuRemoved;
                        blind.push((gap.from_boot_ns, gap.to_boot_ns));
                        blind.extend(removed.then_some((gap.to_boot_ns, next)));
                    }
                    Item::Event(event) => {
                        if event.event_type() == Some(EventType::ThermalThrottle) {
                            let at = event.time.boot_ns;
                            throttled.push((at, at + 60_000 * MS));
                        }
                    }
                }
            }
            let watched = covered(&[(from, to)], &blind, (from, to));
            let row = self.numbers.gpus.entry(gpu(index).index).or_default();
            row[1] += watched;
            // What throttles before the time asked for is not known in it.
            row[2] += covered(&throttled, &blind, (0, to));
            let mut moments: BTreeSet<u64> = [from, to].into();
            moments.extend(blind.iter().flat_map(|(from, to)| [*from, *to]));
            let moments: Vec<u64> = moments.into_iter().collect();
            let seen = |at: u64| !blind.iter().any(|(from, to)| (*from..*to).contains(&at));
            any.extend(
                moments.windows(2).filter(|pair| seen(pair[0])).map(|pair| (pair[0], pair[1])),
            );
        }
        self.numbers.observed_ns += covered(&any, &[], (from, to));
    }

    fn event(&mut self, event: &Event, process: Option<usize>) {
        self.numbers.events += 1;
        *self.numbers.types.entry(event.type_name()).or_default() += 1;
        self.numbers.gpus.entry(event.gpu.index).or_default()[0] += 1;
        if let Some(number) = process {
            let one = self.processes.entry(number).or_default();
            one.pid = event.pid().unwrap();
            one.events += 1;
        }
        let Some(kind) = event.event_type().and_then(SpanKind::of) else {
            return self.pass_to(event.time.boot_ns);
        };
        let raw = event.raw();
        let is_start = matches!(raw[0], b'3' | b'5' | b'7' | b'9' | b'c');
        let sequence = match kind {
            SpanKind::Reset => {
                let word = raw.split(|byte| *byte == b' ').nth(1).unwrap();
                u32::from_str_radix(std::str::from_utf8(word).unwrap(), 16).unwrap()
            }
            _ => 0,
        };
        let pid = event.pid().unwrap_or(0);
        let (gpu, from) = (event.gpu, event.time.boot_ns);
        let open = Open { kind, gpu, pid, process, sequence, from };
        if self.halves.contains(&kind) {
            return self.over(&open, None, Outcome::Filtered);
        }
        self.pass_to(from);
        if kind == SpanKind::Process {
            let of_it = |open: &Open| {
                let recurs = !matches!(open.kind, SpanKind::Reset | SpanKind::Process);
                recurs && open.gpu == gpu && open.pid == pid
            };
            self.expire(of_it, Outcome::ProcessEnded);
        }
        if is_start {
            let same = |other: &Open| same(other, &open);
            let most = if matches!(kind, SpanKind::Reset | SpanKind::Process) { 1 } else { 8 };
            if self.open.iter().filter(|other| same(other)).count() == most {
                let oldest = self.open.iter().position(same).unwrap();
                let oldest = self.open.remove(oldest);
                self.over(&oldest, None, Outcome::Superseded);
            }
            self.open.push(open);
        } else {
            match self.open.iter().rposition(|other| same(other, &open)) {
                Some(place) => {
                    let start = self.open.remove(place);
                    let outcome = match kind {
                        SpanKind::PageFault => Outcome::Migrated,
                        _ => Outcome::Completed,
                    };
                    self.over(&start, Some(from), outcome);
                }
                None => self.over(&open, None, Outcome::StartMissing),
            }
        }
    }

    /// What takes too long by then is given up.
    fn pass_to(&mut self, now: u64) {
        let is_late = |open: &Open| now >= open.from.saturating_add(most_ns(open.kind));
        self.expire(is_late, Outcome::Timeout);
    }

    fn expire(&mut self, chosen: impl Fn(&Open) -> bool, outcome: Outcome) {
        while let Some(place) = self.open.iter().position(&chosen) {
            let open = self.open.remove(place);
            self.over(&open, None, outcome);
        }
    }

    fn over(&mut self, open: &Open, to: Option<u64>, outcome: Outcome) {
        let kind = open.kind.name();
        *self.numbers.outcomes.entry((kind, outcome.name())).or_default() += 1;
        let took = to.map(|to| to - open.from);
        let around =
            open.kind == SpanKind::QueueEviction && self.open.iter().any(|other| same(other, open));
        if let Some(took) = took.filter(|_| !around) {
            let (count, total) = self.numbers.durations.entry(kind).or_default();
            (*count, *total) = (*count + 1, *total + took);
        }
        let row = self.numbers.gpus.entry(open.gpu.index).or_default();
        if open.kind == SpanKind::Reset {
            row[4] += 1;
            row[5] += u64::from(took.is_some());
            row[6] += took.unwrap_or(0);
        }
        let Some(process) = open.process else { return };
        let one = self.processes.entry(process).or_default();
        match (open.kind, to) {
            (SpanKind::QueueEviction, Some(to)) => {
                one.evicted.entry(open.gpu.index).or_default().push((open.from, to));
            }
            (SpanKind::Process, Some(_)) => one.lived = one.lived.max(took),
            _ => {}
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.numbers.complete = false;
        let lost = gap.count.unwrap_or(0);
        self.numbers.lost += lost;
        self.numbers.gpus.entry(gap.gpu.index).or_default()[3] += 1;
        let row = self.numbers.gaps.entry(gap.cause.name()).or_default();
        let length = gap.to_boot_ns - gap.from_boot_ns;
        let more = [1, lost, u64::from(gap.count.is_none()), length];
        row.iter_mut().zip(more).for_each(|(sum, one)| *sum += one);
        self.pass_to(gap.to_boot_ns);
        let here = |open: &Open| open.gpu == gap.gpu;
        if gap.cause == GapCause::GpuRemoved {
            self.expire(here, Outcome::GpuRemoved);
        } else {
            let recurs = |open: &Open| !matches!(open.kind, SpanKind::Reset | SpanKind::Process);
            self.expire(|open| here(open) && recurs(open), Outcome::Gap);
        }
    }
}

fn same(one: &Open, other: &Open) -> bool {
    (one.kind, one.gpu, one.pid, one.sequence) == (other.kind, other.gpu, other.pid, other.sequence)
}

fn end_of(item: &Item) -> u64 {
    match item {
        Item::Event(event) => event.time.boot_ns,
        Item::Gap(gap) => gap.to_boot_ns,
    }
}

/// How long one of a kind may take.
fn most_ns(kind: SpanKind) -> u64 {
    match kind {
        SpanKind::Reset => 600_000 * MS,
        SpanKind::PageFault => 30_000 * MS,
        SpanKind::QueueEviction => 86_400_000 * MS,
        _ => u64::MAX,
    }
}

fn check(runs: &[Run], asked: &Asked) {
    let (_folder, path) = crate::items::folder();
    write(&path, runs);
    let mut options = Options::default();
    options.top = 1_000;
    let report = Histories::open_file(&path).unwrap().report(&asked.query(), options).unwrap();
    let (mut told, mut expected) = (told_by(&report), Obvious::of(runs, asked));
    if runs.iter().any(|run| run.filter.parts().some_gpus) {
        // Who started where the recorder did not look is not known to be who goes on where it does.
        told.processes.clear();
        expected.processes.clear();
    }
    assert_eq!(told, expected, "{asked:?}");
    let timeline = &report.timeline;
    assert_eq!(timeline.watched_ns().iter().sum::<u64>(), report.observed_ns);
    assert_eq!(timeline.events().iter().sum::<u64>(), report.events);
    for (place, one) in report.gpus.iter().enumerate() {
        assert_eq!(timeline.of_gpu(place).iter().sum::<u64>(), one.types.total());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_number_is_that_of_the_obvious_report(
        steps in prop::collection::vec(step(), 0..90),
        types in prop::option::of(prop::sample::subsequence(EventType::ALL.to_vec(), 0..=13)),
        (from, to) in (0.0..1.3_f64, 0.0..1.3_f64),
    ) {
        let runs = Story::of(&steps);
        let everything = Asked { from: i64::MIN, to: i64::MAX, types: None };
        check(&runs, &everything);
        check(&runs, &Asked { types: types.clone(), ..everything });
        let stepped = steps.iter().any(|step| matches!(step, Step::ClockSet(_)));
        if !stepped {
            // A part of the time: as much as begins and ends within runs that are wholly asked for or not at all.
            let (first, last) = (runs[0].from.unix_ns, runs.last().unwrap().to.unix_ns);
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
            let at = |share: f64| first + ((last - first) as f64 * share) as i64;
            let asked = Asked { from: at(from.min(to)), to: at(from.max(to)), types: None };
            check_times(&runs, &asked);
        }
    }
}

/// Of a part of the time: counts and what was watched. What began before it has no beginning in it.
fn check_times(runs: &[Run], asked: &Asked) {
    let (_folder, path) = crate::items::folder();
    write(&path, runs);
    let report =
        Histories::open_file(&path).unwrap().report(&asked.query(), Options::default()).unwrap();
    let (told, expected) = (told_by(&report), Obvious::of(runs, asked));
    assert_eq!((told.events, &told.types), (expected.events, &expected.types));
    assert_eq!((told.observed_ns, told.lost), (expected.observed_ns, expected.lost), "{asked:?}");
    let watched = |numbers: &Numbers| -> Vec<[u64; 2]> {
        numbers.gpus.values().map(|row| [row[0], row[1]]).filter(|row| *row != [0, 0]).collect()
    };
    assert_eq!(watched(&told), watched(&expected), "{asked:?}");
}
