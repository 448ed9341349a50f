//! The keeper as a process of its own on a simulated machine; the agent's side is this test.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gpuev::keeper::KeeperSource;
use gpuev::{ErrorKind, EventSource, Filter, GapCause, Item, Machine, Monitor};
use gpuev_sim::run::{Run, Running};
use gpuev_sim::{Kernel, SimMachine};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{end, possible, start_on, thermal};
use crate::program::{PROGRAM, command, untouched};

/// A listening keeper on a simulated machine.
pub(crate) struct Listening {
    running: Running,
    place: Place,
}

/// Where one is going to listen.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("keeper.sock")
    }
}

impl Listening {
    pub(crate) fn on(sim: &SimMachine) -> Self {
        Self::at(sim, Place::new())
    }

    pub(crate) fn at(sim: &SimMachine, place: Place) -> Self {
        let socket = place.socket();
        let mut command = untouched(PROGRAM);
        command.args(["keeper", "--listen"]).arg(&socket).stdin(Stdio::null());
        let mut running = Run::new(sim).spawn(command).unwrap();
        wait_for(&mut running, &socket);
        Self { running, place }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// The keepers that run now.
    pub(crate) fn keepers(&self) -> Vec<u32> {
        let pid = self.running.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        // One that has ended has no program until it is reaped.
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok()).collect()
    }
}

/// Waits until it listens: its socket appears before it does, so a first connection may still be refused.
fn wait_for(running: &mut Running, socket: &Path) {
    while KeeperSource::at_socket(socket).accept_partial().version().is_err() {
        assert_eq!(running.child().try_wait().unwrap(), None, "it has ended");
        std::thread::yield_now();
    }
}

/// Its keepers, also where this user can have none that see all.
fn keeper_at(listening: &Listening) -> KeeperSource {
    KeeperSource::at_socket(&listening.socket()).accept_partial()
}

fn agents_machine(sim: &SimMachine, keeper: &KeeperSource) -> Machine {
    Machine::at(sim.root()).with_event_source(keeper.clone())
}

fn open_files(sim: &SimMachine) -> usize {
    sim.event_files().iter().filter(|file| !file.closed).count()
}

/// Event files that somebody has subscribed to: what the driver says before that is for nobody.
fn subscribed(sim: &SimMachine) -> usize {
    sim.event_files().iter().filter(|file| !file.closed && file.mask != 0).count()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for what another process is about to do.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn events_of_all_processes_reach_an_agent_that_opens_nothing() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let machine = agents_machine(&sim, &keeper);
    let monitor = Monitor::start(&machine).unwrap();
    assert_eq!(monitor.gpus().len(), 2);
    let mut items = monitor.subscribe(Filter::new());
    sim.emit(1, &thermal(7));
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 1));
    let pid = keeper.keeper_pid().unwrap();
    assert!(
        sim.event_files()
            .iter()
            .filter(|file| !file.closed)
            .all(|file| { file.client.pid.host == pid && file.client.cap_sys_admin })
    );
    // A keeper stays as long as the files that it opened.
    monitor.release();
    until(|| open_files(&sim) == 0);
    assert_eq!(keeper.keeper_pid(), None);
    until(|| !is_alive(pid));
}

#[test]
fn letting_go_leaves_no_file_and_no_process() {
    let sim = SimMachine::builder().gpus(2).kernel(Kernel::V6_12).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let monitor = Monitor::start(&agents_machine(&sim, &keeper)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    let pid = keeper.keeper_pid().unwrap();
    monitor.release();
    keeper.let_go(SOON).unwrap();
    until(|| open_files(&sim) == 0);
    assert!(keeper.keeper_pid().is_none());
    until(|| !is_alive(pid));
    // What is known is still told, and nothing starts a keeper meanwhile.
    assert_eq!(keeper.version().unwrap().to_string(), "1.17");
    let gpu = Machine::at(sim.root()).gpus().unwrap().remove(0);
    assert_eq!(keeper.open(&gpu).unwrap_err().kind(), ErrorKind::Stopped);
    sim.emit(0, &thermal(1));
    keeper.take_back();
    monitor.resume().unwrap();
    sim.emit(0, &thermal(2));
    let causes = [items.next().unwrap(), items.next().unwrap()].map(|item| match item {
        Item::Gap(gap) => gap.cause,
        Item::Event(event) => panic!("{event:?}"),
    });
    assert_eq!(causes, [GapCause::Yielded; 2]);
    assert!(matches!(items.next(), Some(Item::Event(_))), "the stream goes on");
    assert_ne!(keeper.keeper_pid().unwrap(), pid);
}

#[test]
fn a_killed_keeper_is_replaced_and_no_event_is_missed() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let monitor = Monitor::start(&agents_machine(&sim, &keeper)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    for round in 1..=5 {
        until(|| keeper.keeper_pid().is_some());
        let pid = keeper.keeper_pid().unwrap();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        sim.emit(0, &thermal(round));
        let Some(Item::Event(event)) = items.next() else { panic!("it should be an event") };
        assert_eq!(event.seq, round - 1);
        until(|| keeper.keeper_pid().is_some_and(|new| new != pid));
    }
}

#[test]
fn a_keeper_ends_with_its_agent() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let monitor = Monitor::start(&agents_machine(&sim, &keeper)).unwrap();
    let pid = keeper.keeper_pid().unwrap();
    drop(monitor);
    until(|| !is_alive(pid));
    // One that was only asked of the driver has no files to stay for.
    keeper.version().unwrap();
    until(|| listening.keepers().is_empty());
}

