//! The program `gpuev`.

#![forbid(unsafe_code)]

mod args;
mod cmd;
mod exit;
mod output;
mod render;
mod signals;
mod source;
mod watching;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> std::process::ExitCode {
    // As gpuev watch starts it each time: knowing all arguments would take longer than what it does.
    if std::env::args_os().skip(1).eq(["keeper"]) {
        return end(cmd::keeper::run(&cmd::keeper::KeeperArgs::default()));
    }
    let cli = Cli::parse();
    let result = match cli.command {
        Command::List(args) => cmd::list::run(&args, &args.source),
        Command::Watch(args) => cmd::watch::run(&args, &args.source),
        Command::Record(args) => cmd::record::run(&args, &args.source),
        Command::Replay(args) => cmd::replay::run(&args),
        Command::Agent(args) => cmd::agent::run(&args, &args.source),
        Command::Doctor(args) => cmd::doctor::run(&args, &args.source),
        Command::Report(args) => cmd::report::run(&args),
        Command::Export(args) => cmd::export::run(&args),
        Command::Import(args) => cmd::import::run(&args),
        Command::Rules(args) => cmd::rules::run(&args),
        Command::Sim(args) => cmd::sim::run(&args),
        Command::Generate(args) => cmd::generate::run(&args),
        Command::Status(args) => cmd::operate::status(&args),
        Command::Alerts(args) => cmd::operate::alerts(&args),
        Command::Ack(args) => cmd::operate::acknowledge(&args),
        Command::Silence(args) => cmd::operate::silence(&args),
        Command::Yield(args) => cmd::yielding::run(&args),
        Command::Resume(args) => cmd::yielding::resume(&args),
        Command::Keeper(args) => cmd::keeper::run(&args),
    };
    end(result)
}

fn end(outcome: exit::Outcome) -> std::process::ExitCode {
    let exit = outcome.unwrap_or_else(|failure| {
        failure.report();
        failure.exit()
    });
    exit.into()
}
