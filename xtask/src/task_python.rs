//! The wheel: built into a virtual environment of the workspace, tested there, its stubs held against it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{Ran, run, succeeds};
use crate::report::Outcome;
use crate::tools::has_program;
use crate::workspace::{has, root};

const PACKAGES: [&str; 7] =
    ["maturin", "pytest", "pytest-asyncio", "pytest-timeout", "mypy", "pyarrow", "pandas"];
const CRATE: &str = "crates/gpuev-python";

pub(crate) fn step() -> Result<Outcome> {
    if !has("gpuev-python") {
        return Ok(Outcome::LeftOut(format!("there is no {CRATE}")));
    }
    if !has_program("python3") {
        return Ok(Outcome::LeftOut("needs python3".to_owned()));
    }
    let environment = root().join(".venv");
    if let Err(why) = prepare(&environment) {
        return Ok(Outcome::LeftOut(why));
    }
    if !run(&mut maturin(&environment))?.ok {
        return Err("the wheel does not build".to_owned());
    }
    // As nextest does: a test that hangs fails, and does not hold up the others.
    let tests = run(&mut python(&environment, &["-m", "pytest", "--timeout", "300", CRATE]))?;
    let stubs = run(&mut python(&environment, &["-m", "mypy.stubtest", "gpuev"]))?;
    Ok(Outcome::Ran(Ran { ok: tests.ok && stubs.ok, ..tests }))
}

/// Makes the environment and installs what is missing in it.
fn prepare(environment: &Path) -> Result {
    if !program(environment, "python").is_file() {
        println!("making .venv");
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
        if !made.ok {
            return Err("python3 -m venv fails".to_owned());
        }
    }
    if succeeds(python(environment, &["-m", "pip", "show", "--quiet"]).args(PACKAGES)) {
        return Ok(());
    }
    println!("installing into .venv: {}", PACKAGES.join(" "));
    let mut install = python(environment, &["-m", "pip", "install", "--quiet"]);
    if run(install.args(PACKAGES))?.ok {
        Ok(())
    } else {
        Err(format!("cannot be installed here: {}", PACKAGES.join(" ")))
    }
}

fn program(environment: &Path, name: &str) -> PathBuf {
    environment.join("bin").join(name)
}

fn python(environment: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(environment, "python"));
    command.args(arguments).current_dir(root());
    command
}

fn maturin(environment: &Path) -> Command {
    let mut command = Command::new(program(environment, "maturin"));
    command.args(["develop", "--manifest-path"]).arg(root().join(CRATE).join("Cargo.toml"));
    command.env("VIRTUAL_ENV", environment).current_dir(root());
    command
}
