//! The agent: its parts put together, from start to end.
//!
//! One thread, the worker, makes signals of what the monitor gives and hands them on. What listens to people
//! and programs (the control socket, HTTP) sees the agent through [`Shared`] and asks the worker for changes.

mod before;
mod keeping;
mod known_gpus;
mod listening;
mod outputs;
mod overview;
mod recording;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use gpuev::health::Health;
use gpuev::time::{Anchor, boot_now_ns};
use gpuev::{Bdf, Error, ErrorKind, Filter, Gpu, GpuId, Machine, Monitor, Result};
use gpuev_store::Progress;

use crate::alert::Book;
use crate::blind::AliveNote;
use crate::config::Config;
use crate::inventory::Inventory;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::rule::{EngineStats, RuleSet};
use crate::signal::GpuChange;
use crate::sink::Stats;

use before::Before;
use known_gpus::KnownGpus;
use listening::Listening;
use outputs::{Outputs, sink_context};
pub(crate) use overview::for_people;
pub use overview::{GpuState, Overview, SinkState};
use recording::Recording;
use worker::{Command, Retry, Worker};

/// A worker that has not looked at the clock for so long hangs.
const HANGS_AFTER_NS: u64 = 30_000_000_000;

/// A line on standard error, where the service manager's journal listens.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stderr(), "gpuev agent: {text}");
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    http: Arc<Listening>,
    worker: JoinHandle<()>,
}

/// What others may see of the agent, and ask of it.
#[derive(Debug)]
pub struct Shared {
    /// When it was started.
    pub started: Anchor,
    /// The machine that it watches.
    pub machine: Machine,
    /// What happens, for those who listen.
    pub live: Live,
    /// The history, if one is kept.
    pub history: Option<PathBuf>,
    /// The alerts.
    pub book: Book,
    /// What is counted and measured, for monitoring systems.
    pub metrics: Arc<Metrics>,
    monitor: Mutex<Watching>,
    commands: Mutex<Sender<Command>>,
    state: Mutex<State>,
    signals: AtomicU64,
    /// When the worker last looked at the clock, in nanoseconds of `CLOCK_BOOTTIME`; 0 before it has begun.
    ticked_boot_ns: AtomicU64,
}

/// The monitor, and whether it has let go of the GPUs.
#[derive(Debug)]
struct Watching {
    monitor: Option<Arc<Monitor>>,
    yielded_since_boot_ns: Option<u64>,
}

/// What the worker tells once a second.
#[derive(Debug, Default)]
struct State {
    config: Config,
    recorded: Progress,
    recording_failure: Option<String>,
    not_kept: Vec<String>,
    /// What it works without, and why.
    lacks: BTreeMap<&'static str, String>,
    gpus: Vec<(GpuId, GpuChange)>,
    rules: EngineStats,
    sinks: Vec<Stats>,
    health: BTreeMap<(Bdf, u32), (Anchor, Arc<Health>)>,
}

/// How the agent is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Signals made since it was started.
    pub signals: u64,
    /// How far recording is.
    pub recorded: Progress,
    /// Why nothing is recorded, where something should be.
    pub recording_failure: Option<String>,
    /// What of alerts is not kept on disk, and why: a restart will not know of it.
    pub not_kept: Vec<String>,
    /// What it works without, and why. It tries again to have it.
    pub lacks: Vec<String>,
    /// The GPUs that are watched.
    pub gpus: Vec<Gpu>,
    /// GPUs whose events cannot be read, and why.
    pub unreadable: Vec<(Gpu, String)>,
    /// What each GPU is, also those that were there and are not.
    pub states: Vec<(GpuId, GpuChange)>,
    /// Signals that rules, or alerts that the book, had no room for.
    pub refused: u64,
    /// A rule whose condition cannot be decided, and why.
    pub condition_error: Option<(String, String)>,
    /// Since when the GPUs are let go, in nanoseconds of `CLOCK_BOOTTIME`.
    pub yielded_since_boot_ns: Option<u64>,
}

