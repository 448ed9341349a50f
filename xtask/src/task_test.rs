//! The one command that passes all tests on a fresh machine.
//!
//! Every step runs, whatever the ones before it came to; failures are told together at the end. What this
//! machine cannot run is left out, and said.

use std::path::Path;
use std::process::Command;

use crate::process::run;
use crate::report::{Outcome, Report};
use crate::tools::cargo_tool;
use crate::workspace::{self, cargo};
use crate::{
    Result, task_deny, task_fuzz, task_instructions, task_package, task_packages, task_python,
    task_tidy,
};

type Step = (&'static str, fn() -> Result<Outcome>);

/// Cheap ones first: they fail most.
const STEPS: [Step; 13] = [
    ("packages", task_packages::step),
    ("fmt", fmt),
    ("tidy", task_tidy::step),
    ("clippy", clippy),
    ("tests", tests),
    ("doctests", doctests),
    ("docs", docs),
    ("concurrency", concurrency),
    ("package", task_package::step),
    ("python", task_python::step),
    ("instructions", task_instructions::step),
    ("fuzz", task_fuzz::step),
    ("deny", task_deny::step),
];

/// Runs the steps that are named, or all.
pub(crate) fn run_steps(names: &[String]) -> Result {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.0 != **name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.0).collect();
        return Err(format!("no step `{unknown}`; there are: {}", known.join(", ")));
    }
    let mut report = Report::default();
    for (name, step) in STEPS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            report.step(name, step);
        }
    }
    report.close()
}

fn fmt() -> Result<Outcome> {
    run(&mut cargo(&["fmt", "--all", "--check"])).map(Outcome::Ran)
}

fn clippy() -> Result<Outcome> {
    let arguments =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"];
    run(&mut cargo(&arguments)).map(Outcome::Ran)
}

fn tests() -> Result<Outcome> {
    if let Err(why) = cargo_tool("nextest") {
        println!("{why}; cargo's own runner takes its place");
        // Without a process for each test, those that change the process must not run side by side.
        let arguments =
            ["test", "--workspace", "--all-features", "--all-targets", "--no-fail-fast"];
        return run(hostile(cargo(&arguments).args(["--", "--test-threads=1"]))).map(Outcome::Ran);
    }
    let arguments = ["nextest", "run", "--workspace", "--all-features", "--no-fail-fast"];
    run(hostile(&mut cargo(&arguments))).map(Outcome::Ran)
}

/// Settings that somebody's machine may have and that no result may depend on.
fn hostile(tests: &mut Command) -> &mut Command {
    // Cargo and rustup themselves go on where they are.
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if let (None, Some(home)) = (std::env::var_os(name), std::env::var_os("HOME")) {
            tests.env(name, Path::new(&home).join(folder));
        }
    }
    tests.env("CARGO_TERM_COLOR", "never").envs([
        ("CI", "1"),
        ("CLICOLOR_FORCE", "1"),
        ("COLUMNS", "17"),
        ("GPUEV_AGENT_HTTP_LISTEN", "nowhere"),
        ("GPUEV_AMDSMI_UNITS", "vendor"),
        ("GPUEV_RUNTIME_DIR", "/nonexistent/run"),
        ("HOME", "/nonexistent/home"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LINES", "3"),
        ("NOTIFY_SOCKET", "/nonexistent/notify"),
        ("STATE_DIRECTORY", "/nonexistent/state"),
        ("TZ", "Asia/Kathmandu"),
        ("XDG_RUNTIME_DIR", "/nonexistent/user"),
        ("XDG_STATE_HOME", "/nonexistent/xdg"),
    ])
}

fn doctests() -> Result<Outcome> {
    let arguments = ["test", "--doc", "--workspace", "--all-features", "--no-fail-fast"];
    run(&mut cargo(&arguments)).map(Outcome::Ran)
}

fn docs() -> Result<Outcome> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    run(doc.env("RUSTDOCFLAGS", "--deny warnings")).map(Outcome::Ran)
}

/// Tests of the fan-out under shuttle, which takes the place of `std::sync` and tries other orders of threads.
fn concurrency() -> Result<Outcome> {
    let manifest = workspace::root().join("crates/gpuev/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).map_err(|error| error.to_string())?;
    if !manifest.contains("shuttle") {
        return Ok(Outcome::LeftOut("crates/gpuev has no shuttle tests".to_owned()));
    }
    let target = workspace::target().join("shuttle");
    let runner: &[&str] =
        if cargo_tool("nextest").is_ok() { &["nextest", "run"] } else { &["test"] };
    let mut tests = cargo(runner);
    tests.args(["--package", "gpuev", "--lib", "--no-fail-fast", "--target-dir"]).arg(target);
    run(tests.env("RUSTFLAGS", "--cfg gpuev_shuttle")).map(Outcome::Ran)
}