#[test]
fn nonsense_ends_the_one_who_says_it_and_nobody_else() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let monitor = Monitor::start(&agents_machine(&sim, &keeper)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    for nonsense in [&b"x"[..], &[2, 0, 9, 0, 0, 0, 0, 0], &[0xFF; 5000]] {
        let agent = connect(&listening.socket());
        rustix::io::write(&agent, nonsense).unwrap();
        let mut answer = [0; 64];
        assert_eq!(rustix::io::read(&agent, &mut answer), Ok(0), "it should hang up");
    }
    let agent = connect(&listening.socket());
    rustix::io::write(&agent, &[7, 0, 1, 0, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 2048];
    let taken = rustix::io::read(&agent, &mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..taken]).contains("version 7"));
    sim.emit(0, &thermal(1));
    assert!(matches!(items.next(), Some(Item::Event(_))));
}

fn connect(socket: &Path) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let agent = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&agent, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    agent
}

#[test]
fn a_gpu_the_driver_does_not_know_is_refused() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let listening = Listening::on(&sim);
    let keeper = keeper_at(&listening);
    let gone = Machine::at(sim.root()).gpus().unwrap().remove(1);
    sim.remove_gpu(1).unwrap();
    let error = keeper.open(&gone).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GpuRemoved);
    assert!(error.to_string().contains("list the GPUs again"), "{error}");
}

#[test]
fn a_keeper_without_a_connection_says_how_it_is_started() {
    let ended = crate::program::run(["keeper"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("gpuev-keeper.socket"), "{ended:?}");
}

#[test]
fn no_keeper_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = KeeperSource::at_socket(&dir.path().join("none")).version().unwrap_err();
    assert!(error.to_string().contains("gpuev-keeper.socket"), "{error}");
    let error = KeeperSource::of_program(Path::new("true"), &[]).version().unwrap_err();
    assert!(error.to_string().contains("talk to the keeper true"), "{error}");
}

/// A program that watches is no KFD process: its keeper opens the device, once for all GPUs.
#[test]
fn watch_and_record_open_no_device_and_their_keeper_opens_it_once() {
    let sim = SimMachine::builder().gpus(8).build().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history.db");
    let history = history.to_str().unwrap();
    for (before, args) in [&["watch"][..], &["record", "-o", history]].into_iter().enumerate() {
        let running = start_on(&sim, args);
        let opens = sim.kfd_opens();
        assert_eq!(opens.len(), before + 1, "{opens:?}");
        assert_ne!(opens[before].pid, running.id());
        let files = sim.event_files();
        let open = files.iter().filter(|file| !file.closed);
        assert!(open.clone().all(|file| file.client.pid.host == opens[before].pid));
        assert_eq!(open.count(), 8);
        drop(running);
        until(|| open_files(&sim) == 0);
        until(|| !is_alive(opens[before].pid));
    }
}