impl Agent {
    /// Whether an agent of `machine` could be started by `config`: its rules, and its sinks' templates and
    /// secrets. Gives the rules. Connects to nobody.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn check(machine: &Machine, config: &Config) -> Result<RuleSet> {
        let wrong = |why: String| Error::new(ErrorKind::InvalidInput, why);
        let rules = config.rules.load().map_err(|problems| wrong(problems.to_string()))?;
        let context = sink_context(machine, config, &Book::new(), &Arc::default());
        let checked = config.sinks.check(&context);
        checked.map_err(|invalid| wrong(invalid.to_string()))?;
        Ok(rules)
    }

    /// Delivers a test message to one sink of `config`; gives its whole name.
    ///
    /// # Errors
    /// There is no such sink, or its receiver does not take the message.
    pub fn test_sink(machine: &Machine, config: &Config, name: &str) -> Result<String> {
        let context = sink_context(machine, config, &Book::new(), &Arc::default());
        let tested = config.sinks.test(name, &context);
        tested.map_err(|invalid| Error::new(ErrorKind::InvalidInput, invalid.to_string()))
    }

    /// Starts to watch `machine`. It may have no GPU yet. Without a disk, and without its address, the agent watches and
    /// tells all the same, says what it lacks, and tries again.
    ///
    /// # Errors
    /// The configuration makes no sense, or no thread or descriptor is left.
    pub fn start(machine: &Machine, config: &Config) -> Result<Self> {
        let rules = Self::check(machine, config)?;
        let state_dir = &config.agent.state_dir;
        let history = config.history.enabled.then(|| config.history_file());
        let before = Before::look(machine, state_dir, history.as_deref());
        let monitor = Monitor::builder(machine).may_be_empty(true).start()?;
        let queue = usize::try_from(config.agent.queue.0).unwrap_or(usize::MAX);
        let items = monitor.subscribe_with_limit(Filter::new(), queue);
        let mut gaps = Vec::new();
        let mut recording = None;
        if config.history.enabled {
            let started = Recording::start(machine, &monitor, config, before.seen.as_ref());
            gaps = started.1;
            recording = Some(started.0);
        } else if let Some(seen) = &before.seen {
            gaps = monitor.gpus().iter().map(|gpu| seen.gap(gpu)).collect();
        }
        let (commands, to_do) = mpsc::channel();
        let started = Anchor::now();
        let buffer = usize::try_from(config.http.stream_buffer.0).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            started,
            machine: machine.clone(),
            live: Live::new(buffer, started.unix_ns.cast_unsigned()),
            history,
            book: Book::new(),
            metrics: Arc::default(),
            monitor: Mutex::new(Watching {
                monitor: Some(Arc::new(monitor)),
                yielded_since_boot_ns: None,
            }),
            commands: Mutex::new(commands),
            state: Mutex::new(State { config: config.clone(), ..State::default() }),
            signals: AtomicU64::new(0),
            ticked_boot_ns: AtomicU64::new(0),
        });
        shared.lacks("the state folder", before.lack);
        let http = Listening::start(&config.http, &shared)?;
        let mut pipeline = Pipeline::live(machine, config)?;
        let boot_id = machine.boot_id().unwrap_or_default();
        pipeline.remember(before.inventory.unwrap_or_else(|| Inventory::new(&boot_id)));
        let worker = Worker {
            pipeline,
            known_gpus: KnownGpus::start(state_dir)?,
            outputs: Outputs::start(&shared, config, rules)?,
            alive: AliveNote::open(state_dir, machine)?,
            shared: Arc::clone(&shared),
            http: Arc::clone(&http),
            items,
            recording,
            to_do,
            received_ns: 0,
            retry: Retry::default(),
        };
        let worker = std::thread::Builder::new()
            .name("gpuev-agent".to_owned())
            .spawn(move || worker.run(&gaps))
            .map_err(|error| Error::io("start the agent's thread", error))?;
        Ok(Self { shared, http, worker })
    }

    /// What others may see of it.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where its HTTP API listens.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.address()
    }

    /// Whether it has ended without having been asked to.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Ends it: what was read is told, recorded and sent.
    ///
    /// # Errors
    /// Where its thread panicked.
    pub fn stop(self) -> Result<()> {
        drop(self.shared.watching().monitor.take());
        let ended = self.worker.join();
        self.shared.live.close();
        self.http.stop();
        ended.map_err(|_| Error::new(ErrorKind::Stopped, "the agent's thread panicked"))
    }
}

