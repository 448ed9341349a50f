//! Who is given signals: the live stream, the rules, and with what those find the sinks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, Machine, Result};

use super::keeping::Keeping;
use super::{Shared, say};
use crate::alert::{AlertChange, AlertState, Book};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::rule::{Engine, EngineStats, RuleSet};
use crate::signal::Signal;
use crate::sink::{Context, Message, Sinks, Stats};

/// How long sinks may go on with what waits when the agent ends. What they promised is on disk.
const PATIENCE: Duration = Duration::from_secs(3);

/// Changes that are kept until the sinks have them on disk: more than that, and a disk is too slow for all.
const MOST_ON_THE_WAY: usize = 1024;

/// Everybody who is given signals.
pub(super) struct Outputs {
    shared: Arc<Shared>,
    engine: Engine,
    kept: Keeping,
    boot_id: String,
    sinks: Sinks,
    /// There is no sink: alerts are told in the agent's log, so that somebody may hear of them.
    logs_alerts: bool,
    /// Changes of alerts that are not yet told.
    changes: Vec<AlertChange>,
    /// Those that were told, and may not be in the sinks' queues on disk yet. They are kept with the alerts: else a crash
    /// in between would leave alerts that are known as told and that nobody was told of.
    on_the_way: Vec<AlertChange>,
}

/// One line for an alert that somebody should know of.
fn log(change: &AlertChange) {
    let alert = &change.alert;
    if change.notify && alert.state != AlertState::Pending {
        let (severity, state, rule) = (alert.severity.name(), alert.state.name(), &alert.rule);
        say(&format!("{severity} alert {rule} is {state}: {}", alert.summary));
    }
}

/// What sinks need to know of the agent.
pub(super) fn sink_context(
    machine: &Machine,
    config: &Config,
    book: &Book,
    metrics: &Arc<Metrics>,
) -> Context {
    let book = book.clone();
    Context {
        state_dir: config.agent.state_dir.clone(),
        host: machine.hostname().unwrap_or_default(),
        report: Arc::new(|sink, notice| say(&format!("sink {sink} {notice}"))),
        metrics: Arc::clone(metrics),
        firing: Arc::new(move || book.alerts()),
    }
}

impl Outputs {
    /// Starts the sinks, and goes on with the alerts of before: those of the file `alerts.json` in the state folder.
    pub(super) fn start(shared: &Arc<Shared>, config: &Config, rules: RuleSet) -> Result<Self> {
        let machine = &shared.machine;
        let context = sink_context(machine, config, &shared.book, &shared.metrics);
        let sinks = Sinks::start(&config.sinks, context)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let mut sinks = sinks;
        sinks.set_limits(rules.limits());
        let host = machine.hostname().unwrap_or_default();
        let mut outputs = Self {
            engine: Engine::new(rules, shared.book.clone(), &host),
            shared: Arc::clone(shared),
            kept: Keeping::start(&config.agent.state_dir.join("alerts.json"))?,
            boot_id: machine.boot_id().unwrap_or_default(),
            sinks,
            logs_alerts: config.sinks.is_empty(),
            changes: Vec::new(),
            on_the_way: Vec::new(),
        };
        outputs.restore();
        Ok(outputs)
    }

    fn restore(&mut self) {
        let state = self.kept.load();
        if let Some(mut state) = state {
            self.on_the_way = std::mem::take(&mut state.on_the_way);
            self.sinks.change_again(&self.on_the_way);
            let now = Anchor::now();
            self.changes = self.engine.restore(state, &self.boot_id, now.boot_ns, now.unix_ns);
            self.tell_changes();
        }
        let known = self.shared.book.alerts();
        self.shared.metrics.observe_alerts(known.iter().map(|alert| &**alert));
    }

    /// Something was noticed. What it changes of alerts is told by [`tell_changes`](Self::tell_changes).
    pub(super) fn signal(&mut self, signal: &Signal) {
        self.shared.note(signal);
        self.shared.metrics.observe(signal);
        let mut text = String::with_capacity(512);
        signal.write_json(&mut text);
        self.shared.live.publish(signal.kind(), signal.severity(), &text.into());
        self.sinks.signal(signal);
        self.changes.extend(self.engine.observe(signal));
    }

