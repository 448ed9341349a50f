//! Nothing is lost silently, whatever happens at once: random runs of subscribers that come and go and so change the
//! masks, keepers, GPUs that go and come back, a KFD that is locked, GPUs that are released, reads that fail, and threads
//! that stand still at any moment while the driver goes on. Every line that a subscriber wants arrives once, or lies in
//! a gap of its GPU; what the test knows of the lines comes from the driver's side alone.
//!
//! A few runs for each kernel; more with `GPUEV_CASES=2000 cargo nextest run -p gpuev --lib conservation`.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use gpuev_sim::{Client, Kernel, KfdLock, SimMachine};
use proptest::prelude::*;
use rustix::io::Errno;

use crate::seam::{Moment, Standing};
use crate::time::boot_now_ns;
use crate::{
    DEFAULT_LIMIT, Error, EventSource, EventType, Filter, Gpu, Item, KfdVersion, Machine, Monitor,
    OnOpened, OpenedFiles, Result, Scope, Subscription, advice,
};

const GPUS: usize = 2;
/// More than any FIFO holds.
const FLOOD: usize = 400;

/// What the driver writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fault,
    Thermal,
    Reset,
    PageFault,
    Eviction,
    Unknown,
}

const KINDS: [Kind; 6] =
    [Kind::Fault, Kind::Thermal, Kind::Reset, Kind::PageFault, Kind::Eviction, Kind::Unknown];

impl Kind {
    fn event_type(self) -> Option<EventType> {
        Some(match self {
            Self::Fault => EventType::VmFault,
            Self::Thermal => EventType::ThermalThrottle,
            Self::Reset => EventType::GpuPreReset,
            Self::PageFault => EventType::PageFaultStart,
            Self::Eviction => EventType::QueueEviction,
            Self::Unknown => return None,
        })
    }

    fn id(self) -> u32 {
        self.event_type().map_or(15, EventType::id)
    }

    /// A line that no other is like.
    fn line(self, number: usize) -> String {
        match self {
            // A name to the brim: what follows cannot be a part of it.
            Self::Fault => format!("1 4d2:n{number:014}"),
            Self::Thermal => format!("2 1:{number:x}"),
            Self::Reset => format!("3 {number:x} HWS"),
            Self::PageFault => format!("7 {} -0 @{number:x}(64) W", boot_now_ns()),
            Self::Eviction => format!("9 {} -0 64 {number}", boot_now_ns()),
            Self::Unknown => format!("f {number}"),
        }
    }
}

/// What the world may do while a thread stands still.
#[derive(Debug, Clone, Copy)]
enum Act {
    Flood { gpu: usize, kind: Kind },
    Plug { gpu: usize },
    Lock,
    FailRead,
}

#[derive(Debug, Clone)]
enum Step {
    Emit {
        gpu: usize,
        kind: Kind,
        lines: usize,
    },
    Now(Act),
    /// Whoever passes this moment next, but so many times.
    At {
        moment: Moment,
        after: usize,
        act: Act,
    },
    Subscribe {
        kinds: Vec<Kind>,
        gpu: Option<usize>,
    },
    Leave {
        nth: usize,
    },
    Take {
        nth: usize,
        items: usize,
    },
    Release,
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = || prop::sample::select(KINDS.to_vec());
    let moments =
        [Moment::BeforeRead, Moment::AfterRead, Moment::BeforeClose, Moment::AfterClose].to_vec();
    let act = || {
        prop_oneof![
            3 => (0..GPUS, kind()).prop_map(|(gpu, kind)| Act::Flood { gpu, kind }),
            1 => (0..GPUS).prop_map(|gpu| Act::Plug { gpu }),
            1 => Just(Act::Lock),
            1 => Just(Act::FailRead),
        ]
    };
    let emit = (0..GPUS, kind(), 1..40_usize);
    let subscribe = (prop::collection::vec(kind(), 0..3), prop::option::weighted(0.3, 0..GPUS));
    let step = prop_oneof![
        6 => emit.prop_map(|(gpu, kind, lines)| Step::Emit { gpu, kind, lines }),
        2 => act().prop_map(Step::Now),
        3 => (prop::sample::select(moments), 0..4_usize, act())
            .prop_map(|(moment, after, act)| Step::At { moment, after, act }),
        2 => subscribe.prop_map(|(kinds, gpu)| Step::Subscribe { kinds, gpu }),
        1 => (0..4_usize).prop_map(|nth| Step::Leave { nth }),
        1 => (0..4_usize, 1..200_usize).prop_map(|(nth, items)| Step::Take { nth, items }),
        1 => Just(Step::Release),
        2 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..25)
}

