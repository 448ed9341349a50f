//! The whole agent on a simulated machine: it gets its event files from a keeper, in its sandbox, and lets go.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gpuev::{GapCause, Item};
use gpuev_sim::SimMachine;
use gpuev_sim::run::{Run, Running};
use gpuev_store::{History, Query};
use rustix::process::{Pid, Signal, kill_process};

use crate::keeper::{Listening, Place, until};
use crate::machine::{possible, thermal};
use crate::program::{PROGRAM, command, has_thread, untouched};

/// An agent that runs, and where it keeps what it keeps.
pub(crate) struct Agent {
    running: Running,
    said: BufReader<std::process::ChildStderr>,
    dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn on(sim: &SimMachine, keepers: Option<&Listening>) -> Self {
        Self::told_of(sim, &keepers.map(Listening::socket).unwrap_or_default())
    }

    /// One that is told where keepers are had.
    fn told_of(sim: &SimMachine, keeper: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let text = format!(
            "agent.state_dir = {state:?}\nhttp.listen = \"\"\nkeeper.socket = {keeper:?}\n\
             keeper.partial = true\n\
             control.socket = {:?}\n",
            dir.path().join("agent.sock")
        );
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        let (running, said) = start(sim, dir.path());
        Self { running, said, dir }
    }

    /// Another one in its place, which finds its state.
    fn start_again(&mut self, sim: &SimMachine) {
        (self.running, self.said) = start(sim, self.dir.path());
    }

