//! `gpuev rules test`: what would have fired on a recording.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gpuev::message::Printable;
use gpuev::time::Anchor;
use gpuev::{Item, Machine};
use gpuev_agent::alert::{Alert, Book, Resolution};
use gpuev_agent::rule::{Engine, RuleSet};
use gpuev_agent::sink::Message;
use gpuev_agent::{AlertChange, AlertState, Config, Pipeline, Signal};
use gpuev_store::{Entry, RecordedNote, RecordedSession, Zone};

use crate::args::{FilterArgs, HistoryArgs, PeriodArgs, ZoneArgs};
use crate::cmd::replay::chosen;
use crate::cmd::watch::filter;
use crate::exit::{Exit, Failure, Outcome, say};

use super::RuleArgs;

/// The engine is to look at the clock so often.
const TICK_NS: u64 = 1_000_000_000;

/// Show which alerts would have fired on a recording
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every change of every alert as one JSON object a line, pending ones included
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TestArgs) -> Outcome {
    let rules = args.rules.load()?;
    let zone = args.zone.zone();
    let query = args.period.query(&zone)?;
    let history = args.history.open()?;
    let gpus = chosen(&history, &args.filter.gpu)?;
    let query = query.filter(filter(&args.filter, gpus));
    let mut trial = Trial::new(args.json, rules, zone);
    let mut entries = history.entries(&query);
    while let Some(entry) = entries.next_entry()? {
        match entry {
            Entry::Session(recorded) => {
                trial.pipeline.answer_from(history.processes(&recorded)?);
                trial.session = Some(recorded);
            }
            Entry::Note(note) => {
                trial.enter(note.at)?;
                trial.notice(&note)?;
            }
            Entry::Item(_, item) => {
                trial.enter(moment(&item))?;
                trial.push(&item)?;
            }
        }
    }
    trial.finish()
}

/// Rules at work on a recording.
struct Trial {
    engine: Engine,
    pipeline: Pipeline,
    /// Where the clock of the recording stands.
    now: Option<Anchor>,
    /// The session that goes on.
    session: Option<Arc<RecordedSession>>,
    /// The boot that the engine is in.
    boot: Option<u32>,
    json: bool,
    zone: Zone,
    out: BufWriter<io::StdoutLock<'static>>,
    items: u64,
    /// Ids of the alerts that fire.
    firing: HashSet<String>,
    /// How many fired, by rule.
    fired: BTreeMap<String, u64>,
}

impl Trial {
    fn new(json: bool, rules: RuleSet, zone: Zone) -> Self {
        // Nothing lies below a file: this machine's processes are not those of the recording.
        let nowhere = Machine::at("/dev/null");
        let config = Config::default();
        Self {
            engine: Engine::new(rules, Book::new(), "recording"),
            pipeline: Pipeline::replay(&nowhere, &config.events),
            now: None,
            session: None,
            boot: None,
            json,
            zone,
            out: BufWriter::new(io::stdout().lock()),
            items: 0,
            firing: HashSet::new(),
            fired: BTreeMap::new(),
        }
    }

    /// What follows is of this moment in the present session. Another boot has another clock.
    fn enter(&mut self, at: Anchor) -> Result<(), Failure> {
        let boot = self.session.as_ref().map(|recorded| recorded.boot);
        let before = self.boot.replace(boot.unwrap_or(0));
        if let (Some(before), Some(boot)) = (before, boot)
            && before != boot
        {
            let state = self.engine.state(&before.to_string());
            let changes = self.engine.restore(state, &boot.to_string(), at.boot_ns, at.unix_ns);
            self.now = None;
            self.tell(&changes)?;
        }
        Ok(())
    }

    fn push(&mut self, item: &Item) -> Result<(), Failure> {
        self.items += 1;
        self.pass_to(moment(item))?;
        let mut changes = Vec::new();
        let Self { pipeline, engine, .. } = self;
        pipeline.push(item, &mut |signal| changes.extend(engine.observe(&signal)));
        self.tell(&changes)
    }

