//! `gpuev yield` and `gpuev resume`: every gpuev of the machine releases the GPUs, and takes them back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use clap::Args;
use gpuev::{Error, ErrorKind};
use gpuev_agent::config::ControlSettings;
use gpuev_agent::control::runtime::{self, Found};
use gpuev_agent::control::{Client, Request, Response, RunningLease};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::duration;
use crate::exit::{Exit, Failure, Outcome, not_started, say};
use crate::signals::not_ignored;

/// A lease that nobody waits for is easily forgotten; a command takes as long as it takes.
const UNLESS_SAID: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));

/// A program that watches GPUs without being the agent has this long to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the agent is asked.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The agent's local socket
    #[arg(long, value_name = "PATH", env = "GPUEV_AGENT_CONTROL_SOCKET")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The path.
    pub(crate) fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| ControlSettings::default().socket)
    }
}

/// Have every gpuev of this machine release the GPUs: to unload the driver, or change partitions
///
/// It asks the agent, and gpuev watch and record: yours, and as root those of all users. With a command the GPUs are taken
/// back when it ends, however it ends, and its exit code is passed on. Without, they are taken back by gpuev resume, or
/// when the time is up.
#[derive(Debug, Args)]
pub(crate) struct YieldArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Take the GPUs back after this time; 10m, or 1h with a command, unless said
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// Run this command while the GPUs are released
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Have every gpuev of this machine take the GPUs back that gpuev yield had it release
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// The programs that hold GPUs and can be asked.
#[derive(Default)]
struct Holders {
    agent: Option<Client>,
    others: Vec<Other>,
}

/// `gpuev watch` or `record`.
struct Other {
    client: Client,
    uid: u32,
}

impl Holders {
    /// All that this user may ask.
    fn find(args: &SocketArgs) -> Result<Self, Failure> {
        let socket = args.path();
        let agent = Client::connect(&socket)?;
        let others: Vec<_> = runtime::find().into_iter().filter_map(Other::connect).collect();
        if agent.is_none() && others.is_empty() {
            say(&format!(
                "no agent runs at {} and no gpuev watches: nothing is held",
                socket.display()
            ));
        }
        Ok(Self { agent, others })
    }

    /// Asks all at once. The agent's answer, and what the others say.
    fn ask(&mut self, of_agent: &Request, of_others: &Request) -> (Option<Answer>, Vec<Answer>) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .others
                .iter_mut()
                .map(|other| scope.spawn(|| other.client.ask(of_others)))
                .collect();
            let agent = self.agent.as_mut().map(|agent| agent.ask(of_agent));
            (agent, asked.into_iter().filter_map(|answer| answer.join().ok()).collect())
        })
    }
}

/// What a program answered.
type Answer = gpuev::Result<Response>;

impl Other {
    /// None where nobody listens any more: what a killed program left is removed.
    fn connect(found: Found) -> Option<Self> {
        let Found { socket, uid } = found;
        match Client::connect(&socket) {
            Ok(Some(client)) => {
                client.answer_within(PATIENCE).ok()?;
                Some(Self { client, uid })
            }
            Ok(None) => {
                if uid == rustix::process::geteuid().as_raw() {
                    let _gone_already = std::fs::remove_file(&socket);
                }
                None
            }
            // It ends just now.
            Err(_) => None,
        }
    }
}

pub(crate) fn run(args: &YieldArgs) -> Outcome {
    let mut holders = Holders::find(&args.socket)?;
    let held = !args.command.is_empty();
    let length = args.length.unwrap_or(if held { UNLESS_SAID.1 } else { UNLESS_SAID.0 });
    let released = holders.release(&args.command, length)?;
    if !held && !released {
        return Ok(Exit::Failure);
    }
    // The leases are the connections': whatever ends this process ends them.
    let exit = args.command.split_first().map(|(name, rest)| run_command(name, rest));
    drop(holders);
    exit.unwrap_or(Ok(Exit::Success))
}

impl Holders {
    /// Has all release the GPUs and says what came of it; `false` where one has not.
    fn release(&mut self, command: &[OsString], length: Duration) -> Result<bool, Failure> {
        let (seconds, held) = (length.as_secs_f64(), !command.is_empty());
        let request = |who| Request::Yield { who, seconds, held };
        // What the command is, is nobody else's business.
        let (of_agent, of_others) = (request(who(command)), request(who(&[])));
        let own = rustix::process::geteuid().as_raw();
        let is_own = self.others.iter().all(|other| other.uid == own);
        let (agent, others) = self.ask(&of_agent, if is_own { &of_agent } else { &of_others });
        let mut longest: Option<f64> = None;
        let mut failures = Vec::new();
        if let Some(answer) = agent {
            longest = Some(took(&answer?)?);
        }
        for answer in others {
            match answer.map_err(Failure::Gpu).and_then(|answer| took(&answer)) {
                Ok(took) => longest = Some(longest.map_or(took, |longest| longest.max(took))),
                Err(failure) => failures.push(failure),
            }
        }
        failures.iter().for_each(Failure::report);
        if let Some(took) = longest.filter(|_| !held) {
            let length = in_words(length);
            say(&format!(
                "the GPUs are let go (in {took:.1} ms) for {length}; gpuev resume takes them back"
            ));
        }
        Ok(failures.is_empty())
    }
}

/// How long it took, in milliseconds.
fn took(response: &Response) -> Result<f64, Failure> {
    match response {
        Response::Yielded { took_ms, .. } => Ok(*took_ms),
        _ => Err(odd_answer()),
    }
}

/// What logs and other users are told.
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
    let mut signals = Signals::new(not_ignored(&[SIGINT, SIGQUIT, SIGTERM, SIGHUP]))
        .map_err(|error| Error::io("listen for signals", error))?;
    let spawned = Command::new(name).args(rest).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(not_started(name, &error)),
    };
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
    let mut holders = Holders::find(&args.socket)?;
    if holders.agent.is_none() && holders.others.is_empty() {
        return Ok(Exit::Success);
    }
    let (agent, others) = holders.ask(&Request::Resume {}, &Request::Resume {});
    let mut running = Vec::new();
    let mut taken_back = false;
    for answer in agent.into_iter().chain(others) {
        let Response::Leases { ended, running: left, .. } = answer? else {
            return Err(odd_answer());
        };
        taken_back |= ended > 0;
        running.extend(left);
    }
    // One lease of several programs is told once.
    running.sort_by(|one: &RunningLease, two| one.who.cmp(&two.who));
    running.dedup_by(|one, two| one.who == two.who);
    if running.is_empty() {
        say(if taken_back { "the GPUs are taken back" } else { "the GPUs were not let go" });
        return Ok(Exit::Success);
    }
    for RunningLease { who, left_s, .. } in &running {
        let left = in_words(Duration::from_secs_f64(left_s.max(0.0)));
        say(&format!("the GPUs are still let go for {who}, at most for {left}"));
    }
    Ok(Exit::Failure)
}

fn odd_answer() -> Failure {
    let what = "the answer is to another question";
    Failure::Gpu(
        Error::new(ErrorKind::Io, what).with_hint("are all of gpuev that run of one release?"),
    )
}

fn in_words(length: Duration) -> String {
    match length.as_secs() {
        0..120 => format!("{} s", length.as_secs()),
        120..7200 => format!("{} min", length.as_secs() / 60),
        hours => format!("{} h", hours / 3600),
    }
}
