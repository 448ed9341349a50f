//! Alerts and signals to send, and a sink whose server does what the test says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use gpuev::{Bdf, Comm, Event, EventFacts, EventTime, GpuId, Severity};
use gpuev_agent::alert::Resolution;
use gpuev_agent::quantity::Period;
use gpuev_agent::sink::{
    Context, Failure, Message, Mirror, Notice, Numbering, Order, Outbox, OutboxSettings,
    OutboxStart, Sink, SyncPolicy,
};
use gpuev_agent::{Alert, AlertChange, AlertState, Metrics, Signal, What};

/// Long enough for a machine that does other things; never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// 2026-11-22T11:45:01Z.
pub(crate) const NOON: i64 = 1_795_347_901_000_000_000;

/// Waits until `done`, looking again whenever a little time has passed.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn gpu(bus: u8) -> GpuId {
    GpuId {
        index: u32::from(bus) - 3,
        bdf: Bdf { domain: 0, bus, device: 0, function: 0 },
        unique_id: None,
        partition: 0,
        kfd_id: 6929,
    }
}

pub(crate) fn signal_of(what: What) -> Signal {
    Signal {
        what,
        boot_ns: 5_000_000_000,
        unix_ns: NOON,
        gpu: gpu(3),
        life: gpuev::Life::default(),
        process: None,
        ambiguous: false,
        health: None,
        reset: None,
    }
}

pub(crate) fn event(seq: u64, raw: &[u8]) -> Event {
    let time = EventTime {
        boot_ns: 5_000_000_000,
        clock: gpuev::Clock::Receipt,
        received_boot_ns: 5_000_000_000,
        unix_ns: NOON,
    };
    let (pid, comm) = match gpuev::tid_of(&gpuev::decode(raw)) {
        Some(_) => (Some(4242), Comm::new(b"python3")),
        None => (None, Comm::default()),
    };
    Event::from_facts(EventFacts { gpu: gpu(3), seq, time, doubtful: false, pid, comm, raw })
}

/// A memory fault of python3.
pub(crate) fn fault(seq: u64) -> Signal {
    signal_of(What::Event(event(seq, b"1 1092:python3")))
}

pub(crate) fn alert(id: &str, state: AlertState) -> Alert {
    let labels = [
        ("gpu", "0000:03:00.0"),
        ("rule", "vmfault"),
        ("severity", "critical"),
        ("host", "node7"),
        ("pid", "4242"),
        ("alert", id),
    ];
    let resolved = state == AlertState::Resolved;
    Alert {
        id: id.to_owned(),
        revision: if resolved { 2 } else { 1 },
        fingerprint: format!("f-{id}"),
        rule: "vmfault".to_owned(),
        severity: Severity::Critical,
        state,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        summary: format!("memory fault \"{id}\"\nof python3 on 0000:03:00.0"),
        action: "look at the job's log".to_owned(),
        count: 3,
        started_unix_ns: NOON,
        fired_unix_ns: Some(NOON + 1_000_000_000),
        last_unix_ns: NOON + 2_000_000_000,
        resolved_unix_ns: resolved.then_some(NOON + 60_000_000_000),
        resolved_by: resolved.then_some(Resolution::Quiet),
        acknowledged_by: None,
        silenced: false,
        group: format!("rule/{id}"),
        victims: Vec::new(),
        example: "{}".to_owned(),
    }
}

pub(crate) fn change(id: &str, state: AlertState) -> AlertChange {
    AlertChange { alert: Arc::new(alert(id, state)), notify: true, kept: true }
}

/// The message of an alert that fires.
pub(crate) fn firing(id: &str) -> Message {
    Message::of_change(&change(id, AlertState::Firing))
}

/// What the sinks' threads told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<(String, Notice)>>>);

impl Told {
    pub(crate) fn report(&self) -> gpuev_agent::sink::Report {
        let told = self.0.clone();
        Arc::new(move |sink: &str, notice: &Notice| {
            told.lock().unwrap().push((sink.to_owned(), notice.clone()));
        })
    }

    pub(crate) fn all(&self) -> Vec<Notice> {
        self.0.lock().unwrap().iter().map(|(_, notice)| notice.clone()).collect()
    }

    pub(crate) fn count(&self, which: impl Fn(&Notice) -> bool) -> usize {
        self.all().iter().filter(|notice| which(notice)).count()
    }
}

pub(crate) fn context(folder: &Path, told: &Told) -> Context {
    Context {
        state_dir: folder.to_owned(),
        host: "node7".to_owned(),
        report: told.report(),
        metrics: Arc::new(Metrics::new()),
        firing: Arc::new(Vec::new),
    }
}

