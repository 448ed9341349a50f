//! The program on a simulated machine as if it were this one: its own `/sys`, `/dev/kfd` and ioctls, nothing
//! of the program knows.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use gpuev_sim::run::{Run, Running};
use gpuev_sim::{DriverEvent, SimMachine, throttler};

use crate::program::{Ended, PROGRAM, has_thread};

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
    let mut command = Command::new(PROGRAM);
    command.args(args);
    end_on(sim, command)
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
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
