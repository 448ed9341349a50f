//! `gpuev watch`: events as they happen.

use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use clap::Args;
use gpuev::time::Anchor;
use gpuev::{
    DEFAULT_LIMIT, ErrorKind, Filter, GapCause, Gpu, GpuId, GpuSelector, Item, Monitor,
    MonitorBuilder, Subscription, json,
};
use gpuev_store::report::{self, Options, Periods};
use gpuev_store::{EventLog, Zone};

use crate::args::{FilterArgs, SourceArgs, TypeArg, ZoneArgs, buffer, count, duration, interval};
use crate::cmd::replay;
use crate::cmd::report::layout;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output;
use crate::render::line::LineStyle;
use crate::signals::Ends;
use crate::source::Source;
use crate::watching::{Opener, Watching};

/// Show events as they happen
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after this time, e.g. 10s, 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// How many bytes of events may wait where the output is taken slowly, e.g. 512M; what exceeds it is a gap [default:
    /// 64M]
    #[arg(long, value_name = "SIZE", value_parser = buffer)]
    buffer: Option<u64>,
}

pub(crate) fn run(args: &WatchArgs, source: &SourceArgs) -> Outcome {
    if let Some(path) = Source::history(source) {
        if args.buffer.is_some() {
            let what = "--buffer: a history waits where it is, as long as its reader likes";
            return Err(Failure::Usage(what.to_owned()));
        }
        return replay::show_history(&path, args.duration, &args.show, &args.filter);
    }
    let source = Source::open(source)?;
    // First, so that GPUs do not take the descriptors that ending takes.
    let ends = Ends::listen()?;
    let limit =
        args.buffer.map_or(DEFAULT_LIMIT, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let (monitor, subscription) = start(&args.filter, &source, limit)?;
    let gpus = monitor.gpus();
    let wanted = filter(&args.filter, gpus.iter().map(|gpu| gpu.id));
    let mut shown = Shown::new(&args.show, args.show.zone.zone(), &gpus, &wanted)?;
    shown.begin(report::Source {
        filter: wanted,
        gpus: gpus.iter().map(|gpu| gpu.id).collect(),
        ..live(&source.machine, &monitor.scope())
    });
    let mut blindness = Blindness::said_at_start(&monitor);
    let feeding = source.begin()?;
    let ends = if args.show.writes() { ends.with_output(output::standard()) } else { ends };
    let held = Arc::new(Mutex::new(Some(monitor)));
    let release = {
        let held = Arc::clone(&held);
        // With the lock held: whoever comes second waits until its keeper and its socket are gone.
        move || *held.lock().unwrap_or_else(PoisonError::into_inner) = None
    };
    ends.call(args.duration, move || feeding.finish(), release.clone())?;
    let result = show(&mut shown, subscription, |item| blindness.say(item));
    release();
    shown.end(result)
}

/// This machine, from now on, as the source of a report.
fn live(machine: &gpuev::Machine, scope: &gpuev::Scope) -> report::Source {
    let now = Anchor::now();
    report::Source {
        name: "live".to_owned(),
        host: machine.hostname(),
        kernel: machine.kernel_release(),
        boot_id: machine.boot_id(),
        scope: Some(scope.reason.clone()),
        from_unix_ns: Some(now.unix_ns),
        from_boot_ns: Some(now.boot_ns),
        end: report::SourceEnd::Live,
        ..report::Source::default()
    }
}

/// Watches the chosen GPUs for the chosen events, of which `limit` bytes may wait, and says which GPUs it cannot.
pub(crate) fn start(
    args: &FilterArgs,
    source: &Source,
    limit: usize,
) -> Result<(Watching, Subscription), Failure> {
    let opener = Opener::of(source)?;
    let mut chosen = Vec::new();
    if !args.gpu.is_empty() {
        let inventory = source.machine.inventory()?;
        for selector in &args.gpu {
            chosen.push(inventory.selector(selector).map_err(|error| match error.kind() {
                ErrorKind::InvalidInput => Failure::Usage(format!("--gpu: {error}")),
                _ => Failure::Gpu(error),
            })?);
        }
    }
    let filter = filter(args, chosen.iter().copied());
    let choose = |builder: MonitorBuilder| {
        if args.gpu.is_empty() { builder } else { builder.gpus(chosen) }
    };
    let (watching, subscription) = opener.start(filter, limit, choose)?;
    say_what_is_left_out(&watching);
    Ok((watching, subscription))
}

fn say_what_is_left_out(monitor: &Monitor) {
    for (gpu, why) in monitor.failures() {
        say(&format!("GPU {} is left out: {why}", gpu.id.bdf));
    }
    monitor.left_out().iter().for_each(|missing| say(missing));
    let scope = monitor.scope();
    if !scope.all_processes && !monitor.gpus().is_empty() {
        say(&format!("{}; run as root to see all", scope.reason));
    }
}

/// The filter that was asked for, `gpus` being the chosen ones.
pub(crate) fn filter(
    args: &FilterArgs,
    gpus: impl IntoIterator<Item = impl Into<GpuSelector>>,
) -> Filter {
    let mut filter = Filter::new();
    if !args.gpu.is_empty() {
        filter = filter.gpus(gpus);
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
fn show(
    shown: &mut Shown<'_>,
    mut items: Subscription,
    mut say: impl FnMut(&Item),
) -> Result<(), Failure> {
    loop {
        let mut next = items.wait(shown.summary_due());
        if next.is_none() && items.is_finished() {
            return Ok(());
        }
        while let Some(item) = next {
            say(&item);
            if shown.put(item).is_break() {
                return shown.flush();
            }
            next = if shown.is_full() { None } else { items.try_next() };
        }
        shown.tick();
        shown.flush()?;
    }
}

/// GPUs that cannot be watched, said on standard error as well as in the stream.
struct Blindness {
    monitor: Weak<Monitor>,
    /// Said when the command was started, as the first items say again.
    said: Vec<GpuId>,
}

impl Blindness {
    fn said_at_start(watching: &Watching) -> Self {
        let said = watching.failures().into_iter().map(|(gpu, _)| gpu.id).collect();
        Self { monitor: watching.weak(), said }
    }

    fn say(&mut self, item: &Item) {
        let Item::Gap(gap) = item else { return };
        if !gap.cause.begins_blindness() || gap.cause == GapCause::GpuRemoved {
            return;
        }
        if let Some(at) = self.said.iter().position(|gpu| *gpu == gap.gpu) {
            self.said.swap_remove(at);
            return;
        }
        let failures = self.monitor.upgrade().map(|monitor| monitor.failures());
        let of_it = |(gpu, _): &(Gpu, String)| gpu.id == gap.gpu;
        let why = failures.unwrap_or_default().into_iter().find(of_it).map(|(_, why)| why);
        let why = why.unwrap_or_else(|| gap.to_string());
        say(&format!("GPU {} is not watched: {why}", gap.gpu.bdf));
    }
}

/// How items are shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// One JSON object a line (docs/event-schema.md), for programs
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<NonZeroU64>,
    /// Write the events to this file too: one JSON object that is whole at every moment, or, by the extension
    /// .ndjson, one record a line
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Tell each so often how many events there were, by GPU and type, and at the end what all came to
    #[arg(long, value_name = "EVERY", value_parser = interval, num_args = 0..=1, default_missing_value = "1m")]
    summary: Option<Duration>,
    /// Do not show the events: only the summary or the log is wanted
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
}

impl ShowArgs {
    /// Whether anything is for standard output; else it may be closed.
    fn writes(&self) -> bool {
        !self.quiet || self.summary.is_some()
    }
}

/// Items on their way to standard output, and to a log.
pub(crate) struct Shown<'a> {
    args: &'a ShowArgs,
    style: LineStyle,
    zone: Zone,
    text: String,
    log: Option<EventLog>,
    unlogged: Vec<Item>,
    periods: Option<Periods>,
    summary: Summary,
}

impl<'a> Shown<'a> {
    /// Nothing shown yet. `wanted` is what will be shown.
    pub(crate) fn new<'g>(
        args: &'a ShowArgs,
        zone: Zone,
        gpus: impl IntoIterator<Item = &'g Gpu>,
        wanted: &Filter,
    ) -> Result<Self, Failure> {
        // NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM and what else there is.
        let colours = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        let log = args.log.as_deref();
        let log = log.map(|path| EventLog::create_filtered(path, gpus, wanted)).transpose()?;
        Ok(Self {
            args,
            style: LineStyle::new(colours, zone.clone()),
            zone,
            text: String::new(),
            log,
            unlogged: Vec::new(),
            periods: args.summary.map(|every| Periods::new(every, Options::default())),
            summary: Summary::new(),
        })
    }

    /// What follows is from `source`.
    pub(crate) fn begin(&mut self, source: report::Source) {
        if let Some(periods) = &mut self.periods {
            periods.begin(source);
        }
    }

    /// How long until a summary is due, if one is wanted.
    fn summary_due(&self) -> Option<Duration> {
        self.periods.as_ref().map(|periods| periods.left(Anchor::now()))
    }

    /// Adds the summary that is due by now.
    fn tick(&mut self) {
        let now = Anchor::now();
        let over = self.periods.as_mut().and_then(|periods| periods.until(now));
        self.put_summary(over);
    }

    fn put_summary(&mut self, over: Option<report::Summary>) {
        let Some(over) = over else { return };
        if self.args.json {
            self.text += &over.json();
            self.text.push('\n');
        } else {
            self.text += &over.text_in(&self.zone);
        }
    }

    /// Takes an item; breaks where no more is wanted.
    pub(crate) fn put(&mut self, item: Item) -> ControlFlow<()> {
        let over = self.periods.as_mut().and_then(|periods| periods.push(&item));
        self.put_summary(over);
        match (self.args.quiet, self.args.json) {
            (true, _) => {}
            (false, true) => {
                json::write_item(&mut self.text, &item);
                self.text.push('\n');
            }
            (false, false) => self.style.write(&mut self.text, &item),
        }
        self.summary.count(&item);
        if self.log.is_some() {
            self.unlogged.push(item);
        }
        if self.args.count.is_some_and(|count| self.summary.events == count.get()) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Whether so much waits that it should be written.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() >= 64 * 1024 || self.unlogged.len() >= 1024
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if let Some(log) = &mut self.log {
            log.append(&self.unlogged)?;
            self.unlogged.clear();
        }
        output::standard().write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }

    /// Says how much it was, and what all came to where that was asked for.
    pub(crate) fn end(mut self, result: Result<(), Failure>) -> Outcome {
        self.summary.say();
        result?;
        if let Some(periods) = self.periods.take() {
            let report = periods.finish();
            self.text = match self.args.json {
                true => report.json() + "\n",
                false => report.text_in(&layout(self.zone.clone(), false)),
            };
            self.flush()?;
        }
        Ok(Exit::Success)
    }
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
                    Some(count) => self.lost = self.lost.saturating_add(count),
                    None => self.of_unknown_size += u64::from(!gap.cause.begins_blindness()),
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
