//! Agent, keeper and receiver are killed at random under load, and come back as the service manager has them come
//! back. Afterwards the history is consistent with what the driver raised, alerts are right, and gaps tell when nobody
//! looked.

mod receiver;
mod truth;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gpuev_sim::run::{Run, Running};
use gpuev_sim::{Player, Scenario, SimMachine, Story, boot_ns};
use gpuev_store::{Histories, History};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::receiver::{Receiver, Taken};
use self::truth::{Truth, blind_time_is_told};
use crate::agent::{recorded, runs, what_was_noted_is_exported};
use crate::keeper::Listening;
use crate::machine::possible;
use crate::program::{PROGRAM, body, free_port, parse, run, untouched};

const GPUS: usize = 2;
/// Events in a second, of all GPUs.
const RATE: u64 = 500;
/// Each kind of strike comes so often.
const ROUNDS: usize = 4;
/// Alerts that fire at any time.
const FIRING: usize = 2;
/// Jobs are numbered from here: no process of this machine comes as high, and the kernel's limit (4,194,304) is not
/// reached. A higher number is no process's, and its line malformed.
const FIRST_PID: u32 = 4_190_000;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One alert for each process that faults, over when the process ends.
const RULES: &str = r#"
[[rule]]
name = "fault"
severity = "critical"
events = ["VMFAULT"]
by = ["gpu", "pid"]
resolve = { events = ["PROCESS_END"], quiet = "1d" }
notify = { at_most = 1000, within = "1h" }
summary = "{process} faults on {gpu}"
"#;

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Strike {
    Agent,
    /// It is not killed but told to end, as before an upgrade.
    AgentEnds,
    Keeper,
    Receiver,
    KeeperAndAgent,
    ReceiverAndAgent,
    /// As soon as it has an alert on disk.
    AgentThatTells,
}

impl Strike {
    const ALL: [Self; 7] = [
        Self::Agent,
        Self::AgentEnds,
        Self::Keeper,
        Self::Receiver,
        Self::KeeperAndAgent,
        Self::ReceiverAndAgent,
        Self::AgentThatTells,
    ];
}

/// A repeatable source of chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).unwrap()
    }

    /// Every kind of strike [`ROUNDS`] times, in any order.
    fn strikes(&mut self) -> Vec<Strike> {
        let mut strikes = Strike::ALL.repeat(ROUNDS);
        for end in (1..strikes.len()).rev() {
            strikes.swap(end, self.below(end + 1));
        }
        strikes
    }
}

/// Waits until `holds`, looking again whenever a little time has passed.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    gpu: usize,
    pid: u32,
}

/// A machine under load, its agent, and all that belongs to it.
struct Field {
    sim: SimMachine,
    load: Option<Player>,
    truth: Truth,
    chance: Chance,
    folder: tempfile::TempDir,
    port: u16,
    keepers: Listening,
    receiver: Receiver,
    manager: UnixDatagram,
    agent: Option<Running>,
    /// When the agent was killed, and when the next one was started.
    dead: Vec<(u64, u64)>,
    jobs: u32,
    /// Whose alert was told and is not over, the oldest first.
    firing: VecDeque<Job>,
    /// Who faulted when it may be that nobody looked.
    reckless: Vec<Job>,
}

