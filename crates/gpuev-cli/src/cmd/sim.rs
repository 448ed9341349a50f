//! `gpuev sim`: a machine with AMD GPUs where there is none.

mod story;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, Subcommand};
use gpuev_sim::run::{self, Privilege, Run};
use gpuev_sim::{Kernel, Scenario};

use crate::exit::{Exit, Failure, Outcome};
use crate::source::SimSpec;
use story::Story;

/// Put any program on a simulated machine with AMD GPUs
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(RunArgs),
    /// List the scenarios and kernels that can be simulated
    Scenarios,
}

/// Run a program on a simulated machine: it sees its GPUs in /sys and /dev, and their events
///
/// Needs root or user namespaces. The program's exit code is passed on.
#[derive(Debug, Args)]
struct RunArgs {
    /// How many GPUs
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(0..=64))]
    gpus: u8,
    /// Which kernel's driver; see gpuev sim scenarios
    #[arg(long, default_value = Kernel::default().name())]
    kernel: String,
    /// What happens on it; see gpuev sim scenarios
    #[arg(long, default_value = "mixed")]
    scenario: String,
    /// Events a second; the scenario's own pace if not given
    #[arg(long)]
    rate: Option<u64>,
    /// How many events; no end if not given
    #[arg(long)]
    count: Option<u64>,
    /// Let it happen once the program has subscribed to events with so many event files
    #[arg(long, value_name = "FILES", default_value = "0")]
    listeners: usize,
    /// Write each event before the program can see it, and at the end what became of them, as lines of JSON
    #[arg(long, value_name = "PATH")]
    truth: Option<PathBuf>,
    /// Another seed tells the same kind of story otherwise
    #[arg(long)]
    seed: Option<u64>,
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

fn run_program(args: &RunArgs) -> Outcome {
    let spec = args.spec().map_err(Failure::Usage)?;
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
    status
        .map(|status| Exit::Program(run::exit_code(status)))
        .map_err(|error| Failure::Program(error.to_string()))
}

impl RunArgs {
    fn spec(&self) -> Result<SimSpec, String> {
        let Self { gpus, kernel, scenario, .. } = self;
        let mut words = format!("{scenario},gpus={gpus},kernel={kernel}");
        for (key, value) in [("rate", self.rate), ("seed", self.seed), ("count", self.count)] {
            if let Some(value) = value {
                words += &format!(",{key}={value}");
            }
        }
        SimSpec::parse(&words)
    }
}
