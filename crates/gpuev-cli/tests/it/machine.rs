//! The program on a simulated machine as if it were this one: its own `/sys`, `/dev/kfd` and ioctls, nothing
//! of the program knows.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use gpuev_sim::run::{Run, Running};
use gpuev_sim::{DriverEvent, SimMachine, throttler};
use serde_json::Value;

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

/// What a simulated machine noted of itself.
fn records(truth: &Path) -> Vec<Value> {
    std::fs::read_to_string(truth).unwrap().lines().map(parse).collect()
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
    let records = records(&truth);
    let of = |kind: &'static str| records.iter().filter(move |record| record["record"] == kind);
    let raised: Vec<_> = of("raised").map(|one| one["raw"].as_str().unwrap()).collect();
    let told: Vec<_> = told.iter().map(|one| one["raw"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 50);
    assert!(raised.windows(50).any(|some| some == told), "{told:?} in {raised:?}");
    let [file] = of("event_file").collect::<Vec<_>>()[..] else { panic!("{records:?}") };
    assert!(file["accepted"].as_u64().unwrap() >= 50);
    assert_eq!((&file["gpu"], &file["dropped"]), (&0.into(), &0.into()));
}

/// A loop in C with the mask of memory faults gets all of them, also where the driver's FIFO is small and others' events
/// are many.
#[test]
fn a_filter_reaches_the_driver_of_a_small_fifo() {
    if !possible(&SimMachine::new().unwrap()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.json");
    let path = truth.to_str().unwrap();
    let sim = ["sim", "run", "--kernel", "6.1", "--scenario", "mixed", "--rate", "200000"];
    let story = ["--count", "60000", "--seed", "5", "--listeners", "1", "--truth", path, "--"];
    let watch = [PROGRAM, "watch", "--type", "VMFAULT", "--json", "--for", "3s"];
    let told = run([&sim[..], &story, &watch].concat()).good().json();
    let records = records(&truth);
    let of = |kind: &'static str| records.iter().filter(move |record| record["record"] == kind);
    let raised: Vec<_> = of("raised").filter(|one| one["id"] == 1).map(|one| &one["raw"]).collect();
    let [file] = of("event_file").collect::<Vec<_>>()[..] else { panic!("{records:?}") };
    // Bit 63 is for all processes, bit 13 for the number under which drivers may tell of drops.
    assert_eq!(file["mask"].as_u64(), Some(1 << 63 | 1 << 13 | 1));
    let events = told.iter().filter(|one| one["record"] == "event").map(|one| &one["raw"]);
    let events: Vec<_> = events.collect();
    assert!(!events.is_empty() && events.len() as u64 == file["accepted"].as_u64().unwrap());
    if file["dropped"] == 0 {
        // The story may go on after the end of the watch.
        assert_eq!(events, raised[..events.len()]);
        assert_eq!(told.len(), events.len(), "no gap of what nobody wants: {told:?}");
    }
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
