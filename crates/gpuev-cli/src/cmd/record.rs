//! `gpuev record`: what happens, kept.

mod background;
mod supervisor;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use gpuev::DEFAULT_LIMIT;
use gpuev::process::Processes;
use gpuev_sim::run::exit_code;
use gpuev_store::{Progress, Recorder, Retention, Session, Writer, default_history_to_record};

use crate::args::{FilterArgs, SourceArgs, duration, size};
use crate::cmd::watch::{filter, start};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::signals::Ends;
use crate::source::Source;
use crate::watching::Watching;
use background::Background;
use supervisor::Supervisor;

/// Record what happens to a file, until Ctrl-C or a program's end
///
/// With a program, gpuev starts it, records until it ends, and ends with its exit code. The program runs whatever
/// becomes of the recording: a recording that fails is told once on standard error.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The history to record to; what is there already is kept. Else ~/.local/state/gpuev/history-HOST.db (as
    /// root /var/lib/gpuev/history.db), and a file of its own for each recorder while another one has that
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// End the recording after this time, e.g. 10s, 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Keep only this much of the past, e.g. 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Keep the file below this size, e.g. 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Do not start the program where it cannot be recorded
    #[arg(long, requires = "program")]
    strict: bool,
    /// Run this program, record until it ends, and end with its exit code
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn run(args: &RecordArgs, source: &SourceArgs) -> Outcome {
    if args.program.is_empty() { record(args, source) } else { supervise(args, source) }
}

/// A recording that has begun.
struct Started {
    monitor: Watching,
    recorder: Recorder,
    source: Source,
    path: PathBuf,
}

fn start_recording(args: &RecordArgs, source: &SourceArgs) -> Result<Started, Failure> {
    let source = Source::open(source)?;
    let (monitor, subscription) = start(&args.filter, &source, DEFAULT_LIMIT)?;
    let gpus = monitor.gpus();
    let wanted = filter(&args.filter, gpus.iter().map(|gpu| gpu.id));
    let session = Session::of(&source.machine)
        .with_gpus(&gpus)
        .with_scope(&monitor.scope())
        .with_filter(wanted);
    let retention = Retention { max_age: args.max_age, max_bytes: args.max_size };
    let writer = open(args.output.as_deref(), &session)?.with_retention(retention);
    let path = writer.path().to_owned();
    let processes = Processes::of(&source.machine);
    let recorder = Recorder::start(writer, subscription, processes)?;
    Ok(Started { monitor, recorder, source, path })
}

/// Records until the user, the clock or the source ends it.
fn record(args: &RecordArgs, source: &SourceArgs) -> Outcome {
    let ends = Ends::listen()?;
    let Started { monitor, recorder, source, path } = start_recording(args, source)?;
    let feeding = source.begin()?;
    let (over, told) = mpsc::channel::<()>();
    ends.call(
        args.duration,
        move || feeding.finish(),
        move || {
            drop(monitor);
            drop(over);
        },
    )?;
    follow(&recorder, &told);
    let progress = recorder.finish()?;
    say(&summary(&progress, &path));
    Ok(Exit::Success)
}

/// Runs the program, and records what happens meanwhile as far as that is possible.
fn supervise(args: &RecordArgs, source: &SourceArgs) -> Outcome {
    let supervisor = Supervisor::listen()?;
    let name = args.program.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let run = || supervisor.run(&args.program);
    let ran = match Background::begin(args, source) {
        Ok(recording) => recording.beside(&name, run),
        Err(failure) if args.strict => return Err(failure),
        Err(failure) => {
            say(&format!("{name} runs unrecorded: {failure}"));
            run()
        }
    };
    match ran {
        Ok(status) => Ok(Exit::Program(exit_code(status))),
        Err(not_started) => {
            say(&not_started.failure.to_string());
            Ok(Exit::Program(not_started.code))
        }
    }
}

/// The history to record to: the one that was named, else the user's, else one of its own while another recorder has
/// that.
fn open(named: Option<&Path>, session: &Session) -> Result<Writer, Failure> {
    if let Some(named) = named {
        return Ok(Writer::open(named, session)?);
    }
    let mut last = None;
    for path in default_history_to_record()? {
        match Writer::open(&path, session) {
            Ok(writer) => return Ok(writer),
            Err(error) if error.kind() == gpuev::ErrorKind::Busy => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| Failure::Usage("name a file with -o".to_owned()), Failure::Gpu))
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
