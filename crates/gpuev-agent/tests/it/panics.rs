//! A panic ends the process: it is looked at from outside, by this test program that runs itself.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use gpuev_agent::panics;

const INSIDE: &str = "GPUEV_TEST_PANICS";

#[test]
fn a_thread_that_panics_ends_the_process() {
    if std::env::var_os(INSIDE).is_some() {
        panics::end_the_process();
        let thread = std::thread::spawn(|| panic!("the worker met what it did not expect"));
        let _never = thread.join();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panics::a_thread_that_panics_ends_the_process", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{said}");
    assert!(said.contains("the worker met what it did not expect"), "{said}");
}
