//! `gpuev import`: a history of what others wrote.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use gpuev::time::Anchor;
use gpuev::{Bdf, GpuId};
use gpuev_store::import::{Assumed, ImportFormat, Imported, Importer, import_history};

use crate::args::{moment, no_such};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::NewFile;

/// Make a history of what other programs wrote: our own JSON lines, the ROCm runtime's profile, lines of the
/// driver in logs (docs/export-formats.md)
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What to read; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What is in it: ndjson, svm-profile (of `HSA_SVM_PROFILE`) or driver; else what it begins with
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<ImportFormat>,
    /// The history to make
    #[arg(short, long, value_name = "RUN.DB")]
    output: PathBuf,
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
    if beginning.starts_with(b"SQLite format 3\0") {
        let text = format!("{}: no text, but maybe a history already", args.file.display());
        return Err(Failure::Usage(text));
    }
    let format = args.format.unwrap_or_else(|| ImportFormat::of_text(beginning));
    let history = NewFile::beside(&args.output, args.force)?;
    let name = args.file.display().to_string();
    let mut importer = Importer::new(&name, input, format, assumed).lenient(args.lenient);
    let imported = import_history(&mut importer, history.part())?;
    history.finish()?;
    say(&summary(args, &importer, imported));
    Ok(Exit::Success)
}

fn summary<R: BufRead>(args: &ImportArgs, importer: &Importer<R>, imported: Imported) -> String {
    let Imported { events, gaps, .. } = imported;
    let mut text = format!("{events} events and {gaps} gaps in {}", args.output.display());
    if importer.ignored() > 0 {
        text += &format!(", {} lines of something else", importer.ignored());
    }
    if let Some(first) = importer.first_broken() {
        text += &format!(", {} lines left out, the first: {first}", importer.broken());
    }
    text
}

fn assumed(args: &ImportArgs) -> Result<Assumed, Failure> {
    let now = Anchor::now();
    let anchor = match &args.booted {
        None => now,
        Some(text) => Anchor { boot_ns: 0, unix_ns: moment("--booted", text, now)? },
    };
    let mut assumed = Assumed::by(anchor);
    assumed.pid = args.pid;
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