impl Field {
    fn new(sim: SimMachine, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut field = Self {
            keepers: Listening::on(&sim),
            receiver: Receiver::start(folder.path()),
            sim,
            load: None,
            truth: Truth::default(),
            chance: Chance(seed),
            folder,
            port: free_port(),
            manager,
            agent: None,
            dead: Vec::new(),
            jobs: 0,
            firing: VecDeque::new(),
            reckless: Vec::new(),
        };
        field.configure();
        field.start_agent();
        // No line of it comes twice.
        let scenario = Scenario::new(Story::Training).seed(seed).rate(RATE);
        let truth = field.truth.clone();
        let tell = move |raised: gpuev_sim::Raised<'_>| {
            truth.tell(raised.gpu, raised.boot_ns, raised.message);
        };
        field.load = Some(field.sim.play_telling(scenario, tell).unwrap());
        until("a first event on disk", || field.has_recorded());
        field
    }

    fn has_recorded(&self) -> bool {
        let history = History::open(&self.path("state/history.db"));
        history.and_then(|history| history.last_item()).is_ok_and(|last| last > 0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self) {
        fs::write(self.path("rules.toml"), RULES).unwrap();
        let text = format!(
            "agent.state_dir = {:?}\nhttp.listen = \"127.0.0.1:{}\"\nkeeper.socket = {:?}\nkeeper.partial = true\ncontrol.socket = \"\"\n\
             rules.builtin = false\nrules.files = [{:?}]\n\
             [sinks.file.all]\npath = {:?}\n\
             [sinks.webhook.pager]\nurl = {:?}\nqueue.retry_first = \"1ms\"\nqueue.retry_most = \"20ms\"\n",
            self.path("state"),
            self.port,
            self.keepers.socket(),
            self.path("rules.toml"),
            self.path("log/all.ndjson"),
            self.receiver.url(),
        );
        fs::write(self.path("agent.toml"), text).unwrap();
    }

    /// Returns when it says that it is ready.
    fn start_agent(&mut self) {
        let mut command = untouched(PROGRAM);
        command.args(["agent", "--config"]).arg(self.path("agent.toml"));
        command.env("NOTIFY_SOCKET", self.path("notify"));
        // Else the folder for temporary files is in its reach, and with it this test's.
        command.env("SQLITE_TMPDIR", self.path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut agent = Run::new(&self.sim).spawn(command).unwrap();
        while !self.hears("READY=1") {
            assert_eq!(agent.child().try_wait().unwrap(), None, "it has ended");
        }
        self.agent = Some(agent);
    }

    /// Whether the next that an agent tells the service manager is `text`; nothing may come for a while.
    fn hears(&self, text: &str) -> bool {
        let mut heard = [0; 64];
        self.manager.recv(&mut heard).is_ok_and(|length| heard[..length] == *text.as_bytes())
    }

    fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let killed = boot_ns();
        agent.child().kill().unwrap();
        agent.wait().unwrap();
        self.is_dead_since(killed);
    }

    fn end_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success());
        self.is_dead_since(boot_ns());
    }

    fn is_dead_since(&mut self, boot_ns: u64) {
        // What it had said is not of the next.
        self.manager.set_nonblocking(true).unwrap();
        while self.manager.recv(&mut [0]).is_ok() {}
        self.manager.set_nonblocking(false).unwrap();
        self.dead.push((boot_ns, u64::MAX));
    }

    /// Nobody looks for a while; then the agent comes back, and what fired fires.
    fn agent_comes_back(&mut self) {
        let most = self.chance.below(200);
        self.load_goes_on(most);
        if let Some(dead) = self.dead.last_mut() {
            dead.1 = boot_ns();
        }
        self.start_agent();
        let ids = self.ids_of_firing();
        let shown: BTreeSet<String> = self.shown().into_iter().collect();
        assert!(ids.is_subset(&shown), "{ids:?} fired, now {shown:?} do");
    }

    fn kill_keeper(&self) {
        for pid in self.keepers.keepers() {
            kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL)
                .unwrap();
        }
    }

    /// So many more events are raised.
    fn load_goes_on(&self, events: usize) {
        let wanted = self.truth.count() + events;
        until("more events", || self.truth.count() >= wanted);
    }

    /// A process that never was before faults.
    fn fault(&mut self) -> Job {
        self.jobs += 1;
        let job = Job { gpu: self.chance.below(GPUS), pid: FIRST_PID + self.jobs };
        self.raise(job, 1, &format!("1 {:x}:job{}\n", job.pid, self.jobs));
        job
    }

    fn end(&self, job: Job) {
        self.raise(job, 13, &format!("d {:x} job{}\n", job.pid, job.pid - FIRST_PID));
    }

    fn raise(&self, job: Job, id: u32, message: &str) {
        self.truth.tell(job.gpu, boot_ns(), message.as_bytes());
        self.sim.emit_raw(job.gpu, id, Some(job.pid.into()), message.as_bytes());
    }

    fn is_told(&self, job: Job, state: &str) {
        let is_told = || self.receiver.taken().iter().any(|taken| taken.tells(job.pid, state));
        until(&format!("{job:?} {state}"), is_told);
    }

    /// Waits until the alert about `job` is on disk.
    fn is_kept(&self, job: Job) {
        let pid = format!("\"pid\":\"{}\"", job.pid);
        let file = self.path("state/alerts.json");
        until("an alert on disk", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains(&pid))
        });
    }

    /// All is well: a new fault is told, and that an old one is over.
    fn quiet_phase(&mut self) {
        let job = self.fault();
        self.is_told(job, "firing");
        self.firing.push_back(job);
        if self.firing.len() > FIRING {
            let over = self.firing.pop_front().unwrap();
            self.end(over);
            self.is_told(over, "resolved");
        }
    }

    fn strike(&mut self, strike: Strike) {
        let moment = self.chance.below(600);
        self.load_goes_on(moment);
        if self.chance.below(2) == 0 {
            let job = self.fault();
            self.reckless.push(job);
        }
        match strike {
            Strike::Agent => self.kill_agent(),
            Strike::AgentEnds => self.end_agent(),
            Strike::Keeper => self.kill_keeper(),
            Strike::Receiver => self.receiver.is_killed(),
            Strike::KeeperAndAgent => {
                self.kill_keeper();
                self.kill_agent();
            }
            Strike::ReceiverAndAgent => {
                self.receiver.is_killed();
                let job = self.fault();
                self.is_kept(job);
                self.firing.push_back(job);
                self.kill_agent();
            }
            Strike::AgentThatTells => {
                let job = self.fault();
                self.is_kept(job);
                self.reckless.push(job);
                self.kill_agent();
            }
        }
        self.recovers(strike);
    }

    /// What was killed comes back.
    fn recovers(&mut self, strike: Strike) {
        if matches!(strike, Strike::Receiver) {
            let job = self.fault();
            self.is_kept(job);
            self.firing.push_back(job);
        }
        if self.agent.is_none() {
            self.agent_comes_back();
        }
        if matches!(strike, Strike::Receiver | Strike::ReceiverAndAgent) {
            self.receiver.comes_back();
        }
        until("a keeper", || self.keepers.keepers().len() == 1);
        for job in self.firing.clone() {
            self.is_told(job, "firing");
        }
    }

    /// The ids under which the receiver knows what fires; the alerts of which it has not heard yet are not among
    /// them.
    fn ids_of_firing(&self) -> BTreeSet<String> {
        let taken = self.receiver.taken();
        let of = |job: &Job| taken.iter().find(|taken| taken.tells(job.pid, "firing"));
        self.firing.iter().filter_map(of).map(|taken| taken.text("id").to_owned()).collect()
    }

    /// The ids of the alerts that fire as the agent says.
    fn shown(&self) -> Vec<String> {
        let alerts = self.asked("/api/v1/alerts");
        let firing = alerts["alerts"].as_array().unwrap().iter();
        let firing = firing.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["id"].as_str().unwrap().to_owned()).collect()
    }

    fn asked(&self, path: &str) -> Value {
        parse(&body(self.port, path).unwrap())
    }

    /// The load ends, then what it was about, then the agent.
    fn ends(&mut self) {
        let _what_was_played = self.load.take().unwrap().stop();
        for job in self.reckless.iter().chain(&self.firing) {
            self.end(*job);
        }
        for job in self.firing.clone() {
            self.is_told(job, "resolved");
        }
        let last = self.fault();
        self.is_told(last, "firing");
        self.end_agent();
    }

    fn history_is_consistent(&self) {
        let history = History::open(&self.path("state/history.db")).unwrap();
        assert_eq!(history.check().unwrap(), [""; 0]);
        let recorded = recorded(&Histories::open_file(history.path()).unwrap());
        assert_eq!(history.sessions().unwrap().len(), self.dead.len());
        let _without_holes = runs(&recorded);
        let (seen, missed) = self.truth.holds_for(&recorded);
        eprintln!(
            "{seen} events recorded, {missed} in gaps, {} ends of the agent",
            self.dead.len()
        );
        let (_the_end, between) = self.dead.split_last().unwrap();
        blind_time_is_told(&recorded, between, GPUS);
        what_was_noted_is_exported(&history);
        run(["report", history.path().to_str().unwrap()]).good();
    }

    fn alerts_are_right(&self) {
        let taken = self.receiver.taken();
        let mut told: BTreeMap<&str, Vec<&Taken>> = BTreeMap::new();
        for one in &taken {
            told.entry(one.text("id")).or_default().push(one);
        }
        let again: usize = told.values().map(|told| one_life(told)).sum();
        eprintln!("{} alerts told, {again} messages again", told.len());
        let state = fs::read_to_string(self.path("state/alerts.json")).unwrap();
        let state = parse(&state);
        assert_eq!(state["on_the_way"].as_array().unwrap().len(), 0, "it ended well");
        let live = state["book"]["live"].as_array().unwrap().iter().map(|live| &live["alert"]);
        let ended = state["book"]["ended"].as_array().unwrap().iter();
        for kept in live.chain(ended) {
            let id = kept["id"].as_str().unwrap();
            let states = told.get(id).map_or(&[][..], Vec::as_slice);
            assert!(
                states.last().is_some_and(|last| last.text("state") == kept["state"]),
                "{kept} is kept, and told is {states:?}"
            );
        }
    }
}

/// What was told of one alert is that it fires and at most once that it is over, each under one key. Gives how many
/// came again.
fn one_life(told: &[&Taken]) -> usize {
    let mut first: Vec<&Taken> = Vec::new();
    for one in told {
        match first.iter().find(|known| known.key == one.key) {
            Some(known) => assert_eq!(known, one, "one key is one message"),
            None => first.push(one),
        }
    }
    let states: Vec<&str> = first.iter().map(|one| one.text("state")).collect();
    assert!(["firing", "resolved"].starts_with(&states), "{first:?}");
    assert!(first.windows(2).all(|two| two[0].text("fingerprint") == two[1].text("fingerprint")));
    told.len() - first.len()
}

#[test]
fn whoever_is_killed_history_and_alerts_are_right_and_gaps_tell_the_blind_time() {
    let sim = SimMachine::builder().gpus(GPUS).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let seed = std::env::var("GPUEV_CHAOS_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("GPUEV_CHAOS_SEED={seed}");
    let mut field = Field::new(sim, seed);
    for strike in field.chance.strikes() {
        field.quiet_phase();
        eprintln!("{strike:?} after {} events", field.truth.count());
        field.strike(strike);
    }
    field.ends();
    field.history_is_consistent();
    field.alerts_are_right();
}