/// A line, and between which moments the driver took or dropped it.
#[derive(Debug, Clone, Copy)]
struct Line {
    gpu: usize,
    kind: Kind,
    from_boot_ns: u64,
    to_boot_ns: u64,
}

/// A driver, and what it did.
#[derive(Clone)]
struct World {
    sim: SimMachine,
    bdfs: [String; GPUS],
    shared: Arc<Mutex<Shared>>,
    armed: Arc<Mutex<Vec<(Moment, usize, Act)>>>,
}

#[derive(Default)]
struct Shared {
    lines: Vec<Line>,
    by_text: HashMap<Vec<u8>, usize>,
    gone: [bool; GPUS],
    lock: Option<KfdLock>,
}

impl World {
    fn new(kernel: Kernel) -> Self {
        let sim = SimMachine::builder().kernel(kernel).gpus(GPUS).build().unwrap();
        let bdfs = [0, 1].map(|gpu| sim.gpus()[gpu].bdf.clone());
        Self { sim, bdfs, shared: Arc::default(), armed: Arc::default() }
    }

    fn machine(&self) -> Machine {
        let sim = self.sim.clone();
        Machine::at(self.sim.root()).with_event_source(Keepers { sim })
    }

    /// One that is not there raises nothing.
    fn emit(&self, gpu: usize, kind: Kind, count: usize) {
        let mut shared = self.shared.lock().unwrap();
        for _ in 0..if shared.gone[gpu] { 0 } else { count } {
            let from_boot_ns = boot_now_ns();
            let number = shared.lines.len();
            let line = kind.line(number);
            self.sim.emit_raw(gpu, kind.id(), None, format!("{line}\n").as_bytes());
            let to_boot_ns = boot_now_ns();
            shared.by_text.insert(line.into_bytes(), number);
            shared.lines.push(Line { gpu, kind, from_boot_ns, to_boot_ns });
        }
    }

    /// Takes a GPU out, or puts it back.
    fn plug(&self, gpu: usize) {
        let mut shared = self.shared.lock().unwrap();
        shared.gone[gpu] = !shared.gone[gpu];
        if shared.gone[gpu] {
            self.sim.remove_gpu(gpu).unwrap();
        } else {
            self.sim.restore_gpu(gpu).unwrap();
        }
    }

    fn act(&self, act: Act) -> std::io::Result<()> {
        match act {
            Act::Flood { gpu, kind } => self.emit(gpu, kind, FLOOD),
            Act::Plug { gpu } => self.plug(gpu),
            Act::FailRead => return Err(Errno::NOMEM.into()),
            Act::Lock => {
                let mut shared = self.shared.lock().unwrap();
                shared.lock = match shared.lock.take() {
                    None => Some(self.sim.lock_kfd()),
                    Some(_unlocked) => None,
                };
            }
        }
        Ok(())
    }

    /// A thread passes `moment`: what waits for it happens.
    fn pass(&self, moment: Moment) -> std::io::Result<()> {
        // Held meanwhile: what has begun is over before the test goes on alone.
        let mut armed = self.armed.lock().unwrap();
        let mut acts = Vec::new();
        armed.retain_mut(|(at, after, act)| {
            if *at != moment {
                return true;
            }
            if *after == 0 {
                acts.push(*act);
                return false;
            }
            *after -= 1;
            true
        });
        acts.into_iter().map(|act| self.act(act)).fold(Ok(()), std::io::Result::and)
    }

    /// From here on all is as it should be.
    fn calm(&self) {
        self.armed.lock().unwrap().clear();
        self.shared.lock().unwrap().lock = None;
        for gpu in 0..GPUS {
            if self.shared.lock().unwrap().gone[gpu] {
                self.plug(gpu);
            }
        }
    }
}

/// Opens all files of one look by one process that has just opened `/dev/kfd`.
struct Keepers {
    sim: SimMachine,
}

impl std::fmt::Debug for Keepers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keepers")
    }
}

