//! `gpuev rules`: what is worth an alert, checked, shown, and tried out on a recording.

mod test;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use gpuev_agent::rule::RuleSet;

use crate::exit::{Exit, Failure, Outcome, say};

/// Check, show and try out the rules of alerts (docs/rules.md)
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Say what is wrong with rule files, with line and column
    Check {
        /// The rule files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show the rules in force as a rule file, with every default written out
    Show {
        #[command(flatten)]
        rules: RuleArgs,
        /// Their names and severities only
        #[arg(long)]
        names: bool,
    },
    Test(test::TestArgs),
}

/// Which rules.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Lay this rule file over the rules that come with the program; may be repeated
    #[arg(long = "rules", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Without the rules that come with the program
    #[arg(long)]
    no_builtin: bool,
}

impl RuleArgs {
    fn load(&self) -> Result<RuleSet, Failure> {
        let first = if self.no_builtin { RuleSet::default() } else { RuleSet::builtin() };
        let read = |path: &PathBuf| RuleSet::read(path);
        let files: Result<Vec<RuleSet>, _> = self.files.iter().map(read).collect();
        let files = files.map_err(|problems| Failure::Usage(problems.to_string()))?;
        Ok(files.into_iter().fold(first, RuleSet::with))
    }
}

pub(crate) fn run(args: &RulesArgs) -> Outcome {
    match &args.command {
        RulesCommand::Check { files } => check(files),
        RulesCommand::Show { rules, names } => show(&rules.load()?, *names),
        RulesCommand::Test(args) => test::run(args),
    }
}

/// Every file is looked at: who mends one wants to know of the others.
fn check(files: &[PathBuf]) -> Outcome {
    let mut exit = Exit::Success;
    for path in files {
        match RuleSet::read(path) {
            Ok(rules) => {
                writeln!(
                    io::stdout(),
                    "{}: {} rules, all right",
                    path.display(),
                    rules.iter().len()
                )?;
            }
            Err(problems) => {
                for problem in &problems.0 {
                    say(&problem.to_string());
                }
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

fn show(rules: &RuleSet, names: bool) -> Outcome {
    let mut out = io::stdout().lock();
    if !names {
        out.write_all(rules.to_toml().as_bytes())?;
        return Ok(Exit::Success);
    }
    for rule in rules.iter() {
        writeln!(out, "{:8}  {}", rule.severity().name(), rule.name())?;
    }
    Ok(Exit::Success)
}
