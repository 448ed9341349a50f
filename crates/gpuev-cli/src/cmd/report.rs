//! `gpuev report`: what the events of a history came to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gpuev::time::Anchor;
use gpuev_store::report::Options;
use gpuev_store::{History, Query, default_history_to_read};

use crate::args::duration;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Tell what the events of a history came to: counts, rates, durations, what went wrong and where
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The history; else the one that `gpuev record` writes to by itself
    #[arg(value_name = "RUN.DB")]
    history: Option<PathBuf>,
    /// Only what happened in this time before now, e.g. 10m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    last: Option<Duration>,
    /// One JSON object (docs/report-schema.md), for programs
    #[arg(long)]
    json: bool,
    /// Write one HTML page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Entries of each list of the most frequent
    #[arg(long, value_name = "N", default_value_t = Options::default().top)]
    top: usize,
}

pub(crate) fn run(args: &ReportArgs) -> Outcome {
    let mut query = Query::new();
    if let Some(last) = args.last {
        let length = i64::try_from(last.as_nanos()).unwrap_or(i64::MAX);
        query = query.from_unix_ns(Anchor::now().unix_ns.saturating_sub(length));
    }
    let mut options = Options::default();
    options.top = args.top;
    let path = args.history.clone().unwrap_or_else(default_history_to_read);
    let report = History::open(&path)?.report(&query, options)?;
    if let Some(path) = &args.html {
        write_page(path, &report.html())?;
    }
    let text = match (args.json, &args.html) {
        (true, _) => report.json() + "\n",
        (false, None) => report.text(),
        (false, Some(_)) => return Ok(Exit::Success),
    };
    output::standard().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(path, page)
        .map_err(|error| Failure::Gpu(gpuev::Error::io(format!("write {}", path.display()), error)))
}