impl EventSource for Keepers {
    fn version(&self) -> Result<KfdVersion> {
        let (major, minor) = self.sim.kfd_version();
        Ok(KfdVersion { major, minor })
    }

    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        self.open_all(std::slice::from_ref(gpu), &|_, _| {})?.into_files().remove(0)
    }

    fn scope(&self) -> Scope {
        Scope::everything("a test")
    }

    fn open_all(&self, gpus: &[Gpu], each: OnOpened<'_>) -> Result<OpenedFiles> {
        let refused = |error| {
            advice::opening_kfd(&Machine::at(self.sim.root()), Path::new("/dev/kfd"), error)
        };
        let process = self.sim.open_kfd(&Client::root()).map_err(refused)?;
        let open = |gpu: &Gpu| {
            let file = process.open_events(gpu.id.kfd_id, &Client::root());
            file.inspect(|file| each(gpu, file)).map_err(|error| Error::io("SMI_EVENTS", error))
        };
        Ok(OpenedFiles::new(self.version()?, self.scope(), gpus.iter().map(open).collect()))
    }
}

/// A subscriber, what it wants, and what it got.
struct Taker {
    kinds: Vec<Kind>,
    gpu: Option<usize>,
    since_boot_ns: u64,
    /// Of each GPU.
    until_boot_ns: [u64; GPUS],
    items: Option<Subscription>,
    got: Vec<Item>,
}

impl Taker {
    fn wants(&self, line: &Line) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&line.kind))
            && self.gpu.is_none_or(|gpu| gpu == line.gpu)
            && self.since_boot_ns < line.from_boot_ns
            && line.to_boot_ns < self.until_boot_ns[line.gpu]
    }

    fn take(&mut self, count: usize) {
        let items = self
            .items
            .iter_mut()
            .flat_map(|items| std::iter::from_fn(move || items.try_next()).take(count));
        self.got.extend(items);
    }

    /// It wants nothing more. What was written after the last line that it got may not have been read.
    fn leave(&mut self, world: &World) {
        self.take(usize::MAX);
        if self.items.take().is_none() {
            return;
        }
        self.until_boot_ns = [0; GPUS];
        let shared = world.shared.lock().unwrap();
        for item in &self.got {
            let Item::Event(event) = item else { continue };
            if let Some(line) = shared.by_text.get(event.raw()).map(|number| shared.lines[*number])
            {
                self.until_boot_ns[line.gpu] = line.from_boot_ns;
            }
        }
    }

    /// Everything that it wanted is there once, in order, or lies in a gap.
    fn check(&self, world: &World) {
        let shared = world.shared.lock().unwrap();
        let mut came = vec![0; shared.lines.len()];
        let mut gaps = Vec::new();
        let mut last = HashMap::new();
        for item in &self.got {
            match item {
                Item::Gap(gap) => gaps.push(gap),
                Item::Event(event) => {
                    let before = last.insert(event.gpu.bdf, event.seq);
                    assert!(before.is_none_or(|before| before < event.seq), "{event:?}");
                    // AMD's own driver puts its counts of drops between.
                    if let Some(number) = shared.by_text.get(event.raw()) {
                        came[*number] += 1;
                    }
                }
            }
        }
        for (line, came) in shared.lines.iter().zip(came) {
            let in_gap = || {
                gaps.iter().any(|gap| {
                    gap.gpu.bdf.to_string() == world.bdfs[line.gpu]
                        && gap.from_boot_ns <= line.to_boot_ns
                        && line.from_boot_ns <= gap.to_boot_ns
                })
            };
            assert!(came <= 1, "{line:?} came {came} times");
            assert!(
                !self.wants(line) || came == 1 || in_gap(),
                "{line:?} did not come to one that wants {:?} of {:?}; gaps: {gaps:?}",
                self.kinds,
                self.gpu
            );
        }
    }
}

struct Run {
    world: World,
    monitor: Monitor,
    takers: Vec<Taker>,
    /// A subscriber that waits all the time, and so drains inline.
    waiting: (Taker, JoinHandle<()>, Receiver<Item>),
}

