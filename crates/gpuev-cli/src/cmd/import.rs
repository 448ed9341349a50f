//! `gpuev import`: a history of what others wrote.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use gpuev::time::Anchor;
use gpuev::{Bdf, GpuId};
use gpuev_store::import::{
    Assumed, ImportFormat, Imported, Importer, import_history, kind_of_file,
};
use gpuev_store::new_history;

use crate::args::{local_zone, moment, no_such};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::NewFile;

/// Make a history of what other programs wrote: gpuev's JSON lines, the ROCm runtime's profile, lines of the
/// driver in logs of syslog, journald, dmesg or containers, what amd-smi event prints
/// (docs/export-formats.md)
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What to read; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What is in it: ndjson, svm-profile (of `HSA_SVM_PROFILE`), driver or amd-smi; else each line is tried as all
    /// of them
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<ImportFormat>,
    /// The history to make; else a new file beside the default history
    #[arg(short, long, value_name = "RUN.DB")]
    output: Option<PathBuf>,
    /// Replace the history if it is there
    #[arg(long)]
    force: bool,
    /// Leave out lines that cannot be read, and count them
    #[arg(long)]
    lenient: bool,
    /// The PCI addresses of the GPUs, in the order of the indexes that the text has
    #[arg(long, value_name = "BDF", value_delimiter = ',')]
    gpus: Vec<Bdf>,
    /// The process of events that name none
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Only lines of this host: a log of several is imported one host at a time
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// When the machine was booted, e.g. 2026-11-22T08:00:00Z; else when this one was
    #[arg(long, value_name = "MOMENT")]
    booted: Option<String>,
}

fn format(text: &str) -> Result<ImportFormat, String> {
    ImportFormat::from_name(text)
        .ok_or_else(|| no_such("format", text, &ImportFormat::ALL.map(ImportFormat::name)))
}

pub(crate) fn run(args: &ImportArgs) -> Outcome {
    let assumed = assumed(args)?;
    let mut input = open(&args.file)?;
    let beginning = input.fill_buf().map_err(|error| unreadable(&args.file, error))?;
    if let Some(kind) = kind_of_file(beginning) {
        return Err(Failure::Usage(format!("{}: {kind}", args.file.display())));
    }
    let output = args.output.clone().map_or_else(|| new_history("import"), Ok)?;
    let history = NewFile::beside(&output, args.force)?;
    let name = args.file.display().to_string();
    let importer = match args.format {
        Some(format) => Importer::new(&name, input, format, assumed),
        None => Importer::detecting(&name, input, assumed),
    };
    let mut importer = importer.lenient(args.lenient);
    let imported = import_history(&mut importer, history.part())?;
    if imported.is_nothing() {
        return Err(Failure::Gpu(nothing(&name, &importer)));
    }
    history.finish()?;
    say(&summary(&output, &importer, imported));
    Ok(Exit::Success)
}

/// Why there is nothing to import.
fn nothing<R: BufRead>(name: &str, importer: &Importer<R>) -> gpuev::Error {
    let lines = importer.broken() + importer.ignored();
    let mut text = match lines {
        0 => format!("{name} is empty: nothing to import"),
        lines => format!("none of the {lines} lines of {name} is an event"),
    };
    if let Some(seems) = importer.seems() {
        text += &format!("; it seems to be {seems}");
    }
    if let Some(first) = importer.first_broken() {
        text += &format!(" (the first that was left out: {first})");
    }
    gpuev::Error::new(gpuev::ErrorKind::InvalidInput, text)
        .with_hint("docs/export-formats.md lists what can be imported")
}

fn summary<R: BufRead>(output: &Path, importer: &Importer<R>, imported: Imported) -> String {
    let Imported { events, gaps, .. } = imported;
    let unknown = match importer.unknown() {
        0 => String::new(),
        unknown => format!(" ({unknown} of unknown kinds)"),
    };
    let mut text = format!("{events} events{unknown} and {gaps} gaps in {}", output.display());
    let others = importer.ignored() - importer.parts();
    if others > 0 {
        text += &format!(", {others} lines of something else");
    }
    if let Some(first) = importer.first_broken() {
        text += &format!(", {} lines left out, the first: {first}", importer.broken());
    }
    if let Some(assumed) = importer.assumptions() {
        text += &format!("; {assumed}");
    }
    text
}

fn assumed(args: &ImportArgs) -> Result<Assumed, Failure> {
    let now = Anchor::now();
    let anchor = match &args.booted {
        None => now,
        Some(text) => Anchor { boot_ns: 0, unix_ns: moment("--booted", text, now, &local_zone())? },
    };
    let mut assumed = Assumed::by(anchor);
    assumed.pid = args.pid;
    assumed.host.clone_from(&args.host);
    if let Some(written) = written_unix_ns(&args.file) {
        assumed.written_unix_ns = written;
    }
    // KFD's numbers are not known; none is 0, which is system memory.
    let gpu = |(index, &bdf)| GpuId {
        index,
        bdf,
        unique_id: None,
        partition: 0,
        kfd_id: index.saturating_add(1),
    };
    assumed.gpus = (0..).zip(&args.gpus).map(gpu).collect();
    Ok(assumed)
}

/// When the file was last written.
fn written_unix_ns(path: &Path) -> Option<i64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok()
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    Ok(Box::new(BufReader::with_capacity(64 * 1024, file)))
}

fn unreadable(path: &Path, error: io::Error) -> gpuev::Error {
    gpuev::Error::io(format!("read {}", path.display()), error)
}
