//! `gpuev sim`: a machine with AMD GPUs where there is none.

mod story;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, Subcommand};
use gpuev_sim::run::{self, Privilege, Run};
use gpuev_sim::{FoundMachine, Kernel, Scenario};

use crate::exit::{Exit, Failure, Outcome};
use crate::source::SimOptions;
use story::Story;

/// Put any program on a simulated machine with AMD GPUs
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(Box<RunArgs>),
    /// List the machines that can be simulated as somebody found them
    Machines,
    /// List the scenarios and kernels that can be simulated
    Scenarios,
}

/// Run a program on a simulated machine: it sees its GPUs in /sys and /dev, and their events
///
/// Needs root or user namespaces. The program's exit code is passed on.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    machine: SimOptions,
    /// Let it happen once the program has subscribed to events with so many event files
    #[arg(long, value_name = "FILES", default_value = "0")]
    listeners: usize,
    /// Write each event before the program can see it, and at the end what became of them, as lines of JSON
    #[arg(long, value_name = "PATH")]
    truth: Option<PathBuf>,
    /// The driver takes the program for an unprivileged one: it sees its own processes only
    #[arg(long)]
    unprivileged: bool,
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        required = true,
        value_name = "PROGRAM",
        allow_hyphen_values = true
    )]
    program: Vec<OsString>,
}

pub(crate) fn run(args: &SimArgs) -> Outcome {
    match &args.what {
        What::Run(args) => run_program(args),
        What::Machines => list_machines(),
        What::Scenarios => list_scenarios(),
    }
}

fn list_scenarios() -> Outcome {
    let scenarios: Vec<_> = Scenario::names().collect();
    let kernels = Kernel::ALL.map(Kernel::name);
    let mut out = io::stdout().lock();
    writeln!(out, "scenarios: {}\nkernels:   {}", scenarios.join(" "), kernels.join(" "))?;
    Ok(Exit::Success)
}

/// Each with its name, how many GPUs KFD lists, and what it is.
fn list_machines() -> Outcome {
    let mut out = io::stdout().lock();
    let width = FoundMachine::ALL.iter().map(|one| one.name().len()).max().unwrap_or(0);
    writeln!(out, "{:width$}  GPUS  WHAT IT IS", "MACHINE")?;
    for machine in FoundMachine::ALL {
        let (name, gpus, about) = (machine.name(), machine.gpu_count(), machine.about());
        writeln!(out, "{name:width$}  {gpus:4}  {about}")?;
    }
    Ok(Exit::Success)
}

fn run_program(args: &RunArgs) -> Outcome {
    let spec = args.machine.spec().map_err(Failure::Usage)?;
    let sim = spec.build()?;
    let Some((program, rest)) = args.program.split_first() else {
        return Err(Failure::Usage("which program?".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(rest);
    let privilege = if args.unprivileged { Privilege::Unprivileged } else { Privilege::AsRoot };
    let story = Story::begin(&sim, spec.scenario, args.listeners, args.truth.as_deref())?;
    let status = Run::new(&sim).privilege(privilege).foreground(command);
    story.end()?;
    status.map(|status| Exit::Program(run::exit_code(status))).or_else(|error| {
        let failure = Failure::Program(error.to_string());
        let Some(code) = error.exec_code() else { return Err(failure) };
        failure.report();
        Ok(Exit::Program(code))
    })
}