    /// The history has no room for what was known beside an event.
    pub(super) fn lost_note(&self) {
        self.shared.metrics.lose("history-notes", 1);
    }

    /// How the rules are doing.
    pub(super) fn rules(&self) -> EngineStats {
        self.engine.stats()
    }

    /// The counts of the sinks.
    pub(super) fn stats(&self) -> Vec<Stats> {
        self.sinks.stats()
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: Anchor) {
        self.changes.extend(self.engine.tick(now.boot_ns, now.unix_ns));
        self.tell_changes();
        if self.shared.book.has_new_silences() {
            self.keep();
        }
        self.kept.look_again();
        self.settle();
    }

    /// Forgets what was on its way to the sinks once it is where a crash does not reach it, also on disk: it is
    /// not to come again with the next start.
    fn settle(&mut self) {
        if !self.on_the_way.is_empty() && self.sinks.are_settled() {
            self.on_the_way.clear();
            self.keep();
        }
    }

    /// Goes on by other rules and sinks.
    pub(super) fn set(&mut self, config: &Config, rules: RuleSet) {
        self.sinks.set_limits(rules.limits());
        self.logs_alerts = config.sinks.is_empty();
        self.changes.extend(self.engine.replace_rules(rules, Anchor::now().unix_ns));
        self.tell_changes();
        if let Err(error) = self.sinks.reload(&config.sinks) {
            say(&format!("{error}; that sink stays out"));
        }
    }

    /// Sinks go on for a moment with what waits.
    pub(super) fn stop(mut self) {
        // Counts too, which are no changes.
        self.keep();
        self.sinks.flush(PATIENCE);
        self.settle();
        for sink in self.sinks.stop(PATIENCE) {
            if sink.waiting > 0 {
                say(&format!(
                    "sink {}: {} messages wait for the next start",
                    sink.sink, sink.waiting
                ));
            }
        }
    }

    /// Keeps what changed of alerts, then tells it: whoever was told finds it again after a crash. A disk that does not
    /// answer in time delays it once, and what is told says that it is not kept. Called once for many signals.
    pub(super) fn tell_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        if self.sinks.are_settled() {
            self.on_the_way.clear();
        }
        let room = MOST_ON_THE_WAY.saturating_sub(self.on_the_way.len());
        self.on_the_way.extend(self.changes.iter().take(room).cloned());
        let kept = self.keep();
        for change in &mut self.changes {
            change.kept = kept;
        }
        for change in self.changes.drain(..) {
            self.shared.metrics.observe_change(&change);
            let message = Message::of_change(&change);
            self.shared.live.publish("alert", message.severity, &message.json);
            self.sinks.change(&change);
            if self.logs_alerts {
                log(&change);
            }
        }
    }

    /// Keeps the alerts and what is on its way; whether they are on disk now.
    fn keep(&mut self) -> bool {
        let mut state = self.engine.state(&self.boot_id);
        state.on_the_way.clone_from(&self.on_the_way);
        self.kept.keep(state)
    }

    /// Why what is told of alerts is not on disk, where it is not.
    pub(super) fn not_kept(&self) -> Vec<String> {
        let queues = self.sinks.kept().and_then(|kept| kept.failing);
        let queues = queues.map(|why| format!("what waits for sinks is not kept: {why}"));
        let alerts = self.kept.failure().map(|why| format!("alerts are not kept: {why}"));
        alerts.into_iter().chain(queues).collect()
    }
}

impl Shared {
    /// Notes what is asked for later.
    fn note(&self, signal: &Signal) {
        self.signals.fetch_add(1, Ordering::Relaxed);
        if let Some(health) = &signal.health {
            let at = Anchor { boot_ns: signal.boot_ns, unix_ns: signal.unix_ns };
            let key = (signal.gpu.bdf, signal.gpu.partition);
            self.state().health.insert(key, (at, Arc::clone(health)));
        }
    }
}
