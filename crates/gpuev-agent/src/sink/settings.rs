//! Which sinks there are, and what all kinds of them have in common.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alertmanager::AlertmanagerSettings;
use super::exec::ExecSettings;
use super::file::FileSettings;
use super::journald::JournaldSettings;
use super::message::Message;
use super::otlp::OtlpSettings;
use super::outbox::{OutboxSettings, Report};
use super::smtp::SmtpSettings;
use super::webhook::WebhookSettings;
use super::{Filter, Sink};
use crate::alert::Alert;
use crate::metrics::Metrics;

/// All sinks of a machine: `[sinks.KIND.NAME]`, see `docs/sinks.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Alertmanagers.
    pub alertmanager: BTreeMap<String, AlertmanagerSettings>,
    /// Programs that are run.
    pub exec: BTreeMap<String, ExecSettings>,
    /// JSON lines in files.
    pub file: BTreeMap<String, FileSettings>,
    /// The systemd journal.
    pub journald: BTreeMap<String, JournaldSettings>,
    /// OpenTelemetry receivers.
    pub otlp: BTreeMap<String, OtlpSettings>,
    /// Mail.
    pub smtp: BTreeMap<String, SmtpSettings>,
    /// Webhooks.
    pub webhook: BTreeMap<String, WebhookSettings>,
}

/// What sinks need besides their settings.
#[derive(Clone)]
pub struct Context {
    /// The folder that survives restarts: what waits is kept there.
    pub state_dir: PathBuf,
    /// This machine's name.
    pub host: String,
    /// Who is told of trouble.
    pub report: Report,
    /// What is counted and measured, for sinks that send that as well.
    pub metrics: Arc<Metrics>,
    /// The alerts as they are now, for sinks that say again what still holds.
    pub firing: Firing,
}

/// Tells the alerts that are known now. Called by the threads of sinks.
pub type Firing = Arc<dyn Fn() -> Vec<Arc<Alert>> + Send + Sync>;

/// Settings of one kind of sink.
pub(super) trait SinkSettings: Clone + Serialize + Send + 'static {
    /// What it is called in settings.
    const KIND: &'static str;
    /// What waits is kept on disk where the settings do not say: what it is given must not be lost.
    const PROMISES: bool;

    /// What it gets where the settings do not say.
    fn defaults() -> Filter;
    fn send(&self) -> &Filter;
    fn queue(&self) -> &OutboxSettings;

    /// The sink. Connects to nobody.
    ///
    /// # Errors
    /// The settings cannot work: why, for people.
    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String>;
}

/// One sink as the settings have it, whatever kind it is.
pub(super) struct Plan {
    /// `KIND.NAME`.
    pub(super) name: String,
    /// All of its settings as text: equal where nothing changed.
    pub(super) text: String,
    pub(super) filter: Filter,
    pub(super) queue: OutboxSettings,
    pub(super) kept: bool,
    build: Box<Build>,
}

type Build = dyn Fn(&Context) -> Result<Box<dyn Sink>, String>;

impl Plan {
    fn of<S: SinkSettings>(name: &str, settings: &S) -> Self {
        let queue = settings.queue().clone();
        let owned = settings.clone();
        Self {
            name: format!("{}.{name}", S::KIND),
            text: serde_json::to_string(settings).unwrap_or_default(),
            filter: settings.send().or(&S::defaults()),
            kept: queue.spool.map_or(S::PROMISES, |size| size.0 > 0),
            queue,
            build: Box::new(move |context| owned.build(context)),
        }
    }

    pub(super) fn build(&self, context: &Context) -> Result<Box<dyn Sink>, InvalidSink> {
        let invalid = |error| InvalidSink { sink: self.name.clone(), error };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !self.name.chars().all(plain) {
            let error = "it has no such name: use letters, digits, `-` and `_`";
            return Err(invalid(error.to_owned()));
        }
        (self.build)(context).map_err(invalid)
    }
}

impl Settings {
    /// All sinks by name.
    pub(super) fn plans(&self) -> Vec<Plan> {
        let mut plans = Vec::new();
        add(&mut plans, &self.alertmanager);
        add(&mut plans, &self.exec);
        add(&mut plans, &self.file);
        add(&mut plans, &self.journald);
        add(&mut plans, &self.otlp);
        add(&mut plans, &self.smtp);
        add(&mut plans, &self.webhook);
        plans
    }

    /// Delivers a test alert, that it fires and that it is over, to the sink `name` (`KIND.NAME`, or `NAME` where one sink
    /// alone has it), at once and without its queue. Gives the sink's whole name.
    ///
    /// # Errors
    /// There is no such sink, it cannot be built, or its receiver does not take the message: why, for people.
    pub fn test(&self, name: &str, context: &Context) -> Result<String, InvalidSink> {
        let plans = self.plans();
        let is_meant = |plan: &&Plan| {
            plan.name == name || plan.name.split_once('.').is_some_and(|(_, own)| own == name)
        };
        let meant: Vec<&Plan> = plans.iter().filter(is_meant).collect();
        let [plan] = meant[..] else {
            let all: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
            let error = format!("name one of the configuration's sinks: {}", all.join(", "));
            return Err(InvalidSink { sink: name.to_owned(), error });
        };
        let mut sink = plan.build(context)?;
        let invalid = |error| InvalidSink { sink: plan.name.clone(), error };
        for message in Message::of_test(&plan.name, &context.host) {
            sink.deliver(&[message]).map_err(|failure| invalid(failure.into_text()))?;
        }
        match sink.take_misses() {
            misses if misses.is_empty() => Ok(plan.name.clone()),
            misses => Err(invalid(misses.join("; "))),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans().is_empty()
    }

    /// Whether every sink can be built: templates compile, files of secrets are there. Connects to nobody.
    ///
    /// # Errors
    /// The first sink that cannot.
    pub fn check(&self, context: &Context) -> Result<(), InvalidSink> {
        self.plans().iter().try_for_each(|plan| plan.build(context).map(drop))
    }
}

fn add<S: SinkSettings>(plans: &mut Vec<Plan>, sinks: &BTreeMap<String, S>) {
    plans.extend(sinks.iter().map(|(name, settings)| Plan::of(name, settings)));
}

/// A sink whose settings cannot work, or that cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSink {
    /// `KIND.NAME`.
    pub sink: String,
    /// Why, with what to do.
    pub error: String,
}

impl fmt::Display for InvalidSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sink {}: {}", self.sink, self.error)
    }
}

impl std::error::Error for InvalidSink {}
