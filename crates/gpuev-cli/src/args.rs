//! What the program can be asked.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use gpuev::time::Anchor;
use gpuev::{EventType, Severity};
use gpuev_agent::problem::nearest;
use gpuev_store::{Histories, Query, Zone, unix_ns_in};

use crate::cmd;
use crate::exit::{Failure, say};

/// What happens on AMD GPUs, as it happens: memory faults, throttling, resets, page faults, migrations,
/// queue evictions, process starts and ends. Straight from the Linux kernel's amdgpu driver.
#[derive(Debug, Parser)]
#[command(name = "gpuev", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(cmd::list::ListArgs),
    Watch(cmd::watch::WatchArgs),
    Record(cmd::record::RecordArgs),
    Replay(cmd::replay::ReplayArgs),
    Agent(cmd::agent::AgentArgs),
    Doctor(cmd::doctor::DoctorArgs),
    Report(cmd::report::ReportArgs),
    Export(cmd::export::ExportArgs),
    Import(cmd::import::ImportArgs),
    Rules(cmd::rules::RulesArgs),
    Sim(cmd::sim::SimArgs),
    #[command(hide = true)]
    Generate(cmd::generate::GenerateArgs),
    Status(cmd::operate::StatusArgs),
    Alerts(cmd::operate::AlertsArgs),
    Ack(cmd::operate::AckArgs),
    Silence(cmd::operate::SilenceArgs),
    Yield(cmd::yielding::YieldArgs),
    Resume(cmd::yielding::ResumeArgs),
    #[command(hide = true)]
    Keeper(cmd::keeper::KeeperArgs),
}

/// Where events come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Where events come from: this machine, a simulated one, or a recording
    #[arg(long, value_name = "host|sim[:SCENARIO]|file:PATH", default_value = "host")]
    pub source: String,
}

/// Which events are wanted.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilterArgs {
    /// Only these GPUs: index, PCI address or unique id; may be repeated or separated by commas
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub gpu: Vec<String>,
    /// Only these event types, e.g. VMFAULT; may be repeated or separated by commas
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = event_type)]
    pub types: Vec<TypeArg>,
    /// Only events of these processes
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Only events at least this severe: info, warning, critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    pub severity: Option<Severity>,
}

/// How times are shown and read.
#[derive(Debug, Clone, Args)]
pub(crate) struct ZoneArgs {
    /// Times in UTC, also those of --from and --to that say no zone; else local time ($TZ)
    #[arg(long)]
    utc: bool,
}

impl ZoneArgs {
    /// The zone; says so where the one of `$TZ` is not known.
    pub(crate) fn zone(&self) -> Zone {
        if self.utc { Zone::utc() } else { local_zone() }
    }
}

/// The user's zone; says so where the one of `$TZ` is not known.
pub(crate) fn local_zone() -> Zone {
    let (zone, told) = Zone::local();
    if let Some(told) = told {
        say(&told);
    }
    zone
}

/// Which part of the past is wanted.
#[derive(Debug, Args)]
pub(crate) struct PeriodArgs {
    /// Only what happened from this moment on: 10m ago, 11:45, 2026-11-22T11:45:01Z
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// Only what happened before this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
}

impl PeriodArgs {
    /// What was asked for, at this moment, by a user of `zone`.
    pub(crate) fn query(&self, zone: &Zone) -> Result<Query, Failure> {
        let now = Anchor::now();
        let meant = |name, text: &Option<String>| {
            text.as_deref().map(|text| moment(name, text, now, zone)).transpose()
        };
        let (from, to) = (meant("--from", &self.from)?, meant("--to", &self.to)?);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(Failure::Usage("--from is not before --to: nothing is between".to_owned()));
        }
        let mut query = Query::new();
        if let Some(from) = from {
            query = query.from_unix_ns(from);
        }
        if let Some(to) = to {
            query = query.to_unix_ns(to);
        }
        Ok(query)
    }
}

/// Which histories are read.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Histories, and folders of histories: all are read as one, and what several hold counts once; else the newest
    /// that gpuev recorded by itself
    #[arg(value_name = "RUN.DB")]
    histories: Vec<PathBuf>,
}

impl HistoryArgs {
    /// Opens those that were named, else the newest, which is told; so is what cannot be read in a folder.
    pub(crate) fn open(&self) -> Result<Histories, Failure> {
        if self.histories.is_empty() {
            let newest = gpuev_store::default_history_to_read();
            if newest.exists() {
                say(&format!("reading {}", newest.display()));
            }
            return Ok(Histories::open_file(&newest)?);
        }
        open_histories(&self.histories)
    }
}

/// Opens histories and folders of histories; says what cannot be read in a folder.
pub(crate) fn open_histories(paths: &[PathBuf]) -> Result<Histories, Failure> {
    let histories = Histories::open(paths)?;
    for (_, error) in histories.unreadable() {
        say(&format!("left out: {error}"));
    }
    Ok(histories)
}

/// What the argument `name` means, in nanoseconds since 1970.
pub(crate) fn moment(name: &str, text: &str, now: Anchor, zone: &Zone) -> Result<i64, Failure> {
    unix_ns_in(text, now, zone).map_err(|error| Failure::Usage(format!("{name}: {error}")))
}

/// A type that was asked for by name; unknown events have a name too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeArg {
    /// One the driver documents.
    Known(EventType),
    /// What the driver writes and nobody has documented yet.
    Unknown,
}

fn event_type(text: &str) -> Result<TypeArg, String> {
    if text.eq_ignore_ascii_case("UNKNOWN") {
        return Ok(TypeArg::Unknown);
    }
    let dashed = text.replace('-', "_");
    EventType::from_name(&dashed).map(TypeArg::Known).ok_or_else(|| {
        let mut names = EventType::ALL.map(EventType::name).to_vec();
        names.push("UNKNOWN");
        no_such("event type", &dashed.to_ascii_uppercase(), &names)
    })
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::from_name(text)
        .ok_or_else(|| no_such("severity", text, &Severity::ALL.map(Severity::name)))
}

/// Says that there is no such name, and which one may have been meant.
pub(crate) fn no_such(what: &str, text: &str, names: &[&str]) -> String {
    let all = names.join(", ");
    match nearest(text, names) {
        Some(name) => format!("no such {what}; did you mean {name}? There are {all}"),
        None => format!("no such {what}; there are {all}"),
    }
}

/// `10s`, `1.5m`, `500ms`, `2h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("write it as 500ms, 10s, 5m, 2h or 1d".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "it begins with no number".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "it is too long".to_owned())
}

/// A duration after which something happens again.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("it is too short: write 100ms or more".to_owned());
    }
    Ok(interval)
}

/// Room for events: less would hold none.
pub(crate) fn buffer(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < SMALLEST_BUFFER {
        return Err(format!("it is too small: write {}K or more", SMALLEST_BUFFER >> 10));
    }
    Ok(bytes)
}

/// Room for some events of any length.
const SMALLEST_BUFFER: u64 = 4 << 10;

/// How many: none would be nothing to do.
pub(crate) fn count(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "write a whole number, 1 or more".to_owned())
}

/// `500M`, `2G`, `1048576`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("write it as 500M or 2G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "write it as 500M or 2G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}
