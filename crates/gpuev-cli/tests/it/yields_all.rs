//! `gpuev yield` reaches every program that watches, not only the agent.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use gpuev_sim::SimMachine;
use gpuev_sim::run::{Run, Running};

use crate::keeper::{sees_all, until};
use crate::machine::{end, possible, start_on, thermal};
use crate::program::{command, has_thread, run, runtime_dir};

/// A `gpuev yield` without an agent, whose command waits for a line.
struct Yielding(Child);

impl Yielding {
    fn start() -> Self {
        let script = "echo yielded; read line; exit 7";
        let mut command = command(["yield", "--socket", "/nowhere", "--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0; 8];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        Self(child)
    }

    fn end(mut self) -> String {
        self.0.stdin.take().unwrap().write_all(b"done\n").unwrap();
        let mut err = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(7));
        err
    }
}

fn holds_nothing(sim: &SimMachine) -> bool {
    sim.event_files().iter().all(|file| file.closed)
}

fn keepers(sim: &SimMachine) -> Vec<u32> {
    sim.event_files().iter().filter(|file| !file.closed).map(|file| file.client.pid.host).collect()
}

fn sockets() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runtime_dir()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn watch_and_record_release_the_gpus_and_take_them_back() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history.db");
    let history = history.to_str().unwrap();
    let watch = start_on(&sim, &["watch", "--json", "--count", "2"]);
    let record = start_on(&sim, &["record", "-o", history]);
    sim.emit(0, &thermal(1));
    let before = keepers(&sim);
    assert_eq!(before.len(), 4);
    let yielding = Yielding::start();
    for keeper in before {
        assert!(!PathBuf::from(format!("/proc/{keeper}/exe")).exists(), "a keeper still runs");
    }
    // What it is told of closed files, the simulator takes a moment to note.
    until(|| holds_nothing(&sim));
    sim.emit(0, &thermal(2));
    yielding.end();
    let open = |file: &gpuev_sim::EventFileStats| !file.closed && file.mask != 0;
    until(|| sim.event_files().iter().filter(|file| open(file)).count() == 4);
    sim.emit(0, &thermal(3));
    let told = end(watch).good();
    let kinds: Vec<_> = told.json().iter().map(|one| one["record"].to_string()).collect();
    assert_eq!(kinds, ["\"event\"", "\"gap\"", "\"gap\"", "\"event\""], "{told:?}");
    assert!(told.err.contains("the GPUs are let go for sh -c"), "{told:?}");
    drop(record);
}

/// The folder and the socket are this user's alone.
#[test]
fn nobody_else_may_ask_and_nothing_is_left() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let watch = start_on(&sim, &["watch", "--count", "1"]);
    let mode = |path: &PathBuf| std::fs::symlink_metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&runtime_dir()) & 0o777, 0o700);
    let sockets_now = sockets();
    let [socket] = &sockets_now[..] else { panic!("{sockets_now:?}") };
    assert!(std::fs::symlink_metadata(socket).unwrap().file_type().is_socket());
    assert_eq!(mode(socket) & 0o777, 0o600);
    sim.emit(0, &thermal(1));
    end(watch).good();
    assert_eq!(sockets(), Vec::<PathBuf>::new());
}

/// A folder that others may write to is not used: anybody could answer there.
#[test]
fn a_folder_of_others_is_not_used() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    std::fs::create_dir(runtime_dir()).unwrap();
    let open_to_all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(runtime_dir(), open_to_all).unwrap();
    let told = crate::machine::run_on(&sim, ["watch", "--for", "10ms"]).good();
    assert!(told.err.contains("gpuev yield cannot reach it"), "{told:?}");
    assert_eq!(sockets(), Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_program_left_hinders_nobody() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) || !sees_all() {
        return;
    }
    let mut killed = start_on(&sim, &["watch"]);
    killed.child().kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(sockets().len(), 1);
    let told = run(["yield", "--socket", "/nowhere", "--", "true"]).good();
    assert!(told.err.contains("nothing is held"), "{told:?}");
    assert_eq!(sockets(), Vec::<PathBuf>::new());
}

/// It cannot release the driver but by ending, and that is said with its number.
#[test]
fn who_opens_the_device_itself_is_named() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut command = command(["watch"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut watch: Running = match Run::new(&sim).user_namespace(true).spawn(command) {
        Ok(watch) => watch,
        Err(error) => return eprintln!("passed over: {error}"),
    };
    let pid = watch.id();
    until(|| has_thread(pid, "gpuev-end"));
    let told = run(["yield", "--socket", "/nowhere"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.err.contains(&format!("gpuev (pid {pid}) opens /dev/kfd itself")), "{told:?}");
    watch.child().kill().unwrap();
    watch.wait().unwrap();
}
