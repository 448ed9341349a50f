//! `gpuev yield` and `gpuev resume`, against the parts of an agent that let go.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gpuev::keeper::KeeperSource;
use gpuev::process::Processes;
use gpuev::{Filter, GapCause, Item, Machine, Monitor, Subscription};
use gpuev_agent::control::{Client, Request, Response, Served, Server};
use gpuev_agent::yielding::{Grip, Told, Yielder};
use gpuev_sim::SimMachine;
use rustix::process::{Pid, Signal, kill_process};

use crate::keeper::{Listening, until};
use crate::machine::{possible, thermal};
use crate::program::{Ended, command, run};

/// As the agent holds the GPUs.
struct Held {
    monitor: Arc<Monitor>,
    keeper: KeeperSource,
}

impl Grip for Held {
    fn let_go(&self) -> gpuev::Result<()> {
        self.monitor.release();
        self.keeper.let_go(Duration::from_secs(10))
    }

    fn take_back(&self) -> gpuev::Result<usize> {
        self.keeper.take_back();
        self.monitor.resume()?;
        Ok(self.monitor.gpus().len())
    }
}

/// What of an agent lets go: a monitor, a keeper, the local socket.
struct Agent {
    sim: SimMachine,
    keeper: KeeperSource,
    items: Subscription,
    told: mpsc::Receiver<Told>,
    monitor: Arc<Monitor>,
    socket: PathBuf,
    _server: Server,
    _keepers: Listening,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// None where there can be no simulated machine; the test is passed over.
    fn on(sim: SimMachine) -> Option<Self> {
        if !possible(&sim) {
            return None;
        }
        let keepers = Listening::on(&sim);
        let keeper = KeeperSource::at_socket(&keepers.socket()).accept_partial();
        let machine = Machine::at(sim.root()).with_event_source(keeper.clone());
        let monitor = Arc::new(Monitor::start(&machine).unwrap());
        let items = monitor.subscribe(Filter::new());
        let (tell, told) = mpsc::channel();
        let tell = move |what: &Told| drop(tell.send(what.clone()));
        let grip = Held { monitor: Arc::clone(&monitor), keeper: keeper.clone() };
        let yielder = Yielder::start(grip, tell).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let server = Server::start(&socket, Arc::new(Served { yielder, agent: None })).unwrap();
        Some(Self {
            sim,
            keeper,
            items,
            told,
            monitor,
            socket,
            _server: server,
            _keepers: keepers,
            _dir: dir,
        })
    }

