//! Counts the instructions of the hot paths, which no other load on the machine changes, and compares them
//! with the recorded figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::output;
use crate::report::Outcome;
use crate::tools::has_program;
use crate::workspace::{self, build_bench};

/// The recorded figures: `rustc VERSION`, then a line of name and instructions for each path.
const RECORDED: &str = "xtask/instructions.txt";
/// How many percent more is a fault.
const TOLERANCE: f64 = 5.0;
/// The paths: crate, benchmark, name of the path in it.
const PATHS: [(&str, &str, &str); 2] =
    [("gpuev-kfd", "decoder", "decode"), ("gpuev-kfd", "decoder", "read")];
/// How often the work is done in the two runs whose difference is the work alone.
const ROUNDS: (u32, u32) = (5, 25);

type Figures = BTreeMap<String, f64>;

pub(crate) fn step() -> Result<Outcome> {
    if !has_program("valgrind") {
        return Ok(Outcome::LeftOut("needs valgrind".to_owned()));
    }
    let (compiler, recorded) = recorded()?;
    let figures = count()?;
    show(&figures, &recorded);
    if compiler != rustc()? {
        return Ok(Outcome::LeftOut(format!("the recorded figures are of {compiler}")));
    }
    compare(&figures, &recorded)?;
    Ok(Outcome::Passed)
}

/// Compares, or records what is counted (`--bless`).
pub(crate) fn run(arguments: &[String]) -> Result {
    match arguments.first().map(String::as_str) {
        None => match step()? {
            Outcome::LeftOut(why) => Err(why),
            _ => Ok(()),
        },
        Some("--bless") => record(&count()?),
        Some(other) => Err(format!("`{other}`: the only option is --bless")),
    }
}

fn record(figures: &Figures) -> Result {
    let mut text = rustc()? + "\n";
    for (name, figure) in figures {
        text += &format!("{name} {figure:.1}\n");
    }
    print!("{text}");
    fs::write(workspace::root().join(RECORDED), text)
        .map_err(|error| format!("{RECORDED}: {error}"))
}

fn recorded() -> Result<(String, Figures)> {
    let text = fs::read_to_string(workspace::root().join(RECORDED)).map_err(|error| {
        format!("{RECORDED}: {error}; `cargo xtask instructions --bless` writes it")
    })?;
    let mut lines = text.lines();
    let compiler = lines.next().unwrap_or_default().to_owned();
    let figures = lines.filter_map(|line| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    });
    Ok((compiler, figures.collect()))
}

fn show(figures: &Figures, recorded: &Figures) {
    for (name, figure) in figures {
        let was = recorded.get(name).copied().unwrap_or(f64::NAN);
        println!("{name}: {figure:.1} instructions a line, {:+.1} %", percent(*figure, was));
    }
}

fn percent(figure: f64, was: f64) -> f64 {
    (figure / was - 1.0) * 100.0
}

/// # Errors
/// Names each path that is slower than recorded, or not recorded at all.
fn compare(figures: &Figures, recorded: &Figures) -> Result {
    let mut faults = Vec::new();
    for (name, figure) in figures {
        match recorded.get(name) {
            Some(was) if percent(*figure, *was) > TOLERANCE => {
                faults
                    .push(format!("{name} takes {figure:.1} instructions, recorded are {was:.1}"));
            }
            Some(_) => {}
            None => faults.push(format!("{name} is not recorded")),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn count() -> Result<Figures> {
    let mut figures = Figures::new();
    for (package, bench, path) in PATHS {
        let program = build(package, bench)?;
        let (few, many) =
            (callgrind(&program, path, ROUNDS.0)?, callgrind(&program, path, ROUNDS.1)?);
        let lines = many.lines.saturating_sub(few.lines).max(1);
        let figure = (many.instructions - few.instructions) / f64::from(lines);
        figures.insert(path.to_owned(), figure);
    }
    Ok(figures)
}

/// Builds for the first x86-64, so that the figures do not depend on who builds.
fn build(package: &str, bench: &str) -> Result<PathBuf> {
    build_bench(package, bench, |build| {
        build.arg("--target-dir").arg(workspace::target().join("baseline"));
        build.env("RUSTFLAGS", "-Ctarget-cpu=x86-64");
    })
}

struct Counted {
    instructions: f64,
    lines: u32,
}

fn callgrind(program: &Path, path: &str, rounds: u32) -> Result<Counted> {
    let log = workspace::target().join("callgrind.log");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(format!("--log-file={}", log.display()));
    valgrind.arg(program).args([path, &rounds.to_string()]).current_dir(workspace::root());
    let lines = output(&mut valgrind)?;
    let lines = lines.trim().parse().map_err(|_| format!("{lines:?} is no number of lines"))?;
    let said = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, count)| count.trim().parse().ok());
    let instructions = instructions.ok_or_else(|| format!("valgrind counted nothing:\n{said}"))?;
    Ok(Counted { instructions, lines })
}

fn rustc() -> Result<String> {
    let version = output(Command::new("rustc").arg("--version"))?;
    // Without the commit: distributions build their own.
    Ok(version.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(decode: f64) -> Figures {
        Figures::from([("decode".to_owned(), decode)])
    }

    #[test]
    fn more_than_the_tolerance_is_a_fault() {
        assert!(compare(&figures(104.9), &figures(100.0)).is_ok());
        assert!(compare(&figures(60.0), &figures(100.0)).is_ok());
        let fault = compare(&figures(105.2), &figures(100.0)).unwrap_err();
        assert_eq!(fault, "decode takes 105.2 instructions, recorded are 100.0");
    }

    #[test]
    fn a_path_that_is_not_recorded_is_a_fault() {
        assert_eq!(compare(&figures(1.0), &Figures::new()).unwrap_err(), "decode is not recorded");
    }
}