/// Tries again at once.
pub(crate) fn impatient() -> OutboxSettings {
    OutboxSettings {
        retry_first: Period::from_millis(1),
        retry_most: Period::from_millis(5),
        retry_message_most: Period::from_millis(5),
        ..OutboxSettings::default()
    }
}

pub(crate) fn start(
    sink: impl Sink + 'static,
    settings: OutboxSettings,
    kept: Option<&Path>,
    told: &Told,
) -> std::io::Result<Outbox> {
    start_with(sink, settings, kept.map(|folder| mirror(folder, told)), told)
}

pub(crate) fn start_with(
    sink: impl Sink + 'static,
    settings: OutboxSettings,
    mirror: Option<Arc<Mirror>>,
    told: &Told,
) -> std::io::Result<Outbox> {
    let start = OutboxStart {
        name: "test.one".to_owned(),
        settings,
        mirror,
        numbering: Arc::new(Numbering::new()),
        report: told.report(),
    };
    Outbox::start(Box::new(sink), start)
}

/// What is kept in `folder`.
pub(crate) fn mirror(folder: &Path, told: &Told) -> Arc<Mirror> {
    let (file, spools) = (folder.join("queue.db"), folder.join("spool"));
    Arc::new(Mirror::start(&file, &spools, SyncPolicy::Always, told.report()).unwrap())
}

/// Writes what is noted, and ends.
pub(crate) fn close(mirror: &Mirror) {
    mirror.close(Instant::now() + PATIENCE);
    assert!(mirror.is_settled());
}

/// What the other side of a [`Fake`] does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Server {
    Takes,
    Fails,
    /// Refuses messages whose id holds this.
    Refuses(String),
    /// Answers messages whose id holds this with an error.
    FailsAt(String),
    /// Breaks the connection at messages whose id holds this.
    DiesOf(String),
    /// Does not answer until something else is said.
    Hangs,
}

#[derive(Debug)]
struct State {
    server: Server,
    taken: Vec<Message>,
    tries: usize,
    hanging: usize,
}

/// A sink and its server.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<(Mutex<State>, Condvar)>,
    batch: usize,
    records: bool,
}

impl Fake {
    pub(crate) fn new(server: Server, batch: usize) -> Self {
        let state = State { server, taken: Vec::new(), tries: 0, hanging: 0 };
        Self { state: Arc::new((Mutex::new(state), Condvar::new())), batch, records: false }
    }

    /// It writes records, `lost` among them.
    pub(crate) fn of_records(server: Server) -> Self {
        Self { records: true, ..Self::new(server, 16) }
    }

    pub(crate) fn becomes(&self, server: Server) {
        self.state.0.lock().unwrap().server = server;
        self.state.1.notify_all();
    }

    pub(crate) fn taken(&self) -> Vec<Message> {
        self.state.0.lock().unwrap().taken.clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.taken().iter().map(|message| message.id.to_string()).collect()
    }

    pub(crate) fn tries(&self) -> usize {
        self.state.0.lock().unwrap().tries
    }

    pub(crate) fn is_hanging(&self) -> bool {
        self.state.0.lock().unwrap().hanging > 0
    }
}

impl Sink for Fake {
    fn batch(&self) -> usize {
        self.batch
    }

    fn order(&self) -> Order {
        if self.records { Order::Lines } else { Order::Alerts }
    }

    fn tells_loss(&self) -> bool {
        self.records
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        let (state, changed) = &*self.state;
        let mut state = state.lock().unwrap();
        state.tries += 1;
        state.hanging += 1;
        while state.server == Server::Hangs {
            state = changed.wait(state).unwrap();
        }
        state.hanging -= 1;
        let holds = |part: &String| batch.iter().any(|message| message.id.contains(part));
        match &state.server {
            Server::Fails => return Err(Failure::unreachable("the server is down")),
            Server::Refuses(part) if holds(part) => {
                return Err(Failure::Refused("not like this".to_owned()));
            }
            Server::FailsAt(part) if holds(part) => return Err(Failure::failed("it is 500")),
            Server::DiesOf(part) if holds(part) => {
                return Err(Failure::unreachable("connection reset"));
            }
            _ => state.taken.extend_from_slice(batch),
        }
        Ok(0)
    }
}

/// How often each id came.
pub(crate) fn counted(ids: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id.as_str()).or_insert(0) += 1;
    }
    counts
}
