//! Alerting needs no disk, no port and no socket: the agent starts, watches, tells, says what it lacks, and tries again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use gpuev_agent::control::{Client, Request, Served, Server};
use gpuev_agent::yielding::{Grip, Yielder};
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Comm, DriverEvent, Kernel, SimMachine};
use gpuev_store::{History, Query};

use crate::machine::machine_of;
use crate::receiver::{Does, Receiver};
use crate::sink::fixture::until;

/// A machine, a folder, and somebody who is told.
struct Stand {
    sim: SimMachine,
    folder: tempfile::TempDir,
    receiver: Receiver,
    faults: u32,
}

impl Stand {
    fn new() -> Self {
        let sim = SimMachine::builder().gpus(1).kernel(Kernel::V7_3).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { sim, folder, receiver: Receiver::new(Does::Answers(200)), faults: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, state: &Path) -> Config {
        let url = self.receiver.url();
        let text = format!("[webhook.all]\nurl = \"{url}\"\n");
        let mut config = Config { sinks: toml::from_str(&text).unwrap(), ..Config::default() };
        config.agent.state_dir = state.to_owned();
        config.http.listen = String::new();
        config
    }

    fn start(&self, config: &Config) -> Agent {
        Agent::start(&machine_of(&self.sim), config).unwrap()
    }

    /// One more fault happens, and somebody is told of it.
    fn tells(&mut self) {
        self.faults += 1;
        let name = format!("job{}", self.faults);
        let pid = (4000 + self.faults).into();
        self.sim.emit(0, &DriverEvent::VmFault { pid, comm: Comm::new(&name) });
        let is_told = || {
            let taken = self.receiver.taken();
            taken.iter().any(|request| request.json()["summary"].to_string().contains(&name))
        };
        until(&name, is_told);
    }
}

fn is_recording(agent: &Agent) -> bool {
    agent.shared().status().recording_failure.is_none()
}

fn recorded(path: &Path) -> usize {
    History::open(path).map_or(0, |history| history.items(&Query::new()).count())
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

type Spoil = Box<dyn Fn()>;

/// What is in a file that is no history of this version, and where the file is put.
fn unusable(path: &Path) -> [(&'static str, Spoil); 3] {
    let (one, two, three) = (path.to_owned(), path.to_owned(), path.to_owned());
    let history = |path: &Path, sql: &str| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    [
        ("damaged", Box::new(move || fs::write(&one, [0x5a; 9000]).unwrap())),
        (
            "newer",
            Box::new(move || {
                history(&two, "PRAGMA user_version = 999; CREATE TABLE a (b)");
            }),
        ),
        (
            "damaged",
            Box::new(move || {
                let mut bytes = fs::read(&three).unwrap();
                let end = bytes.len().min(8192);
                bytes[100..end].fill(0xa5);
                fs::write(&three, bytes).unwrap();
            }),
        ),
    ]
}

#[test]
fn a_history_that_cannot_be_used_is_put_aside_and_a_new_one_begins() {
    let mut stand = Stand::new();
    let state = stand.path("state");
    let config = stand.config(&state);
    let file = config.history_file();
    let agent = stand.start(&config);
    until("it notes that it runs", || state.join("alive").exists());
    agent.stop().unwrap();
    for (suffix, spoil) in unusable(&file) {
        spoil();
        let spoilt = fs::read(&file).unwrap();
        let agent = stand.start(&config);
        stand.tells();
        until("it is recorded", || is_recording(&agent));
        agent.stop().unwrap();
        assert_eq!(recorded(&file), 2, "the gap since the run before, and the fault");
        let aside = state.join(format!("history.db.{suffix}"));
        assert_eq!(fs::read(aside).unwrap(), spoilt);
    }
}

/// A file elsewhere may be somebody else's.
#[test]
fn a_file_outside_of_the_state_folder_stays() {
    let mut stand = Stand::new();
    let mut config = stand.config(&stand.path("state"));
    let theirs = stand.path("theirs.db");
    fs::write(&theirs, "not a history").unwrap();
    config.history.file = theirs.clone();
    let agent = stand.start(&config);
    stand.tells();
    let failure = agent.shared().status().recording_failure.unwrap();
    assert!(failure.contains("theirs.db"), "{failure}");
    agent.stop().unwrap();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "not a history");
}

/// The writer's lock is a pipe that nobody reads: opening it hangs. So does the note of the last run.
#[test]
fn a_disk_that_hangs_delays_nobody_and_recording_begins_when_it_answers() {
    let mut stand = Stand::new();
    let state = stand.path("state");
    fs::create_dir(&state).unwrap();
    let config = stand.config(&state);
    let (lock, note) = (state.join("history.db.lock"), state.join("alive"));
    fifo(&lock);
    fifo(&note);
    let agent = stand.start(&config);
    stand.tells();
    until("it is said", || !is_recording(&agent));
    let status = agent.shared().status();
    assert_eq!(status.recording_failure.as_deref(), Some("the disk does not answer"));
    assert!(status.lacks.iter().any(|lack| lack.starts_with("the state folder")), "{status:?}");
    // It answers: somebody reads the pipes.
    let readers =
        [&lock, &note].map(|path| fs::File::options().read(true).write(true).open(path).unwrap());
    until("it records", || is_recording(&agent));
    stand.tells();
    agent.stop().unwrap();
    drop(readers);
    // What happened while the disk hung had waited for it.
    assert_eq!(recorded(&config.history_file()), 2);
}

#[test]
fn a_state_folder_that_cannot_be_made_stops_nobody_and_is_used_when_it_can() {
    let mut stand = Stand::new();
    let in_the_way = stand.path("folder");
    fs::write(&in_the_way, "").unwrap();
    let config = stand.config(&in_the_way.join("state"));
    let agent = stand.start(&config);
    stand.tells();
    let status = agent.shared().status();
    assert!(!status.lacks.is_empty() && status.recording_failure.is_some(), "{status:?}");
    fs::remove_file(&in_the_way).unwrap();
    until("it records", || is_recording(&agent));
    stand.tells();
    agent.stop().unwrap();
    assert!(config.history_file().exists() && in_the_way.join("state/alerts.json").exists());
}

#[test]
fn an_address_that_is_taken_stops_nobody_and_is_had_when_it_is_free() {
    let mut stand = Stand::new();
    let mut config = stand.config(&stand.path("state"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    config.http.listen = taken.local_addr().unwrap().to_string();
    let agent = stand.start(&config);
    stand.tells();
    assert_eq!(agent.http_address(), None);
    let lacks = agent.shared().status().lacks;
    assert!(lacks.iter().any(|lack| lack.starts_with("the HTTP API: listen on")), "{lacks:?}");
    drop(taken);
    until("it listens", || agent.http_address().is_some());
    assert_eq!(agent.shared().status().lacks, [""; 0]);
    agent.stop().unwrap();
}

struct Nothing;

impl Grip for Nothing {
    fn let_go(&self) -> gpuev::Result<()> {
        Ok(())
    }

    fn take_back(&self) -> gpuev::Result<usize> {
        Ok(0)
    }
}

/// Neither another agent's socket nor a file is taken away.
#[test]
fn a_socket_that_cannot_be_bound_is_had_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let other = UnixListener::bind(&path).unwrap();
    let yielder = Yielder::start(Nothing, |_| {}).unwrap();
    let (send, told) = mpsc::channel();
    let tell = move |error: Option<&gpuev::Error>| {
        let _ended = send.send(error.map(ToString::to_string));
    };
    let served = Arc::new(Served { yielder, agent: None });
    let server = Server::start_when_possible(&path, served, tell).unwrap();
    let patience = Duration::from_secs(30);
    let why = told.recv_timeout(patience).unwrap().unwrap();
    assert!(why.contains("agent.sock"), "{why}");
    drop(other);
    fs::remove_file(&path).unwrap();
    assert_eq!(told.recv_timeout(patience).unwrap(), None);
    let mut client = Client::connect(&path).unwrap().unwrap();
    client.ask(&Request::Leases {}).unwrap();
    drop(client);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_file_in_the_place_of_the_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    fs::write(&path, "somebody else's").unwrap();
    let yielder = Yielder::start(Nothing, |_| {}).unwrap();
    Server::start(&path, Arc::new(Served { yielder, agent: None })).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
}