    fn start(&self, args: &[&str]) -> Yielding {
        let socket = self.socket.to_str().unwrap();
        let mut command = command(["yield", "--socket", socket].iter().chain(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Yielding { child: command.spawn().unwrap() }
    }

    fn run(&self, args: &[&str]) -> Ended {
        let socket = ["--socket", self.socket.to_str().unwrap()];
        run(args[..1].iter().chain(&socket).chain(&args[1..]))
    }

    /// Nothing of KFD is held by this process, which is the agent, and no keeper runs.
    fn holds_nothing(&self) -> bool {
        let held = Processes::of(&Machine::host()).holders().found;
        self.sim.event_files().iter().all(|file| file.closed)
            && self.keeper.keeper_pid().is_none()
            && held.iter().all(|holder| holder.pid != std::process::id())
    }

    fn leases(&self) -> usize {
        let mut client = Client::connect(&self.socket).unwrap().unwrap();
        match client.ask(&Request::Leases {}).unwrap() {
            Response::Leases { running, .. } => running.len(),
            other => panic!("{other:?}"),
        }
    }

    fn next_gap(&mut self) -> GapCause {
        match self.items.next().unwrap() {
            Item::Gap(gap) => gap.cause,
            Item::Event(event) => panic!("{event:?}"),
        }
    }

    /// The stream goes on on the first GPU.
    fn hears(&mut self) {
        self.sim.emit(0, &thermal(1));
        assert!(matches!(self.items.next(), Some(Item::Event(_))));
    }
}

/// A `gpuev yield` whose command waits for a line.
struct Yielding {
    child: Child,
}

const WAITING: &str = "echo yielded; read line; echo $line; exit 7";

impl Yielding {
    /// Waits until its command runs.
    fn yielded(&mut self) {
        let mut line = [0; 8];
        self.child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"yielded\n");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let _ended_already = self.child.stdin.as_mut().unwrap().write_all(b"done\n");
        self.over()
    }

    /// What it still writes, and how it ends, by itself.
    fn over(mut self) -> (Option<i32>, String) {
        let _open = self.child.stdin.take();
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (self.child.wait().unwrap().code(), out)
    }
}

#[test]
fn nothing_is_held_while_the_command_runs_and_then_all_goes_on() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let Some(mut agent) = Agent::on(sim) else { return };
    agent.hears();
    let keeper = agent.keeper.keeper_pid().unwrap();
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    until(|| agent.holds_nothing());
    assert!(!PathBuf::from(format!("/proc/{keeper}/exe")).exists(), "it should have ended");
    assert!(agent.monitor.gpus().is_empty());
    agent.sim.emit(0, &thermal(1));
    assert_eq!(yielding.end(), (Some(7), "done\n".to_owned()));
    assert_eq!([agent.next_gap(), agent.next_gap()], [GapCause::Yielded; 2]);
    agent.hears();
    let told: Vec<_> = agent.told.iter().take(2).collect();
    let [Told::LetGo { who, .. }, Told::TakenBack { gpus: 2, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(who.starts_with("sh -c"), "{who}");
}

#[test]
fn what_the_command_changed_is_found() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let Some(mut agent) = Agent::on(sim) else { return };
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    agent.sim.remove_gpu(1).unwrap();
    let new = agent.sim.add_gpu().unwrap();
    yielding.end();
    assert_eq!([agent.next_gap(), agent.next_gap()], [GapCause::GpuRemoved, GapCause::Yielded]);
    until(|| agent.monitor.gpus().len() == 2);
    agent.sim.emit(new, &thermal(1));
    let kfd_id = agent.sim.kfd_gpu_id(new).unwrap();
    let of_new = |item| matches!(item, Item::Event(event) if event.gpu.kfd_id == kfd_id);
    assert!(agent.items.by_ref().any(of_new));
}

#[test]
fn a_killed_yield_gives_the_gpus_back() {
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    yielding.signal(Signal::KILL);
    assert_eq!(agent.next_gap(), GapCause::Yielded);
    agent.hears();
    yielding.end();
}

#[test]
fn ctrl_c_is_the_commands_and_terminating_reaches_it() {
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    yielding.signal(Signal::INT);
    assert_eq!(agent.leases(), 1);
    yielding.signal(Signal::TERM);
    assert_eq!(yielding.over(), (Some(128 + 15), String::new()), "the command is terminated");
    assert_eq!(agent.next_gap(), GapCause::Yielded);
    agent.hears();
}

#[test]
fn without_a_command_it_lasts_until_resumed() {
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let ended = agent.run(&["yield", "--for", "2h"]).good();
    assert!(ended.err.contains("for 2 h; gpuev resume"), "{ended:?}");
    until(|| agent.holds_nothing());
    // Another one comes and goes: the first still wants them.
    let mut other = agent.start(&["--", "sh", "-c", WAITING]);
    other.yielded();
    other.end();
    assert_eq!(agent.leases(), 1);
    assert!(agent.holds_nothing());
    agent.run(&["resume"]).good();
    assert_eq!(agent.next_gap(), GapCause::Yielded);
    agent.hears();
    let again = agent.run(&["resume"]).good();
    assert!(again.err.contains("were not let go"), "{again:?}");
}

#[test]
fn a_lease_that_somebody_holds_is_not_taken_from_him() {
    let Some(agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    let refused = agent.run(&["resume"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("still let go for sh -c"), "{refused:?}");
    assert!(agent.holds_nothing());
    yielding.end();
}

#[test]
fn a_forgotten_lease_comes_to_its_end() {
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    agent.run(&["yield", "--for", "1ms"]).good();
    assert_eq!(agent.next_gap(), GapCause::Yielded);
    agent.hears();
    let told: Vec<_> = agent.told.iter().take(3).map(|told| told.to_string()).collect();
    assert!(told[1].starts_with("the lease of gpuev yield (pid "), "{told:?}");
    assert!(told[2].starts_with("1 GPUs are watched again"), "{told:?}");
}

#[test]
fn a_driver_that_is_gone_for_a_while_is_waited_for() {
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let mut yielding = agent.start(&["--", "sh", "-c", WAITING]);
    yielding.yielded();
    agent.sim.remove_gpu(0).unwrap();
    yielding.end();
    assert_eq!(agent.next_gap(), GapCause::GpuRemoved);
    agent.sim.restore_gpu(0).unwrap();
    assert_eq!(agent.next_gap(), GapCause::Reopened);
    agent.hears();
}

#[test]
fn without_an_agent_nothing_is_held_and_the_command_runs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    let ended = run(["yield", "--socket", socket, "--", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), "hello\n"));
    assert!(ended.err.contains("no agent runs"), "{ended:?}");
    assert_eq!(run(["resume", "--socket", socket]).code, Some(0));
    let missing = run(["yield", "--socket", socket, "--", "/no/such/program"]);
    assert!(missing.err.contains("start /no/such/program"), "{missing:?}");
}

#[test]
fn nonsense_is_answered_and_hurts_nobody() {
    use std::io::BufReader;
    use std::os::unix::net::UnixStream;
    let Some(mut agent) = Agent::on(SimMachine::new().unwrap()) else { return };
    let mut stream = BufReader::new(UnixStream::connect(&agent.socket).unwrap());
    for (line, why) in [
        ("", "no such request"),
        ("{}", "no such request"),
        ("{\"do\":\"dance\"}", "no such request"),
        ("{\"do\":\"yield\",\"who\":\"x\",\"seconds\":-1}", "no length of time"),
        ("{\"do\":\"yield\",\"who\":\"x\",\"seconds\":0}", "longer than nothing"),
        ("{\"do\":\"yield\",\"who\":\"x\",\"seconds\":1e9}", "at most a day"),
    ] {
        stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert!(answer.contains(why) && answer.contains("\"ok\":false"), "{line}: {answer}");
    }
    let flood = vec![b'x'; 1 << 20];
    let _hung_up_on = stream.get_mut().write_all(&flood);
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest);
    agent.hears();
    assert_eq!(agent.leases(), 0);
}
