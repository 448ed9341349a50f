//! Debian packages that tests use: other people's programs on the simulated machine, valgrind, a terminal.

use std::process::Command;

use crate::Result;
use crate::process::{run, succeeds};
use crate::report::Outcome;
use crate::tools::has_program;
use crate::workspace::has;

/// What each is for is said by the tests that use it; one that misses its program says so and passes.
const ALWAYS: &[&str] = &["gcc", "libc6-dev", "valgrind"];
const FOR_THE_SIMULATOR: &[&str] = &["rocm-smi", "librocm-smi-dev", "libdrm-amdgpu1", "tmux"];
const FOR_THE_AGENT: &[&str] = &[
    "iproute2",
    "kmod",
    "openssl",
    "prometheus",
    "prometheus-alertmanager",
    "systemd",
    "systemd-journal-remote",
];
const FOR_THE_PACKAGE: &[&str] = &["lintian"];
const FOR_PYTHON: &[&str] = &["python3-venv"];

/// Installs what is missing, where this is Debian and we are root.
pub(crate) fn step() -> Result<Outcome> {
    if !has_program("dpkg-query") {
        return Ok(Outcome::LeftOut(format!("not Debian; tests use {}", wanted().join(" "))));
    }
    let missing: Vec<&str> = wanted().into_iter().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        println!("all there: {}", wanted().join(" "));
        return Ok(Outcome::Passed);
    }
    let command = format!("apt-get install {}", missing.join(" "));
    if !is_root() {
        return Ok(Outcome::LeftOut(format!("needs root: {command}")));
    }
    println!("installing {}", missing.join(" "));
    install(&missing)?;
    let still_missing = missing.iter().any(|name| !is_installed(name));
    if still_missing {
        Ok(Outcome::LeftOut(format!("failed: {command}")))
    } else {
        Ok(Outcome::Passed)
    }
}

fn wanted() -> Vec<&'static str> {
    let mut names = ALWAYS.to_vec();
    if has("gpuev-sim") {
        names.extend(FOR_THE_SIMULATOR);
    }
    if has("gpuev-agent") {
        names.extend(FOR_THE_AGENT);
        names.extend(FOR_THE_PACKAGE);
    }
    // A Python that did not come from Debian brings its own.
    if has("gpuev-python") && !succeeds(Command::new("python3").args(["-c", "import ensurepip"])) {
        names.extend(FOR_PYTHON);
    }
    names
}

fn install(names: &[&str]) -> Result {
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(names);
    // No questions, and no service is started: only the programs are wanted.
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    run(&mut install)?;
    Ok(())
}

fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", name]);
    crate::process::output(&mut query).is_ok_and(|status| status == "installed")
}

fn is_root() -> bool {
    crate::process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