impl Shared {
    /// Goes on by another configuration, without losing an event. Returns the sections whose change needs a
    /// restart.
    ///
    /// # Errors
    /// What is wrong with its rules or sinks; then it goes on by that of before.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>> {
        let rules = Agent::check(&self.machine, config)?;
        let before = std::mem::replace(&mut self.state().config, config.clone());
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a worker the agent is ending, and by what it goes on does not matter.
        let _ending = commands.send(Command::Set(Box::new(config.clone()), rules));
        Ok(before.restarts(config))
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Config {
        self.state().config.clone()
    }

    /// Lets go of every event file.
    pub fn let_go(&self) {
        self.watching().yielded_since_boot_ns.get_or_insert_with(boot_now_ns);
        if let Some(monitor) = self.monitor() {
            monitor.release();
        }
    }

    /// Waits until no event file is being opened.
    pub fn settle(&self) {
        if let Some(monitor) = self.monitor() {
            monitor.settle();
        }
    }

    /// Takes the GPUs back, and finds what has changed. The blind time is a gap of each.
    ///
    /// # Errors
    /// Where the GPUs cannot be listed; they are watched once they can.
    pub fn take_back(&self) -> Result<()> {
        // Also where the driver is not there: the monitor takes the GPUs when they come, and until then they are missing.
        self.watching().yielded_since_boot_ns = None;
        match self.monitor() {
            Some(monitor) => monitor.resume(),
            None => Ok(()),
        }
    }

    /// Has GPUs that could not be opened tried again.
    fn try_again(&self) {
        if let Some(monitor) = self.monitor() {
            monitor.try_again();
        }
    }

    /// The monitor, to be asked what may take long.
    fn monitor(&self) -> Option<Arc<Monitor>> {
        self.watching().monitor.clone()
    }

    /// How the agent is.
    #[must_use]
    pub fn status(&self) -> Status {
        let watching = self.watching();
        let monitor = watching.monitor.as_deref();
        let state = self.state();
        Status {
            signals: self.signals.load(Ordering::Relaxed),
            recorded: state.recorded,
            recording_failure: state.recording_failure.clone(),
            not_kept: state.not_kept.clone(),
            lacks: state.lacks.iter().map(|(what, why)| format!("{what}: {why}")).collect(),
            gpus: monitor.map(Monitor::gpus).unwrap_or_default(),
            unreadable: monitor.map(Monitor::failures).unwrap_or_default(),
            states: state.gpus.clone(),
            refused: state.rules.refused + self.book.stats().refused,
            condition_error: state.rules.last_error.clone(),
            yielded_since_boot_ns: watching.yielded_since_boot_ns,
        }
    }

    /// Notes why the agent works without `what`, or with `None` that it has it.
    pub fn lacks(&self, what: &'static str, why: Option<String>) {
        let mut state = self.state();
        match why {
            Some(why) => drop(state.lacks.insert(what, why)),
            None => drop(state.lacks.remove(what)),
        }
    }

    /// Whether it works at `boot_ns`: its worker has looked at the clock within half a minute.
    #[must_use]
    pub fn is_alive(&self, boot_ns: u64) -> bool {
        let ticked_ns = self.ticked_boot_ns.load(Ordering::Relaxed).max(self.started.boot_ns);
        boot_ns.saturating_sub(ticked_ns) <= HANGS_AFTER_NS
    }

    /// Whether it has looked at the GPUs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ticked_boot_ns.load(Ordering::Relaxed) > 0
    }

    /// The counts of the sinks, as they were a second ago.
    #[must_use]
    pub fn sinks(&self) -> Vec<Stats> {
        self.state().sinks.clone()
    }

    /// How the GPU was doing when it was last read.
    #[must_use]
    pub fn health(&self, gpu: GpuId) -> Option<(Anchor, Arc<Health>)> {
        self.state().health.get(&(gpu.bdf, gpu.partition)).cloned()
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
