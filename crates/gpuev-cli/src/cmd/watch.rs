//! `gpuev watch`: events as they happen.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use clap::Args;
use gpuev::{ErrorKind, Filter, GapCause, Item, Monitor, Subscription, json};

use crate::args::{FilterArgs, SourceArgs, TypeArg, duration};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::render::line::LineStyle;
use crate::signals::Ends;
use crate::source::Source;

/// Show events as they happen
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// One JSON object a line (docs/event-schema.md), for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End after this time, e.g. 10s, 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
}

pub(crate) fn run(args: &WatchArgs, source: &SourceArgs) -> Outcome {
    let source = Source::open(source)?;
    // First, so that GPUs do not take the descriptors that ending takes.
    let ends = Ends::listen()?;
    let monitor = start(args, &source)?;
    let filter = filter(&args.filter, &monitor);
    let subscription = monitor.subscribe(filter);
    let feeding = source.begin()?;
    ends.call(args.duration, move || feeding.finish(), move || drop(monitor))?;
    let mut summary = Summary::new();
    let shown = show(args, subscription, &mut summary);
    summary.say();
    shown.map(|()| Exit::Success)
}

/// Watches the chosen GPUs, and says which of them it cannot.
fn start(args: &WatchArgs, source: &Source) -> Result<Monitor, Failure> {
    let mut builder = Monitor::builder(&source.machine);
    if !args.filter.gpu.is_empty() {
        let inventory = source.machine.inventory()?;
        let mut chosen = Vec::new();
        for selector in &args.filter.gpu {
            let found = inventory.select(selector).map_err(|error| match error.kind() {
                ErrorKind::InvalidInput => Failure::Usage(format!("--gpu: {error}")),
                _ => Failure::Gpu(error),
            })?;
            chosen.extend(found.into_iter().map(|gpu| gpu.id));
        }
        builder = builder.gpus(chosen);
    }
    let monitor = builder.start()?;
    for (gpu, why) in monitor.failures() {
        say(&format!("GPU {} is left out: {why}", gpu.id.bdf));
    }
    let scope = monitor.scope();
    if !scope.all_processes {
        say(&format!("{}; run as root to see all", scope.reason));
    }
    Ok(monitor)
}

fn filter(args: &FilterArgs, monitor: &Monitor) -> Filter {
    let mut filter = Filter::new();
    if !args.gpu.is_empty() {
        filter = filter.gpus(monitor.gpus().into_iter().map(|gpu| gpu.id));
    }
    if !args.types.is_empty() {
        let known = args.types.iter().filter_map(|argument| match argument {
            TypeArg::Known(event_type) => Some(*event_type),
            TypeArg::Unknown => None,
        });
        filter = filter.types(known, args.types.contains(&TypeArg::Unknown));
    }
    if !args.pid.is_empty() {
        filter = filter.pids(args.pid.iter().copied());
    }
    match args.severity {
        Some(least) => filter.severity(least),
        None => filter,
    }
}

/// Writes what comes, line by line: each at once where nothing more waits, else in one go.
fn show(args: &WatchArgs, mut items: Subscription, summary: &mut Summary) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let style = LineStyle::new(stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let mut text = String::new();
    while let Some(first) = items.wait(None) {
        let mut next = Some(first);
        while let Some(item) = next {
            if args.json {
                json::write_item(&mut text, &item);
                text.push('\n');
            } else {
                style.write(&mut text, &item);
            }
            summary.count(&item);
            if args.count.is_some_and(|count| summary.events == count.get()) {
                return write(&mut stdout, &mut text);
            }
            next = if text.len() < 64 * 1024 { items.try_next() } else { None };
        }
        write(&mut stdout, &mut text)?;
    }
    Ok(())
}

fn write(out: &mut impl Write, text: &mut String) -> Result<(), Failure> {
    out.write_all(text.as_bytes())?;
    out.flush()?;
    text.clear();
    Ok(())
}

/// What the last line says.
struct Summary {
    started: Instant,
    events: u64,
    gaps: u64,
    lost: u64,
    of_unknown_size: u64,
}

impl Summary {
    fn new() -> Self {
        Self { started: Instant::now(), events: 0, gaps: 0, lost: 0, of_unknown_size: 0 }
    }

    fn count(&mut self, item: &Item) {
        match item {
            Item::Event(_) => self.events += 1,
            Item::Gap(gap) => {
                self.gaps += 1;
                match gap.count {
                    Some(count) => self.lost += count,
                    None => self.of_unknown_size += u64::from(gap.cause != GapCause::GpuRemoved),
                }
            }
        }
    }

    fn say(&self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut text = format!("{} events, {} gaps", self.events, self.gaps);
        if self.lost > 0 {
            text += &format!(", {} events lost", self.lost);
        }
        if self.of_unknown_size > 0 {
            text += &format!(", {} gaps of unknown size", self.of_unknown_size);
        }
        say(&format!("{text} in {seconds:.1} s"));
    }
}
