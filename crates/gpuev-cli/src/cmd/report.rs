//! `gpuev report`: what the events of a history came to.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gpuev::time::Anchor;
use gpuev_store::Zone;
use gpuev_store::report::{Layout, Options};

use crate::args::{FilterArgs, HistoryArgs, PeriodArgs, ZoneArgs, duration};
use crate::cmd::replay::chosen;
use crate::cmd::watch::filter;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Report what the events of a history came to: counts, rates, durations, what went wrong and where
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Only what happened in this time before now, e.g. 10m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["from", "to"])]
    last: Option<Duration>,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object (docs/report-schema.md), for programs
    #[arg(long)]
    json: bool,
    /// Write one HTML page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Entries of each list of the most frequent
    #[arg(long, value_name = "N", default_value_t = Options::default().top)]
    top: usize,
    /// All columns, however wide; else as many as the terminal has room for, and 80 characters ($COLUMNS) where the
    /// output is none
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    #[command(flatten)]
    zone: ZoneArgs,
}

pub(crate) fn run(args: &ReportArgs) -> Outcome {
    let zone = args.zone.zone();
    let mut query = args.period.query(&zone)?;
    if let Some(last) = args.last {
        let length = i64::try_from(last.as_nanos()).unwrap_or(i64::MAX);
        query = query.from_unix_ns(Anchor::now().unix_ns.saturating_sub(length));
    }
    let mut options = Options::default();
    options.top = args.top;
    let history = args.history.open()?;
    let gpus = chosen(&history, &args.filter.gpu)?;
    let query = query.filter(filter(&args.filter, gpus));
    let report = history.report(&query, options)?;
    if let Some(path) = &args.html {
        write_page(path, &report.html_in(&zone))?;
    }
    let text = match (args.json, &args.html) {
        (true, _) => report.json() + "\n",
        (false, None) => report.text_in(&layout(zone, args.wide)),
        (false, Some(_)) => return Ok(Exit::Success),
    };
    output::standard().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

/// As wide as the terminal. Where the output is none: as `$COLUMNS` says, else the narrowest that all read.
pub(crate) fn layout(zone: Zone, wide: bool) -> Layout {
    if wide {
        return Layout::wide(zone);
    }
    let out = io::stdout();
    let terminal = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let width = match terminal {
        Some(size) if size.ws_col > 0 => Some(usize::from(size.ws_col)),
        _ => columns(),
    };
    Layout::of_width(zone, width.unwrap_or(Layout::NARROWEST))
}

fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(path, page)
        .map_err(|error| Failure::Gpu(gpuev::Error::io(format!("write {}", path.display()), error)))
}