    /// A counter of errors rose.
    fn notice(&mut self, note: &RecordedNote) -> Result<(), Failure> {
        let Some(signal) = Signal::noted(note) else { return Ok(()) };
        self.pass_to(note.at)?;
        let changes = self.engine.observe(&signal);
        self.tell(&changes)
    }

    /// Time passes as it did, second by second where anything can come of it.
    fn pass_to(&mut self, until: Anchor) -> Result<(), Failure> {
        let mut now = *self.now.get_or_insert(until);
        while now.boot_ns.saturating_add(TICK_NS) <= until.boot_ns {
            if !self.engine.needs_ticks() {
                now = until;
            }
            let boot_ns = now.boot_ns.saturating_add(TICK_NS).min(until.boot_ns);
            now = Anchor { boot_ns, unix_ns: until.unix_ns_of(boot_ns) };
            let mut changes = Vec::new();
            let Self { pipeline, engine, .. } = self;
            pipeline.tick(now, &mut |signal| changes.extend(engine.observe(&signal)));
            changes.extend(engine.tick(now.boot_ns, now.unix_ns));
            self.tell(&changes)?;
        }
        self.now = Some(now);
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        let mut changes = Vec::new();
        let Self { pipeline, engine, .. } = &mut self;
        pipeline.finish(&mut |signal| changes.extend(engine.observe(&signal)));
        self.tell(&changes)?;
        self.out.flush()?;
        let stats = self.engine.stats();
        if let Some((rule, error)) = stats.last_error {
            say(&format!("rule {rule}: its condition cannot be decided: {error}"));
        }
        let fired: u64 = self.fired.values().sum();
        let firing = self.engine.book().stats().firing;
        say(&format!(
            "{fired} alerts of {} rules on {} events and gaps, {firing} of them not over at the end",
            self.fired.len(),
            self.items
        ));
        Ok(Exit::Success)
    }

    fn tell(&mut self, changes: &[AlertChange]) -> Result<(), Failure> {
        for change in changes {
            let alert = &change.alert;
            let news = match alert.state {
                AlertState::Pending => false,
                AlertState::Firing => self.firing.insert(alert.id.clone()),
                AlertState::Resolved => self.firing.remove(&alert.id),
            };
            if news && alert.state == AlertState::Firing {
                *self.fired.entry(alert.rule.clone()).or_default() += 1;
            }
            if self.json {
                writeln!(self.out, "{}", Message::of_change(change).json)?;
            } else if news {
                writeln!(self.out, "{}", line(alert, &self.zone))?;
            }
        }
        Ok(())
    }
}

/// When an item happened, by both clocks.
fn moment(item: &Item) -> Anchor {
    match item {
        Item::Event(event) => Anchor { boot_ns: event.time.boot_ns, unix_ns: event.time.unix_ns },
        Item::Gap(gap) => Anchor { boot_ns: gap.to_boot_ns, unix_ns: gap.unix_ns },
    }
}

/// An alert that began or ended, for people.
fn line(alert: &Alert, zone: &Zone) -> String {
    let (at, state, text) = match alert.resolved_unix_ns {
        None => (alert.fired_unix_ns.unwrap_or(alert.last_unix_ns), "fires", alert.summary.clone()),
        Some(at) => {
            let lasted = at.saturating_sub(alert.fired_unix_ns.unwrap_or(at));
            let lasted = Duration::from_nanos(u64::try_from(lasted).unwrap_or(0));
            let by = alert.resolved_by.map_or("", Resolution::name);
            (
                at,
                "is over",
                format!("after {:.0} s, by {by}; {} signals", lasted.as_secs_f64(), alert.count),
            )
        }
    };
    let time = zone.stamp(at);
    let severity = alert.severity.name();
    format!("{time}  {severity:8}  {}  {state}: {}", alert.rule, Printable(text.as_bytes()))
}