    /// Waits until it has subscribed to what it opened: what the driver says before that is for nobody. The
    /// thread that yields starts after that.
    pub(crate) fn is_ready(&self) {
        until(|| has_thread(self.running.id(), "gpuev-yield"));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    pub(crate) fn says(&mut self, wanted: &str) -> String {
        let mut all = String::new();
        while self.said.read_line(&mut all).unwrap() > 0 {
            if all.contains(wanted) {
                return all;
            }
        }
        panic!("it never said {wanted:?}, but {all}");
    }

    fn history(&self) -> Vec<Item> {
        let file = self.dir.path().join("state/history.db");
        let Ok(history) = History::open(&file) else { return Vec::new() };
        history.items(&Query::new()).flatten().collect()
    }

    pub(crate) fn events(&self) -> usize {
        self.history().iter().filter(|item| matches!(item, Item::Event(_))).count()
    }

    pub(crate) fn gaps(&self, cause: GapCause) -> usize {
        let is = |item: &&Item| matches!(item, Item::Gap(gap) if gap.cause == cause);
        self.history().iter().filter(is).count()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.running.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        assert!(self.running.wait().unwrap().success());
    }
}

fn start(sim: &SimMachine, dir: &Path) -> (Running, BufReader<std::process::ChildStderr>) {
    let mut command = untouched(PROGRAM);
    command.args(["agent", "--config"]).arg(dir.join("agent.toml"));
    // Else the folder for temporary files is in its reach, and with it this test's.
    command.env("SQLITE_TMPDIR", dir.join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Run::new(sim).spawn(command).unwrap();
    let said = BufReader::new(running.child().stderr.take().unwrap());
    (running, said)
}

pub(crate) fn open_files(sim: &SimMachine) -> usize {
    sim.event_files().iter().filter(|file| !file.closed).count()
}

/// Runs a command under `gpuev yield` and calls `meanwhile` while it runs.
fn yielded(socket: &Path, meanwhile: impl FnOnce()) {
    let socket = socket.to_str().unwrap();
    let script = "echo yielded; read line";
    let mut command = command(["yield", "--socket", socket, "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    meanwhile();
    child.stdin.take().unwrap().write_all(b"done\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// The processes of this test that hold the device or an event file: the agent, keepers and who starts them.
fn holders() -> Vec<u32> {
    let holds = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"));
        let links = fds.into_iter().flatten().flatten().map(|fd| fs::read_link(fd.path()));
        let is_kfd = |link: PathBuf| link.to_string_lossy().contains("kfd");
        links.flatten().any(is_kfd)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| descends_from_this(*pid)).filter(holds).collect()
}

fn descends_from_this(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok());
    parent.is_some_and(|parent| parent == std::process::id() || descends_from_this(parent))
}

fn lets_go_and_takes_back(sim: &SimMachine, agent: &mut Agent) {
    agent.is_ready();
    sim.emit(0, &thermal(1));
    until(|| agent.events() == 1);
    let keepers: Vec<u32> = sim.event_files().iter().map(|file| file.client.pid.host).collect();
    assert!(keepers.iter().all(|keeper| *keeper != agent.running.id()));
    yielded(&agent.socket(), || {
        for keeper in keepers {
            assert!(!Path::new(&format!("/proc/{keeper}/exe")).exists(), "its keeper still runs");
        }
        assert_eq!(holders(), Vec::<u32>::new(), "of KFD, when the command starts");
        // What it is told of closed files, the simulator takes a moment to note.
        until(|| open_files(sim) == 0);
        sim.emit(0, &thermal(2));
    });
    agent.says("let go for sh -c echo yielded");
    agent.says("2 GPUs are watched again");
    sim.emit(0, &thermal(3));
    until(|| agent.events() == 2);
    assert_eq!(agent.gaps(GapCause::Yielded), 2, "one of each GPU");
}

#[test]
fn an_agent_in_its_sandbox_lets_go_and_takes_back() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let keepers = Listening::on(&sim);
    let mut agent = Agent::on(&sim, Some(&keepers));
    agent.says("sandbox: no capabilities, system calls filtered");
    lets_go_and_takes_back(&sim, &mut agent);
    let status = fs::read_to_string(format!("/proc/{}/status", agent.running.id())).unwrap();
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    agent.end();
}

/// The sandbox is fixed when the agent starts: what a reload adds elsewhere is refused with the reason, and the
/// agent goes on as before; what it adds to a folder that was named is taken.
#[test]
fn an_agent_in_its_sandbox_takes_new_files_from_folders_of_before() {
    let sim = SimMachine::builder().gpus(1).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let keepers = Listening::on(&sim);
    let mut agent = Agent::on(&sim, Some(&keepers));
    if !agent.says("sandbox: no capabilities").contains("files by Landlock") {
        return agent.end();
    }
    agent.is_ready();
    let config = agent.dir.path().join("agent.toml");
    let before = fs::read_to_string(&config).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = format!("{}: it was fixed at the start", elsewhere.path().display());
    let state = agent.dir.path().join("state");
    for (folder, says) in [(elsewhere.path(), refused.as_str()), (&state, "read again")] {
        let rules = folder.join("mine.toml");
        fs::write(&rules, "[[rule]]\nname = \"vm-fault\"\nenabled = false\n").unwrap();
        let sink = format!("[sinks.file.new]\npath = {:?}\n", folder.join("new.ndjson"));
        fs::write(&config, format!("{before}rules.files = [{rules:?}]\n{sink}")).unwrap();
        agent.signal(Signal::HUP);
        agent.says(says);
    }
    let file = state.join("new.ndjson");
    // The agent goes over to it with its next tick.
    let mut count = 0;
    until(|| {
        count += 1;
        sim.emit(0, &thermal(count));
        fs::read_to_string(&file).is_ok_and(|text| text.contains("THERMAL_THROTTLE"))
    });
    agent.end();
}

#[test]
fn an_agent_waits_for_a_keeper_that_is_started_after_it() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let place = Place::new();
    let mut agent = Agent::told_of(&sim, &place.socket());
    // What it says last before it looks for its keeper.
    agent.says("sandbox: no capabilities");
    let _keepers = Listening::at(&sim, place);
    agent.is_ready();
    assert_eq!(open_files(&sim), 2);
    sim.emit(0, &thermal(1));
    until(|| agent.events() == 1);
    agent.end();
}

#[test]
fn an_agent_that_waits_for_its_keeper_can_be_told_to_end() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut agent = Agent::told_of(&sim, &Place::new().socket());
    agent.says("sandbox: no capabilities");
    agent.end();
}

#[test]
fn an_agent_that_starts_its_keepers_itself_lets_go_too() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut agent = Agent::on(&sim, None);
    agent.says("keeps all privileges");
    lets_go_and_takes_back(&sim, &mut agent);
    agent.end();
}

#[test]
fn agent_and_keeper_are_killed_again_and_again_and_the_history_tells() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let keepers = Listening::on(&sim);
    let mut agent = Agent::on(&sim, Some(&keepers));
    let mut told = 0;
    for round in 0..6 {
        agent.is_ready();
        let keeper = sim.event_files().last().unwrap().client.pid.host;
        let pid = Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        told += 1;
        sim.emit(round % 2, &thermal(told));
        until(|| agent.events() == usize::try_from(told).unwrap());
        // The next one finds its predecessor's state.
        agent.running.child().kill().unwrap();
        agent.running.wait().unwrap();
        until(|| open_files(&sim) == 0);
        agent.start_again(&sim);
        agent.says("sandbox");
    }
    agent.is_ready();
    let seen = agent.history();
    let events = seen.iter().filter(|item| matches!(item, Item::Event(_))).count();
    assert_eq!(events, usize::try_from(told).unwrap(), "nothing that was read is lost");
    agent.end();
}
