//! The fuzz targets, built with libFuzzer and the address sanitizer as `cargo fuzz` builds them, but without
//! that program: it takes minutes to install and all it adds here is these flags.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::process::run as run_shown;
use crate::report::Outcome;
use crate::{Result, tools, workspace};

const TARGETS: [&str; 4] = ["decode", "round_trip", "framing", "event_file"];
/// `round_trip` is fed records, not lines: what drivers wrote is no seed for it.
const WITHOUT_CAPTURES: &str = "round_trip";
const SECONDS: u32 = 60;
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// What `cargo fuzz build` passes.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Clink-dead-code -Zsanitizer=address -Ccodegen-units=1 -Cdebug-assertions";

pub(crate) fn step() -> Result<Outcome> {
    if !tools::has_nightly() {
        return Ok(Outcome::LeftOut("needs the nightly toolchain".to_owned()));
    }
    fuzz(SECONDS, &TARGETS)?;
    Ok(Outcome::Passed)
}

/// Runs the targets that are named, or all, for the seconds that are given, or a minute each.
pub(crate) fn run(arguments: &[String]) -> Result {
    let seconds = match arguments.first() {
        Some(text) => text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?,
        None => SECONDS,
    };
    let named: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if let Some(unknown) = named.iter().find(|name| !TARGETS.contains(name)) {
        return Err(format!("no target `{unknown}`; there are: {}", TARGETS.join(", ")));
    }
    fuzz(seconds, if named.is_empty() { &TARGETS } else { &named })
}

fn fuzz(seconds: u32, targets: &[&str]) -> Result {
    let programs = build()?;
    // As many at once as there are processors: libFuzzer uses one.
    let waiting = Mutex::new(targets.iter());
    let failures = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let done = fuzz_one(&programs, target, seconds);
                    println!("{target}: {}", done.as_ref().unwrap_or_else(|said| said));
                    if let (Err(_), Ok(mut failures)) = (done, failures.lock()) {
                        failures.push(*target);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if failures.is_empty() { Ok(()) } else { Err(format!("found by {}", failures.join(", "))) }
}

/// Gives the folder of the built programs.
fn build() -> Result<PathBuf> {
    let target = workspace::target().join("fuzz");
    let mut build = Command::new("cargo");
    build.args([
        "+nightly",
        "build",
        "--release",
        "--locked",
        "--target",
        PLATFORM,
        "--target-dir",
    ]);
    build.arg(&target).current_dir(workspace::root().join("fuzz")).env("RUSTFLAGS", FLAGS);
    if !run_shown(&mut build)?.ok {
        return Err("the fuzz targets do not build".to_owned());
    }
    Ok(target.join(PLATFORM).join("release"))
}

/// Gives how often it ran.
///
/// # Errors
/// Where it found something: what libFuzzer says, and how to have it again.
fn fuzz_one(programs: &Path, target: &str, seconds: u32) -> Result<String> {
    let folder = workspace::root().join("fuzz");
    let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts"));
    let artifacts = artifacts.join(target);
    let log = programs.join(format!("{target}.log"));
    let prepared = fs::create_dir_all(&corpus)
        .and_then(|()| fs::create_dir_all(&artifacts))
        .and_then(|()| File::create(&log));
    let screen = prepared.map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut program = Command::new(programs.join(target));
    program.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    program.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
    if target != WITHOUT_CAPTURES {
        program.arg(workspace::root().join("captures"));
    }
    let status = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen).status();
    let said = fs::read_to_string(&log).unwrap_or_default();
    match status {
        Ok(status) if status.success() => Ok(executions(&said)),
        Ok(status) => Err(format!("{status}\n{}\nagain: {program:?}", end_of(&said))),
        Err(error) => Err(format!("{error}: {program:?}")),
    }
}

/// libFuzzer's `Done N runs in N second(s)`.
fn executions(said: &str) -> String {
    let done = said.lines().rev().find(|line| line.starts_with("Done "));
    done.unwrap_or("ended without a count").to_owned()
}

fn end_of(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
