//! What developers and CI run. `cargo xtask` lists the tasks.

#![forbid(unsafe_code)]

mod process;
mod report;
mod task_bench;
mod task_deny;
mod task_fuzz;
mod task_instructions;
mod task_package;
mod task_packages;
mod task_python;
mod task_test;
mod task_tidy;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

/// What a task gives: an error is told in full and makes the program fail.
type Result<T = ()> = std::result::Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask TASK

  test [STEP…]            install what tests need, then run them all (or the steps named)
  tidy [FOLDER]           check the repository's own rules
  bench [SUITE…]          measure everything, or the suites named, and print one table
  fuzz [SECONDS [TARGET…]]  run the fuzz targets, a minute each by default; needs nightly
  package [deb] [static]  make the Debian package and the self-contained program
  instructions [--bless]  count the decoder's instructions against the recorded figures; needs valgrind
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = arguments.split_first() else { return usage() };
    let done = match task.as_str() {
        "test" => task_test::run_steps(rest),
        "tidy" => task_tidy::run(rest),
        "bench" => task_bench::run(rest),
        "fuzz" => task_fuzz::run(rest),
        "instructions" => task_instructions::run(rest),
        "package" => task_package::run(rest),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