/// Any GPU that is reset or repartitioned locks KFD for all.
#[test]
fn a_locked_kfd_is_told_and_waited_for() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let lock = sim.lock_kfd();
    let running = start_on(&sim, &["watch", "--json", "--count", "1"]);
    let refused = || sim.kfd_opens().iter().filter(|open| open.refused.is_some()).count();
    until(|| refused() >= 3);
    drop(lock);
    until(|| subscribed(&sim) == 2);
    sim.emit(0, &thermal(1));
    let told = end(running).good();
    assert!(told.err.contains("KFD is locked"), "{told:?}");
    let causes: Vec<_> = told.json().iter().map(|one| one["cause"].to_string()).collect();
    assert_eq!(causes[..2], ["\"locked\""; 2], "{told:?}");
    // The other GPU may come after the event.
    assert_eq!((causes[2].as_str(), causes.last().unwrap().as_str()), ("\"reopened\"", "null"));
}

/// The driver shows a process only the GPUs that were there when it first opened the device.
#[test]
fn a_gpu_that_appears_later_gets_a_keeper_that_is_younger() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let running = start_on(&sim, &["watch", "--json", "--count", "2"]);
    let keeper_of = |gpu: usize| {
        let kfd_id = sim.kfd_gpu_id(gpu).unwrap();
        let files = sim.event_files();
        let of_gpu = files.iter().find(|file| !file.closed && file.kfd_gpu_id == kfd_id);
        of_gpu.map(|file| file.client.pid.host)
    };
    let first = keeper_of(0).unwrap();
    sim.emit(0, &thermal(1));
    let new = sim.add_gpu().unwrap();
    until(|| subscribed(&sim) == 2);
    assert_ne!(keeper_of(new), Some(first));
    assert_eq!(keeper_of(0), Some(first), "what was open stays open");
    assert!(is_alive(first), "as long as its file is");
    sim.emit(new, &thermal(2));
    let told = end(running).good().json();
    assert_eq!(
        told.iter().map(|one| one["gpu"]["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1]
    );
}

/// Newer drivers end KFD processes when a GPU is removed: that must not be the program that watches, and the files of
/// a process that the driver ends are closed.
#[test]
fn a_keeper_that_the_driver_ends_takes_nobody_with_it() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let running = start_on(&sim, &["watch", "--json", "--count", "1"]);
    let keeper = sim.event_files()[0].client.pid.host;
    kill_process(Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap(), Signal::BUS).unwrap();
    until(|| !is_alive(keeper));
    until(|| subscribed(&sim) == 2);
    until(|| sim.event_files().iter().all(|file| file.closed || file.client.pid.host != keeper));
    sim.emit(1, &thermal(1));
    let told = end(running).good().json();
    let causes: Vec<_> = told.iter().filter_map(|one| one["cause"].as_str()).collect();
    assert_eq!(causes, ["reopened", "reopened"], "{told:?}");
    assert_eq!(told.last().unwrap()["record"], "event");
}

/// A program without the capability sees as much by itself; a keeper is for those who want to see all.
#[test]
fn a_keeper_that_may_not_see_all_is_refused_with_the_reason() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let place = Place::new();
    let mut command = crate::program::untouched("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", PROGRAM]);
    command.args(["keeper", "--listen"]).arg(place.socket()).stdin(Stdio::null());
    let Ok(mut running) = Run::new(&sim).spawn(command) else {
        return eprintln!("passed over: no setpriv");
    };
    let partial = KeeperSource::at_socket(&place.socket()).accept_partial();
    while partial.version().is_err() {
        assert_eq!(running.child().try_wait().unwrap(), None, "it has ended");
        std::thread::yield_now();
    }
    let keeper = KeeperSource::at_socket(&place.socket());
    let error = Monitor::start(&agents_machine(&sim, &keeper)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("the keeper has no CAP_SYS_ADMIN"), "{error}");
    let monitor = Monitor::start(&agents_machine(&sim, &partial)).unwrap();
    assert!(!monitor.scope().all_processes);
}

/// As an unprivileged user, `watch` opens the device itself and says what that means.
#[test]
fn without_the_capability_watch_opens_the_device_itself_and_says_so() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut command = command(["watch", "--for", "10ms"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = match Run::new(&sim).user_namespace(true).spawn(command) {
        Ok(running) => running,
        Err(error) => return eprintln!("passed over: {error}"),
    };
    let pid = running.id();
    let ended = end(running).good();
    assert!(ended.err.contains("partitions cannot be changed"), "{ended:?}");
    assert!(sim.event_files().iter().all(|file| file.client.pid.host == pid));
}

/// Whether this user may see all processes: as anybody else, watch opens the device itself.
pub(crate) fn sees_all() -> bool {
    gpuev::Scope::of_this_process(Path::new("/"), None).all_processes
}
