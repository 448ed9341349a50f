//! A program that is run for each message, with its record on standard input. No shell.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gpuev::message::Printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

use super::message::Message;
use super::outbox::OutboxSettings;
use super::people::{MOST, as_one};
use super::settings::{Context, SinkSettings};
use super::{Failure, Filter, Order, Sink};
use crate::quantity::Period;

/// What is read of the program's output; the rest is thrown away.
const OUTPUT_LIMIT: u64 = 4096;
/// How long to wait for the end of its output once it has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// `[sinks.exec.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSettings {
    /// The program's path and its arguments.
    pub command: Vec<String>,
    /// After so long it is killed, with all that it started.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// The folder in which it runs.
    #[serde(default = "folder")]
    pub folder: PathBuf,
    /// What it gets. Unset: alerts that should wake somebody.
    #[serde(default)]
    pub send: Filter,
    /// How messages wait. They are kept on disk, too, unless `queue.spool` says otherwise.
    #[serde(default)]
    pub queue: OutboxSettings,
}

const fn timeout() -> Period {
    Period::from_secs(30)
}

fn folder() -> PathBuf {
    "/".into()
}

impl SinkSettings for ExecSettings {
    const KIND: &'static str = "exec";
    const PROMISES: bool = true;

    fn defaults() -> Filter {
        Filter::of_alerts()
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String> {
        let program = self.command.first().map(String::as_str).unwrap_or_default();
        if !program.starts_with('/') {
            return Err("`command` must begin with the program's whole path".to_owned());
        }
        Ok(Box::new(Exec { settings: self.clone(), host: context.host.clone() }))
    }
}

struct Exec {
    settings: ExecSettings,
    host: String,
}

impl Sink for Exec {
    fn order(&self) -> Order {
        Order::People
    }

    fn batch(&self) -> usize {
        MOST
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        if let Some(message) = &as_one(batch) {
            self.run(message)?;
        }
        Ok(0)
    }
}

impl Exec {
    /// Nothing of the agent's environment but the path, and what the message is.
    fn command(&self, message: &Message) -> Command {
        let mut command = Command::new(&self.settings.command[0]);
        command.args(&self.settings.command[1..]).current_dir(&self.settings.folder);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("GPUEV_ID", &*message.id).env("GPUEV_HOST", &self.host);
        command.env("GPUEV_RECORD", message.kind.name());
        command.env("GPUEV_SEVERITY", message.severity.name());
        if let Some(alert) = message.alert() {
            command.env("GPUEV_RULE", alert.rule).env("GPUEV_STATE", alert.state.name());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        command
    }

    /// Errors name the program and not its arguments, which may be secrets.
    fn run(&self, message: &Message) -> Result<(), Failure> {
        let program = &self.settings.command[0];
        let mut child = self.command(message).spawn().map_err(|error| {
            Failure::unreachable(format!("{program}: cannot be started: {error}"))
        })?;
        let said = talk(&mut child, &message.json);
        let status = wait(&mut child, self.settings.timeout.0);
        // Who left the group may still hold the pipes.
        let said = said.recv_timeout(DRAIN).unwrap_or_default();
        let error = match status {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => format!("{}: {}", ended(status), Printable(said.trim().as_bytes())),
            Ok(None) => format!("did not end within {} and was killed", self.settings.timeout),
            Err(error) => {
                return Err(Failure::unreachable(format!(
                    "{program}: cannot be waited for: {error}"
                )));
            }
        };
        Err(Failure::failed(format!("{program}: {error}")))
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Gives it the record and collects what it says, each in a thread: a program that reads or writes nothing must
/// not block.
fn talk(child: &mut Child, json: &str) -> mpsc::Receiver<String> {
    let (send, said) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        let line = format!("{json}\n");
        // It may not want to know: then the pipe breaks.
        thread::spawn(move || stdin.write_all(line.as_bytes()));
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let rest = thread::spawn(move || stdout.map(drain));
        let errors = stderr.map(drain).unwrap_or_default();
        let output = rest.join().ok().flatten().unwrap_or_default();
        let _nobody_asks = send.send(if errors.is_empty() { output } else { errors });
    });
    said
}

/// The beginning of what comes; all of it is read, so that nobody waits for a full pipe.
fn drain(mut from: impl Read) -> String {
    let mut beginning = Vec::new();
    let _broken = from.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut beginning);
    let _broken = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&beginning).into_owned()
}

/// Waits until it ends, at most for `patience`, and ends its whole group: what it started in the background
/// would hold its pipes. No status: it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let ended = wait_for_end(pid, patience);
    // It is not yet waited for, so that its number is still its own.
    let _gone = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

fn wait_for_end(pid: Pid, patience: Duration) -> io::Result<bool> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
