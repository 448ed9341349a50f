//! The wheel: built into a virtual environment of the workspace, tested there, its stubs held against it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{Ran, run, succeeds};
use crate::report::Outcome;
use crate::tools::has_program;
use crate::workspace::{cargo, has, root, target};

const PACKAGES: [&str; 10] = [
    "duckdb",
    "flit_core",
    "maturin",
    "mypy",
    "pandas",
    "pyarrow",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "viztracer",
];
const CRATE: &str = "crates/gpuev-python";
/// What other programs see of the tables that are exported.
const TABLES: &str = "crates/gpuev-cli/tests/python";
const DISTRIBUTIONS: [&str; 2] = ["gpuev", "gpuev-amdsmi"];
/// The program that puts Python programs on a simulated machine.
const PROGRAM: &str = "gpuev";

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
    install_wheels(&environment)?;
    if !run(&mut cargo(&["build", "--package", "gpuev-cli", "--all-features", "--bin", PROGRAM]))?
        .ok
    {
        return Err("gpuev does not build".to_owned());
    }
    // As nextest does: a test that hangs fails, and does not hold up the others.
    let mut tests = python(&environment, &["-m", "pytest", "--timeout", "300", CRATE, TABLES]);
    let tests = run(tests.env("GPUEV_PROGRAM", target().join("debug").join(PROGRAM)))?;
    let crate_folder = root().join(CRATE);
    let mut stubs = python(&environment, &["-m", "mypy.stubtest", "gpuev"]);
    stubs.arg("--mypy-config-file").arg(crate_folder.join("pyproject.toml"));
    stubs.arg("--allowlist").arg(crate_folder.join("stubtest.txt"));
    let stubs = run(&mut stubs)?;
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
    // `pip show` is content with one of them.
    let all_there = "import sys, importlib.metadata as m; [m.version(p) for p in sys.argv[1:]]";
    if succeeds(python(environment, &["-c", all_there]).args(PACKAGES)) {
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

/// Builds both distributions and installs them as users do.
fn install_wheels(environment: &Path) -> Result {
    let wheels = target().join("wheels");
    // Those of other versions.
    let _there_may_be_none = std::fs::remove_dir_all(&wheels);
    build_wheels(environment, &wheels, &[])?;
    let mut install = python(environment, &["-m", "pip", "install", "--quiet", "--no-index"]);
    install.args(["--force-reinstall", "--no-deps", "--find-links"]).arg(&wheels);
    succeed(install.args(DISTRIBUTIONS), "the wheels do not install")
}

fn build_wheels(environment: &Path, wheels: &Path, how: &[&str]) -> Result {
    let mut gpuev = Command::new(program(environment, "maturin"));
    gpuev.arg("build").args(how).arg("--manifest-path").arg(root().join(CRATE).join("Cargo.toml"));
    gpuev.arg("--out").arg(wheels).current_dir(root());
    succeed(&mut gpuev, "the wheel gpuev does not build")?;
    let mut amdsmi = python(environment, &["-m", "pip", "wheel", "--quiet", "--no-deps"]);
    amdsmi.arg("--no-build-isolation").arg("--wheel-dir").arg(wheels);
    succeed(amdsmi.arg(root().join(CRATE).join("amdsmi")), "the wheel gpuev-amdsmi does not build")
}

fn succeed(command: &mut Command, otherwise: &str) -> Result {
    if run(command)?.ok { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// The benchmark of the packages, optimized, as a program for a simulated machine whose GPU throttles all the time.
///
/// # Errors
/// Where they, or `gpuev`, do not build.
pub(crate) fn bench(programs: &Path) -> Result<Command> {
    let environment = root().join(".venv");
    prepare(&environment)?;
    let (wheels, packages) = (programs.join("wheels"), programs.join("packages"));
    for old in [&wheels, &packages] {
        let _there_may_be_none = std::fs::remove_dir_all(old);
    }
    build_wheels(&environment, &wheels, &["--profile", "dist"])?;
    let mut install = python(&environment, &["-m", "pip", "install", "--quiet", "--no-index"]);
    install.args(["--no-deps", "--find-links"]).arg(&wheels).arg("--target").arg(&packages);
    succeed(install.args(DISTRIBUTIONS), "the wheels do not install")?;
    let build = ["build", "--profile", "dist", "--package", "gpuev-cli", "--bin", PROGRAM];
    succeed(&mut cargo(&build), "gpuev does not build")?;
    let mut bench = Command::new(target().join("dist").join(PROGRAM));
    bench.args([
        "sim",
        "run",
        "--scenario",
        "thermal",
        "--rate",
        "20000",
        "--listeners",
        "1",
        "--",
    ]);
    bench
        .arg(program(&environment, "python"))
        .arg(root().join(CRATE).join("benches/amdsmi_read.py"));
    bench.env("PYTHONPATH", packages);
    Ok(bench)
}
