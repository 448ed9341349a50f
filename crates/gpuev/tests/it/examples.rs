//! The examples do what they are for: each as it is, on the simulated machine as if it were this one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gpuev_sim::run::Run;
use gpuev_sim::{DriverEvent, ResetCause, SimMachine};

/// Cargo puts examples beside the tests that it builds with them.
fn example(name: &str) -> Command {
    let tests: PathBuf = std::env::current_exe().unwrap();
    let built = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(built.exists(), "{} is not built: cargo build --examples", built.display());
    Command::new(built)
}

/// Starts an example, resets the GPU, and waits until it has said all of `expected`, in this order.
fn says_of_a_reset(name: &str, expected: &[&str]) {
    let sim = SimMachine::new().unwrap();
    if let Err(error) = Run::new(&sim).output(Command::new("true")) {
        assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{error}");
        return eprintln!("passed over: {error}");
    }
    let mut command = example(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Run::new(&sim).spawn(command).unwrap();
    // What the driver says before anybody listens is for nobody.
    while sim.event_files().iter().all(|file| file.accepted_lines == 0) {
        let cause = Some(ResetCause::RasError);
        sim.emit(0, &DriverEvent::PreReset { sequence: 1, cause });
        assert_eq!(running.child().try_wait().unwrap(), None, "{name} has ended");
        std::thread::yield_now();
    }
    sim.emit(0, &DriverEvent::PostReset { sequence: 1, cause: None });
    let mut lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
    for expected in expected {
        let found = lines.by_ref().any(|line| line.unwrap().contains(expected));
        assert!(found, "{name} does not say {expected:?}");
    }
    running.child().kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn watch_all() {
    says_of_a_reset(
        "watch_all",
        &["GPU 0 GPU_PRE_RESET: GPU reset 1 begins: RAS error", "is over"],
    );
}

#[test]
fn own_event_loop() {
    says_of_a_reset("own_event_loop", &["GPU reset 1 begins", "GPU reset 1 is over"]);
}

#[test]
#[cfg(feature = "tokio")]
fn tokio_stream() {
    says_of_a_reset("tokio_stream", &["GPU 0: GPU reset 1 begins", "GPU 0: GPU reset 1 is over"]);
}

#[test]
fn reset_downtime() {
    says_of_a_reset("reset_downtime", &["GPU 0: reset 1 took"]);
}

#[test]
fn health_on_events() {
    says_of_a_reset("health_on_events", &["begins", "junction", "power", "memory"]);
}

#[test]
fn test_your_monitor() {
    let output = example("test_your_monitor").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
