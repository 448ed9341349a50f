//! The program on a simulated machine as if it were this one: its own `/sys`, `/dev/kfd` and ioctls, nothing
//! of the program knows.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use gpuev_sim::run::{Run, Running};
use gpuev_sim::{DriverEvent, SimMachine, throttler};

use crate::program::{Ended, PROGRAM, command, has_thread, parse, run};

/// Whether this user can have the namespaces that it takes; says so where not.
pub(crate) fn possible(sim: &SimMachine) -> bool {
    match Run::new(sim).output(Command::new("true")) {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{error}");
            eprintln!("passed over: {error}");
            false
        }
    }
}

/// Runs the program on `sim` to its end.
pub(crate) fn run_on<S: AsRef<OsStr>>(
    sim: &SimMachine,
    args: impl IntoIterator<Item = S>,
) -> Ended {
    end_on(sim, command(args))
}

/// Runs a command on `sim` to its end.
pub(crate) fn end_on(sim: &SimMachine, command: Command) -> Ended {
    let output = Run::new(sim).output(command).unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts `watch` on `sim` and waits until it has subscribed to what it opened: what the driver says before
/// that is for nobody. Its last thread starts after that.
pub(crate) fn start_on(sim: &SimMachine, args: &[&str]) -> Running {
    start_command_on(sim, command(args))
}

/// The same of a command that has its arguments and its input.
pub(crate) fn start_command_on(sim: &SimMachine, mut command: Command) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Run::new(sim).spawn(command).unwrap();
    while !has_thread(running.id(), "gpuev-end") {
        assert_eq!(running.child().try_wait().unwrap(), None, "it has ended");
        std::thread::yield_now();
    }
    running
}

pub(crate) fn end(running: Running) -> Ended {
    let output = running.output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn thermal(count: u64) -> DriverEvent {
    DriverEvent::Thermal { throttlers: throttler::TEMP_HOTSPOT, count }
}

#[test]
fn the_truth_is_told_before_the_program_can_know_it_and_begins_when_it_listens() {
    if !possible(&SimMachine::new().unwrap()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.json");
    let sim = ["sim", "run", "--scenario", "mixed", "--rate", "1000", "--count", "5000"];
    let args: Vec<&OsStr> = sim.iter().map(OsStr::new).collect();
    let mut args = [args, vec!["--listeners".as_ref(), "1".as_ref(), "--truth".as_ref()]].concat();
    args.push(truth.as_os_str());
    args.extend(["--", PROGRAM, "watch", "--json", "--count", "50"].map(OsStr::new));
    let told = run(args).good().json();
    let records: Vec<_> = std::fs::read_to_string(truth).unwrap().lines().map(parse).collect();
    let of = |kind: &'static str| records.iter().filter(move |record| record["record"] == kind);
    let raised: Vec<_> = of("raised").map(|one| one["raw"].as_str().unwrap()).collect();
    let told: Vec<_> = told.iter().map(|one| one["raw"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 50);
    assert!(raised.windows(50).any(|some| some == told), "{told:?} in {raised:?}");
    let [file] = of("event_file").collect::<Vec<_>>()[..] else { panic!("{records:?}") };
    assert!(file["accepted"].as_u64().unwrap() >= 50);
    assert_eq!((&file["gpu"], &file["dropped"]), (&0.into(), &0.into()));
}

#[test]
fn a_program_that_never_listens_has_no_story() {
    if !possible(&SimMachine::new().unwrap()) {
        return;
    }
    let truth = tempfile::NamedTempFile::new().unwrap();
    let path = truth.path().to_str().unwrap();
    run(["sim", "run", "--listeners", "1", "--truth", path, "--", "true"]).good();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "");
    let nowhere = run(["sim", "run", "--truth", "/nowhere/truth.json", "--", "true"]);
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.err.contains("write /nowhere/truth.json"), "{nowhere:?}");
}
