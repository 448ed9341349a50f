//! `gpuev replay`: the past, as `gpuev watch` would have shown it.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use gpuev::{ErrorKind, Filter, GpuId, Item};
use gpuev_store::{Entries, Entry, Histories, Query, Zone};

use crate::args::{FilterArgs, HistoryArgs, PeriodArgs, open_histories};
use crate::cmd::watch::{ShowArgs, Shown, filter};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::signals::Ends;

/// Show what was recorded
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Take as long as it took, divided by this: 1 as it happened, 10 ten times faster; else at once
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    speed: Option<f64>,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

pub(crate) fn run(args: &ReplayArgs) -> Outcome {
    let zone = args.show.zone.zone();
    let query = args.period.query(&zone)?;
    let pace = Pace { speed: args.speed, begun: None, within: None };
    show(args.history.open()?, query, (pace, zone), &args.show, &args.filter)
}

/// Shows all of a history, or of a folder of them, at once, or as much as the time allows.
pub(crate) fn show_history(
    path: &Path,
    within: Option<Duration>,
    shown: &ShowArgs,
    filter: &FilterArgs,
) -> Outcome {
    let history = open_histories(&[path.to_owned()])?;
    let pace = Pace { speed: None, begun: None, within };
    show(history, Query::new(), (pace, shown.zone.zone()), shown, filter)
}

fn show(
    history: Histories,
    query: Query,
    (pace, zone): (Pace, Zone),
    show: &ShowArgs,
    wanted: &FilterArgs,
) -> Outcome {
    let gpus = chosen(&history, &wanted.gpu)?;
    let wanted = filter(wanted, gpus);
    let query = query.filter(wanted.clone());
    let (end, ended) = mpsc::channel();
    Ends::listen()?.with_output(output::standard()).call(pace.within, park, move || drop(end))?;
    let mut shown = Shown::new(show, zone, [], &wanted)?;
    let entries = history.into_entries(&query).without_notes();
    let result = replay(entries, (&wanted, pace), &ended, &mut shown);
    shown.end(result)
}

/// The main thread tells when it is over, not this one.
fn park() {
    loop {
        std::thread::park();
    }
}

fn replay(
    mut entries: Entries<Histories>,
    (wanted, mut pace): (&Filter, Pace),
    ended: &Receiver<()>,
    shown: &mut Shown<'_>,
) -> Result<(), Failure> {
    while let Some(entry) = entries.next_entry()? {
        let item = match entry {
            Entry::Session(recorded) => {
                let mut source = entries.histories().source(&recorded);
                if source.filter == Filter::new() {
                    source.filter = wanted.clone();
                }
                shown.begin(source);
                continue;
            }
            Entry::Item(_, item) => item,
            Entry::Note(_) => continue,
        };
        let early = pace.early(&item);
        if !early.is_zero() || shown.is_full() {
            shown.flush()?;
            if ended.recv_timeout(early) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        if shown.put(item).is_break() {
            break;
        }
    }
    shown.flush()
}

/// Keeps time.
struct Pace {
    speed: Option<f64>,
    begun: Option<(Instant, i64)>,
    /// Then it ends.
    within: Option<Duration>,
}

impl Pace {
    /// How long until it is `item`'s turn.
    fn early(&mut self, item: &Item) -> Duration {
        let Some(speed) = self.speed else { return Duration::ZERO };
        let unix_ns = match item {
            Item::Event(event) => event.time.unix_ns,
            Item::Gap(gap) => gap.unix_ns,
        };
        let (begun, first_unix_ns) = *self.begun.get_or_insert((Instant::now(), unix_ns));
        let since = u64::try_from(unix_ns.saturating_sub(first_unix_ns)).unwrap_or(0);
        let since = Duration::from_nanos(since).as_secs_f64() / speed;
        let due = Duration::try_from_secs_f64(since).unwrap_or(Duration::MAX);
        due.saturating_sub(begun.elapsed())
    }
}

/// The GPUs of the histories that `--gpu` names.
pub(crate) fn chosen(history: &Histories, selectors: &[String]) -> Result<Vec<GpuId>, Failure> {
    history.choose_gpus(selectors).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Failure::Usage(format!("--gpu {error}")),
        _ => Failure::Gpu(error),
    })
}
