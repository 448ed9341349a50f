//! `gpuev export`: a history for other programs.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::Args;
use gpuev::Filter;
use gpuev_store::export::{ExportFormat, Exporter, Written};
use gpuev_store::{Histories, Query};

use crate::args::{FilterArgs, HistoryArgs, PeriodArgs, ZoneArgs, no_such};
use crate::cmd::replay::chosen;
use crate::cmd::watch::filter;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::NewFile;

/// Write a history for other programs: JSON lines, CSV, Parquet, a trace for Perfetto
/// (docs/export-formats.md)
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// What to write; else what the name of the output ends with
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<ExportFormat>,
    /// Where to write it; else, and with -, to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output if it is there
    #[arg(long, requires = "output")]
    force: bool,
    /// Write events and gaps only, not the spans that they come to
    #[arg(long)]
    no_spans: bool,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

fn format(text: &str) -> Result<ExportFormat, String> {
    ExportFormat::from_name(text).ok_or_else(|| no_such("format", text, &names()))
}

fn names() -> Vec<&'static str> {
    ExportFormat::ALL.iter().map(|format| format.name()).collect()
}

/// What is written, and how.
struct Export {
    history: Histories,
    query: Query,
    wanted: Filter,
    format: ExportFormat,
    spans: bool,
}

pub(crate) fn run(args: &ExportArgs) -> Outcome {
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let format = built_in(chosen_format(args.format, output)?)?;
    let query = args.period.query(&args.zone.zone())?;
    let history = args.history.open()?;
    let gpus = chosen(&history, &args.filter.gpu)?;
    let wanted = filter(&args.filter, gpus);
    let export = Export { history, query, wanted, format, spans: !args.no_spans };
    match output {
        None if format.is_binary() && io::stdout().is_terminal() => {
            let text = format!("{} is not for a terminal: name a file with -o", format.name());
            Err(Failure::Usage(text))
        }
        None => export.to(io::stdout()).map(|_| Exit::Success),
        Some(path) => {
            let Written { events, gaps, spans, .. } = export.to_file(path, args.force)?;
            say(&format!("{events} events, {gaps} gaps and {spans} spans in {}", path.display()));
            Ok(Exit::Success)
        }
    }
}

/// The format that was asked for, else that of the output's name, else JSON lines to standard output.
fn chosen_format(
    asked: Option<ExportFormat>,
    output: Option<&Path>,
) -> Result<ExportFormat, Failure> {
    let Some(path) = output.filter(|_| asked.is_none()) else {
        return Ok(asked.unwrap_or(ExportFormat::Ndjson));
    };
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(ExportFormat::from_file_name).ok_or_else(|| {
        let names = names().join(", ");
        Failure::Usage(format!("{}: which format? --format is one of {names}", path.display()))
    })
}

fn built_in(format: ExportFormat) -> Result<ExportFormat, Failure> {
    let Some(feature) = format.missing_feature() else { return Ok(format) };
    let name = format.name();
    Err(Failure::Usage(format!(
        "this gpuev is built without {name}: build it with `cargo build --release --features {feature}`, or \
         export csv, which has the same columns"
    )))
}

impl Export {
    fn to_file(&self, path: &Path, force: bool) -> Result<Written, Failure> {
        let is_device = |file: std::fs::FileType| {
            file.is_fifo() || file.is_char_device() || file.is_block_device() || file.is_socket()
        };
        if std::fs::metadata(path).is_ok_and(|metadata| is_device(metadata.file_type())) {
            let open = File::options().write(true).open(path);
            let out =
                open.map_err(|error| gpuev::Error::io(format!("write {}", path.display()), error))?;
            return self.to(out);
        }
        let file = NewFile::beside(path, force)?;
        let written = self.to(file.create()?).map_err(|failure| match failure {
            Failure::Output(error) => file.failed(error),
            failure => failure,
        })?;
        file.finish()?;
        Ok(written)
    }

    fn to(&self, out: impl Write + Send) -> Result<Written, Failure> {
        let mut exporter = Exporter::new(self.format, out)?.only(self.wanted.clone());
        if !self.spans {
            exporter = exporter.without_spans();
        }
        let mut entries = self.history.entries(&self.query);
        while let Some(entry) = entries.next_entry()? {
            exporter.entry(&entry)?;
        }
        let (_out, written) = exporter.finish()?;
        Ok(written)
    }
}
