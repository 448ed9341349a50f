//! `gpuev yield` and `gpuev resume`: the agent lets go of the GPUs, and takes them back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use clap::Args;
use gpuev::{Error, ErrorKind};
use gpuev_agent::config::ControlSettings;
use gpuev_agent::control::{Client, Request, Response, RunningLease};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::duration;
use crate::exit::{Exit, Failure, Outcome, say};

/// A lease that nobody waits for is easily forgotten; a command takes as long as it takes.
const UNLESS_SAID: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));

/// Where the agent is asked.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The agent's local socket
    #[arg(long, value_name = "PATH", env = "GPUEV_AGENT_CONTROL_SOCKET")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    fn connect(&self) -> Result<Option<Client>, Failure> {
        let socket = self.socket.clone().unwrap_or_else(|| ControlSettings::default().socket);
        let client = Client::connect(&socket)?;
        if client.is_none() {
            say(&format!("no agent runs at {}: it has nothing to let go of", socket.display()));
        }
        Ok(client)
    }
}

/// Have the agent let go of every GPU: to unload the driver, or change partitions
///
/// With a command the GPUs are taken back when it ends, however it ends, and its exit code is passed on. Without,
/// they are taken back by gpuev resume, or when the time is up.
#[derive(Debug, Args)]
pub(crate) struct YieldArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Take the GPUs back after this time; 10m, or 1h with a command, unless said
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// Run this command while the GPUs are let go
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Have the agent take the GPUs back that gpuev yield let go
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(args: &YieldArgs) -> Outcome {
    let mut client = args.socket.connect()?;
    let held = !args.command.is_empty();
    let length = args.length.unwrap_or(if held { UNLESS_SAID.1 } else { UNLESS_SAID.0 });
    if let Some(client) = &mut client {
        let request =
            Request::Yield { who: who(&args.command), seconds: length.as_secs_f64(), held };
        let Response::Yielded { took_ms, .. } = client.ask(&request)? else {
            return Err(odd_answer());
        };
        if !held {
            say(&format!(
                "the GPUs are let go (in {took_ms:.1} ms) for {}; gpuev resume takes them back",
                in_words(length)
            ));
        }
    }
    // The lease is the connection's: whatever ends this process ends it.
    let exit = args.command.split_first().map(|(name, rest)| run_command(name, rest));
    drop(client);
    exit.unwrap_or(Ok(Exit::Success))
}

/// What the agent's log and other users are told.
fn who(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let pid = std::process::id();
    match &words[..] {
        [] => format!("gpuev yield (pid {pid})"),
        words => format!("{} (pid {pid})", words.join(" ")),
    }
}

/// Ctrl-C is for the command to heed, as in a shell; other ends are passed on to it.
fn run_command(name: &OsString, rest: &[OsString]) -> Outcome {
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])
        .map_err(|error| Error::io("listen for signals", error))?;
    let failed = |error| {
        let what = format!("start {}", name.to_string_lossy());
        Error::io(what, error).with_hint("check its name and $PATH")
    };
    let mut child = Command::new(name).args(rest).spawn().map_err(failed)?;
    let (pid, handle) = (Pid::from_child(&child), signals.handle());
    let forwarding = std::thread::Builder::new()
        .name("gpuev-signals".to_owned())
        .spawn(move || forward(&mut signals, pid))
        .map_err(|error| Error::io("start a thread", error));
    let ended = wait(&mut child);
    // Nobody forwards to a number that may already be another process's.
    handle.close();
    let _panicked = forwarding?.join();
    ended
}

fn forward(signals: &mut Signals, command: Pid) {
    for signal in signals.forever() {
        let signal = match signal {
            SIGTERM => Signal::TERM,
            SIGHUP => Signal::HUP,
            _ => continue,
        };
        let _ended = kill_process(command, signal);
    }
}

fn wait(child: &mut Child) -> Outcome {
    let status = child.wait().map_err(|error| Error::io("wait for the command", error))?;
    Ok(Exit::Program(gpuev_sim::run::exit_code(status)))
}

pub(crate) fn resume(args: &ResumeArgs) -> Outcome {
    let Some(mut client) = args.socket.connect()? else { return Ok(Exit::Success) };
    let Response::Leases { ended, running, .. } = client.ask(&Request::Resume {})? else {
        return Err(odd_answer());
    };
    if running.is_empty() {
        say(if ended > 0 { "the GPUs are taken back" } else { "the GPUs were not let go" });
        return Ok(Exit::Success);
    }
    for RunningLease { who, left_s, .. } in &running {
        let left = in_words(Duration::from_secs_f64(left_s.max(0.0)));
        say(&format!("the GPUs are still let go for {who}, at most for {left}"));
    }
    Ok(Exit::Failure)
}

fn odd_answer() -> Failure {
    let what = "the agent's answer is to another question";
    Failure::Gpu(
        Error::new(ErrorKind::Io, what).with_hint("are gpuev and the agent of one release?"),
    )
}

fn in_words(length: Duration) -> String {
    match length.as_secs() {
        0..120 => format!("{} s", length.as_secs()),
        120..7200 => format!("{} min", length.as_secs() / 60),
        hours => format!("{} h", hours / 3600),
    }
}