impl Run {
    fn new(world: World) -> Self {
        let builder = Monitor::builder(&world.machine());
        let (monitor, items) = builder.start_with(Filter::new(), DEFAULT_LIMIT).unwrap();
        let (send, taken) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            items.for_each(|item| send.send(item).unwrap());
        });
        let taker = Taker {
            kinds: Vec::new(),
            gpu: None,
            since_boot_ns: boot_now_ns(),
            until_boot_ns: [u64::MAX; GPUS],
            items: None,
            got: Vec::new(),
        };
        Self { world, monitor, takers: Vec::new(), waiting: (taker, thread, taken) }
    }

    fn subscribe(&mut self, kinds: Vec<Kind>, gpu: Option<usize>) {
        let mut filter = Filter::new();
        if !kinds.is_empty() {
            let types = kinds.iter().filter_map(|kind| kind.event_type());
            filter = filter.types(types, kinds.contains(&Kind::Unknown));
        }
        if let Some(gpu) = gpu {
            let inventory = self.world.machine().inventory();
            let chosen = inventory.ok().and_then(|all| all.selector(&self.world.bdfs[gpu]).ok());
            let Some(chosen) = chosen else { return };
            filter = filter.gpus([chosen]);
        }
        let items = Some(self.monitor.subscribe(filter));
        let (since_boot_ns, until_boot_ns) = (boot_now_ns(), [u64::MAX; GPUS]);
        let got = Vec::new();
        self.takers.push(Taker { kinds, gpu, since_boot_ns, until_boot_ns, items, got });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Emit { gpu, kind, lines } => self.world.emit(gpu, kind, lines),
            // Nobody reads here.
            Step::Now(Act::FailRead) => {}
            Step::Now(act) => self.world.act(act).unwrap(),
            Step::At { moment, after, act } => {
                // Only a read can fail.
                let moment = if matches!(act, Act::FailRead) { Moment::BeforeRead } else { moment };
                self.world.armed.lock().unwrap().push((moment, after, act));
            }
            Step::Subscribe { kinds, gpu } => self.subscribe(kinds, gpu),
            Step::Leave { nth } => {
                if let Some(taker) = self.takers.get_mut(nth) {
                    taker.leave(&self.world);
                }
            }
            Step::Take { nth, items } => {
                if let Some(taker) = self.takers.get_mut(nth) {
                    taker.take(items);
                }
            }
            Step::Release => self.monitor.release(),
            // That there is no GPU now is no fault of it.
            Step::Resume => drop(self.monitor.resume()),
        }
    }

    /// Waits until each GPU's events come again, and ends.
    fn finish(self) {
        let Self { world, monitor, mut takers, waiting: (mut taker, thread, taken) } = self;
        world.calm();
        while monitor.gpus().len() < GPUS {
            monitor.resume().unwrap();
        }
        for gpu in 0..GPUS {
            loop {
                // A full FIFO would take no marker, and nothing would follow that tells so.
                while world.sim.held_bytes(gpu) > 0 {
                    std::thread::yield_now();
                }
                world.emit(gpu, Kind::Thermal, 1);
                let shared = world.shared.lock().unwrap();
                let (number, marker) = (shared.lines.len() - 1, *shared.lines.last().unwrap());
                drop(shared);
                let is_it = |item: &Item| match item {
                    Item::Event(event) => {
                        world.shared.lock().unwrap().by_text.get(event.raw()) == Some(&number)
                    }
                    Item::Gap(_) => false,
                };
                let is_over = |item: &Item| match item {
                    Item::Event(_) => false,
                    Item::Gap(gap) => {
                        gap.gpu.bdf.to_string() == world.bdfs[gpu]
                            && gap.to_boot_ns >= marker.to_boot_ns
                    }
                };
                let last = loop {
                    let item = taken.recv().unwrap();
                    let (it, over) = (is_it(&item), is_over(&item));
                    taker.got.push(item);
                    if it || over {
                        break it;
                    }
                };
                if last {
                    break;
                }
            }
        }
        drop(monitor);
        thread.join().unwrap();
        taker.got.extend(taken);
        taker.check(&world);
        for taker in &mut takers {
            let items = taker.items.take();
            taker.got.extend(items.into_iter().flatten());
            taker.check(&world);
        }
    }
}

fn nothing_is_lost_silently(kernel: Kernel, steps: Vec<Step>) {
    let world = World::new(kernel);
    let passing = world.clone();
    let still = Standing::still(move |moment| passing.pass(moment));
    let mut run = Run::new(world);
    steps.into_iter().for_each(|step| run.take(step));
    run.finish();
    drop(still);
}

fn config() -> ProptestConfig {
    let cases = std::env::var("GPUEV_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(12)) }
}

macro_rules! on_each_kernel {
    ($($name:ident => $kernel:expr,)*) => {
        proptest! {
            #![proptest_config(config())]
            $(
                #[test]
                fn $name(steps in steps()) {
                    nothing_is_lost_silently($kernel, steps);
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
