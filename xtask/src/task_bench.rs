//! All benchmarks in one run and one table, beside the least that a reader can do and the vendor's library.
//!
//! A benchmark is a program that prints lines `figure`, what, who, value, unit, with tabs between. To add one, add
//! its command to `SUITES`, and what its figures are to reach to `TARGETS` in `table`.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{output, run as run_shown};
use crate::workspace::{build_bench, has, root, target};
use crate::{Result, task_python, tools};
use table::Table;

/// A benchmark: its name, the crate it needs, how it is run. The folder is that of the programs in C.
type Suite = (&'static str, &'static str, fn(&Path) -> Result<Command>);

const SUITES: [Suite; 7] = [
    ("decode", "gpuev-kfd", |_| bench("gpuev-kfd", "decoder")),
    ("sscanf", "gpuev-cli", |programs| Ok(sscanf(programs))),
    ("live", "gpuev-cli", live),
    ("exchange", "gpuev-cli", |_| bench("gpuev-cli", "exchange")),
    ("agent", "gpuev-agent", |_| bench("gpuev-agent", "flood")),
    ("history", "gpuev-store", |_| bench("gpuev-store", "history")),
    ("python", "gpuev-python", task_python::bench),
];
const IN_C: &str = "crates/gpuev-cli/benches/c";

/// Runs the benchmarks that are named, or all.
pub(crate) fn run(names: &[String]) -> Result {
    let programs = target().join("bench");
    compile(&programs)?;
    let mut table = Table::default();
    for (name, part, command) in SUITES {
        if has(part) && (names.is_empty() || names.iter().any(|wanted| wanted == name)) {
            eprintln!("── {name} ──");
            let mut command = command(&programs)?;
            let said = output(command.current_dir(root()).stderr(Stdio::inherit()))?;
            said.lines().for_each(|line| table.read(line));
        }
    }
    println!("{table}");
    Ok(())
}

fn bench(package: &str, name: &str) -> Result<Command> {
    build_bench(package, name, |_| {}).map(Command::new)
}

fn live(programs: &Path) -> Result<Command> {
    let mut live = bench("gpuev-cli", "live")?;
    live.arg("on-machine").arg(programs);
    Ok(live)
}

fn sscanf(programs: &Path) -> Command {
    let mut minimal = Command::new(programs.join("minimal"));
    minimal.arg("decode").args(captures());
    minimal
}

fn captures() -> Vec<PathBuf> {
    let entries = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    entries(root().join("captures")).into_iter().flat_map(entries).collect()
}

/// Builds the readers in C. Without the vendor's library its reader is left out.
fn compile(programs: &Path) -> Result {
    if !tools::has_program("cc") {
        return Err("the readers in C need cc: apt-get install gcc libc6-dev".to_owned());
    }
    std::fs::create_dir_all(programs).map_err(|error| error.to_string())?;
    for (name, library) in [("minimal", None), ("start_up", None), ("rocm_smi", Some("rocm_smi64"))]
    {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"]).arg(programs.join(name));
        cc.arg(root().join(IN_C).join(name).with_extension("c"));
        cc.args(library.map(|library| format!("-l{library}")));
        match (run_shown(&mut cc)?.ok, library) {
            (false, None) => return Err(format!("{name}.c does not compile")),
            (false, Some(_)) => eprintln!("left out: {name}, apt-get install librocm-smi-dev"),
            (true, _) => {}
        }
    }
    Ok(())
}
