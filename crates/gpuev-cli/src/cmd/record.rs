//! `gpuev record`: what happens, kept.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Args;
use gpuev::DEFAULT_LIMIT;
use gpuev::process::Processes;
use gpuev_sim::run::exit_code;
use gpuev_store::{Progress, Recorder, Retention, Session, Writer, default_history};

use crate::args::{FilterArgs, SourceArgs, duration, size};
use crate::cmd::watch::{filter, start};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::signals::Ends;
use crate::source::Source;

/// The driver takes a process apart in a worker (`kfd_process_wq_release`), and tells of its end after it.
const LAST_EVENTS: Duration = Duration::from_millis(200);

/// Record what happens to a file, until Ctrl-C or a program's end
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The history to record to; what is there already is kept. Else ~/.local/state/gpuev/history.db, and
    /// /var/lib/gpuev/history.db as root
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after this time, e.g. 10s, 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Keep only this much of the past, e.g. 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Keep the file below this size, e.g. 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Run this program, record until it ends, and end as it does
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<std::ffi::OsString>,
}

pub(crate) fn run(args: &RecordArgs, source: &SourceArgs) -> Outcome {
    let source = Source::open(source)?;
    let ends = Ends::listen()?;
    let (monitor, subscription) = start(&args.filter, &source, DEFAULT_LIMIT)?;
    let gpus = monitor.gpus();
    let wanted = filter(&args.filter, gpus.iter().map(|gpu| gpu.id));
    let session = Session::of(&source.machine)
        .with_gpus(&gpus)
        .with_scope(&monitor.scope())
        .with_filter(wanted);
    let retention = Retention { max_age: args.max_age, max_bytes: args.max_size };
    let path = output(args.output.as_deref())?;
    let writer = Writer::open(&path, &session)?.with_retention(retention);
    let processes = Processes::of(&source.machine);
    let recorder = Recorder::start(writer, subscription, processes)?;
    let program = match Program::start(&args.program) {
        Ok(program) => program,
        Err(failure) => {
            // The history is left whole, and nothing beside it.
            drop(monitor);
            recorder.finish()?;
            return Err(failure);
        }
    };
    let feeding = source.begin()?;
    let (over, told) = mpsc::channel::<()>();
    let ends = match &program.0 {
        Some(child) => ends.passing_on_to(child.id())?,
        None => ends,
    };
    let ended = Arc::new(OnceLock::new());
    let status = Arc::clone(&ended);
    ends.call(
        args.duration,
        move || program.wait_or(&status, || feeding.finish()),
        move || {
            drop(monitor);
            drop(over);
        },
    )?;
    follow(&recorder, &told);
    let progress = recorder.finish()?;
    say(&summary(&progress, &path));
    Ok(ended.get().map_or(Exit::Success, |status| Exit::Program(exit_code(*status))))
}

/// Where to record. The folder of a history that nobody named is made.
fn output(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let path = default_history();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            gpuev::Error::io(format!("make the folder {}", folder.display()), error)
                .with_hint("name a file with -o")
        })?;
    }
    Ok(path)
}

/// The program whose run is recorded, if any.
struct Program(Option<Child>);

impl Program {
    fn start(words: &[std::ffi::OsString]) -> Result<Self, Failure> {
        let Some((name, arguments)) = words.split_first() else { return Ok(Self(None)) };
        let child = Command::new(name).args(arguments).spawn().map_err(|error| {
            let what = format!("start {}", name.to_string_lossy());
            gpuev::Error::io(what, error).with_hint("check its name and $PATH")
        })?;
        Ok(Self(Some(child)))
    }

    /// Waits for its end; without one, for that of the source.
    fn wait_or(self, ended: &OnceLock<ExitStatus>, finish: impl FnOnce()) {
        let Some(mut child) = self.0 else { return finish() };
        match child.wait() {
            Ok(status) => {
                let _set_once = ended.set(status);
            }
            Err(error) => say(&format!("cannot wait for the program: {error}")),
        }
        std::thread::sleep(LAST_EVENTS);
    }
}

/// Shows how far it is, once a second, until it is over.
fn follow(recorder: &Recorder, told: &Receiver<()>) {
    let is_terminal = io::stderr().is_terminal();
    let begun = Instant::now();
    let (mut last, mut log_held) = (Progress::default(), false);
    while told.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        if recorder.is_finished() {
            break;
        }
        let now = recorder.progress();
        if now.log_held && !log_held {
            say(
                "a reader of the history keeps a transaction open, so its log (-wal) grows: end that reader",
            );
        }
        log_held = now.log_held;
        if is_terminal {
            show(&now, now.events - last.events, begun.elapsed());
        }
        last = now;
    }
    if is_terminal {
        let _closed = io::stderr().write_all(b"\r\x1b[K");
    }
}

fn show(now: &Progress, per_second: u64, since: Duration) {
    let Progress { events, gaps, bytes, .. } = *now;
    let seconds = since.as_secs();
    let line = format!(
        "\r\x1b[K{seconds} s  {per_second} events/s  {events} events  {gaps} gaps  {:.1} MiB",
        mebibytes(bytes)
    );
    let _closed = io::stderr().write_all(line.as_bytes());
}

fn summary(progress: &Progress, path: &Path) -> String {
    let Progress { events, gaps, lost, bytes, .. } = *progress;
    let lost = if lost > 0 { format!(", {lost} events lost") } else { String::new() };
    let size = mebibytes(bytes);
    format!("{events} events, {gaps} gaps{lost} in {} ({size:.1} MiB)", path.display())
}

#[allow(clippy::cast_precision_loss)] // shown with one digit
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
