//! What a sink gets: one record as JSON, with what is needed to choose, order and recognise it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gpuev::Severity;
use gpuev::json::Object;
use gpuev::time::{Anchor, Rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::people::Limit;
use crate::alert::{Alert, AlertChange, AlertState, Resolution};
use crate::signal::Signal;

/// What kind of record a [`Message`] holds, as in its JSON's `record`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An event of the driver.
    Event,
    /// Events that may have been missed.
    Gap,
    /// A start with its end.
    Span,
    /// A periodic reading.
    Health,
    /// A counter of RAS errors rose.
    Ras,
    /// Many alike events, told as one.
    Aggregate,
    /// A GPU came, left or cannot be read.
    Gpu,
    /// A change of an alert.
    Alert,
    /// Messages that this sink was to get and did not: its queue was full.
    Lost,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Event,
        Self::Gap,
        Self::Span,
        Self::Health,
        Self::Ras,
        Self::Aggregate,
        Self::Gpu,
        Self::Alert,
        Self::Lost,
    ];

    /// The name in JSON and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Gap => "gap",
            Self::Span => "span",
            Self::Health => "health",
            Self::Ras => "ras",
            Self::Aggregate => "aggregate",
            Self::Gpu => "gpu",
            Self::Alert => "alert",
            Self::Lost => "lost",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One record on its way to sinks. Cheap to clone: all sinks share one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Tells it from every other message of this machine. What comes a second time under one id, because an
    /// answer was lost or the agent was killed, is the same message.
    pub id: Arc<str>,
    /// What it holds.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Somebody should be woken: [`AlertChange::notify`].
    pub notify: bool,
    /// When it happened, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The record as one JSON object without a newline, see `docs/event-schema.md`.
    pub json: Arc<str>,
    /// Of which alert it tells, where it does.
    pub alert: Option<Told>,
    /// How often people are told of its rule, where the rule says so.
    pub(super) limit: Option<Limit>,
}

/// Which state of which alert a message tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The alert.
    pub id: Arc<str>,
    /// The revision of it.
    pub revision: u64,
    /// Where it is in its life.
    pub state: AlertState,
    /// What it belongs to: [`Alert::group`].
    pub group: Arc<str>,
    /// The rule that found it.
    pub rule: Arc<str>,
}

impl Told {
    fn of(alert: &Alert) -> Self {
        Self {
            id: alert.id.as_str().into(),
            revision: alert.revision,
            state: alert.state,
            group: alert.group.as_str().into(),
            rule: alert.rule.as_str().into(),
        }
    }
}

impl Message {
    /// A change of an alert. Its id is the alert's with the revision.
    #[must_use]
    pub fn of_change(change: &AlertChange) -> Self {
        let alert = &*change.alert;
        Self {
            id: format!("{}.{}", alert.id, alert.revision).into(),
            kind: Kind::Alert,
            severity: alert.severity,
            notify: change.notify && alert.state != AlertState::Pending,
            unix_ns: changed_unix_ns(alert),
            json: alert_json(alert, change.kept).into(),
            alert: Some(Told::of(alert)),
            limit: None,
        }
    }

    /// An alert that is none: it says that a sink is tried. It begins and is over, so that pagers page and nothing stays.
    pub(super) fn of_test(sink: &str, host: &str) -> [Self; 2] {
        let now = Anchor::now().unix_ns;
        let labels = [("rule", "gpuev-test"), ("severity", "info"), ("host", host)];
        let firing = Alert {
            id: format!("test-{now:x}"),
            revision: 1,
            fingerprint: "test".to_owned(),
            rule: "gpuev-test".to_owned(),
            severity: Severity::Info,
            state: AlertState::Firing,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            summary: format!("This is a test of the sink {sink} by gpuev on {host}"),
            action: "Nothing is wrong, and nothing is to be done.".to_owned(),
            count: 1,
            started_unix_ns: now,
            fired_unix_ns: Some(now),
            last_unix_ns: now,
            resolved_unix_ns: None,
            resolved_by: None,
            acknowledged_by: None,
            silenced: false,
            group: "rule/gpuev-test".to_owned(),
            victims: Vec::new(),
            example: "{}".to_owned(),
        };
        let over = Alert {
            revision: 2,
            state: AlertState::Resolved,
            resolved_unix_ns: Some(now),
            resolved_by: Some(Resolution::Opposite),
            ..firing.clone()
        };
        [firing, over].map(|alert| {
            Self::of_change(&AlertChange { alert: Arc::new(alert), notify: true, kept: true })
        })
    }

    /// A message as it was kept.
    pub(super) fn kept(
        id: Arc<str>,
        kind: Kind,
        severity: Severity,
        notify: bool,
        unix_ns: i64,
        json: Arc<str>,
    ) -> Self {
        let mut message =
            Self { id, kind, severity, notify, unix_ns, json, alert: None, limit: None };
        message.alert = message.alert().as_ref().map(Told::of);
        message
    }

    /// How bad it is at the moment: an alert that does not fire yet, or is over, is for who wants to know.
    pub(super) fn severity_now(&self) -> Severity {
        let fires = |told: &Told| told.state == AlertState::Firing;
        if self.alert.as_ref().is_none_or(fires) { self.severity } else { Severity::Info }
    }

    pub(super) fn alert_id(&self) -> Option<&Arc<str>> {
        self.alert.as_ref().map(|alert| &alert.id)
    }

    pub(super) fn revision(&self) -> u64 {
        self.alert.as_ref().map_or(0, |alert| alert.revision)
    }

    /// The alert that it tells of, if it does.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        if self.kind != Kind::Alert {
            return None;
        }
        serde_json::from_str(&self.json).ok()
    }

    /// One line for people; `record` is what [`json`](Self::json) holds.
    pub(super) fn text(&self, record: &Value) -> String {
        let word = |key: &str| record[key].as_str().unwrap_or_default();
        match self.kind {
            Kind::Event => word("message").to_owned(),
            Kind::Alert => format!("{} {}: {}", word("state"), word("rule"), word("summary")),
            kind => {
                let gpu = record.pointer("/gpu/bdf").and_then(Value::as_str).unwrap_or_default();
                let words = [kind.name(), word("type"), word("cause"), word("change"), gpu];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                words.join(" ")
            }
        }
    }

    /// How much memory it takes in a queue, about.
    pub(super) fn bytes(&self) -> usize {
        self.json.len() + self.id.len() + size_of::<Self>()
    }
}

/// When the alert became what it is now.
fn changed_unix_ns(alert: &Alert) -> i64 {
    match alert.state {
        AlertState::Resolved => alert.resolved_unix_ns.unwrap_or(alert.last_unix_ns),
        AlertState::Pending | AlertState::Firing => alert.last_unix_ns,
    }
}

/// The record of an alert: version, kind and time, then the alert's own fields.
fn alert_json(alert: &Alert, kept: bool) -> String {
    #[derive(Serialize)]
    struct Record<'a> {
        v: u32,
        record: &'static str,
        time: String,
        #[serde(flatten)]
        alert: &'a Alert,
        /// Only where it is not on disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        kept: Option<bool>,
    }
    let record = Record {
        v: gpuev::json::VERSION,
        record: Kind::Alert.name(),
        time: Rfc3339(changed_unix_ns(alert)).to_string(),
        alert,
        kept: (!kept).then_some(false),
    };
    serde_json::to_string(&record)
        .expect("an alert has only texts and numbers and should serialize")
}

/// Gives messages their ids: the run and a number that counts up in it.
#[derive(Debug)]
pub struct Numbering {
    run: String,
    next: AtomicU64,
}

impl Numbering {
    /// Ids of a new run: no run of this machine that began at another nanosecond has the same.
    #[must_use]
    pub fn new() -> Self {
        let began = Anchor::now().unix_ns;
        Self { run: format!("{began:x}-{:x}", std::process::id()), next: AtomicU64::new(0) }
    }

    /// A signal as a message. The id stands in its JSON, too.
    #[must_use]
    pub fn of_signal(&self, signal: &Signal) -> Message {
        let id = self.next_id();
        let mut json = String::with_capacity(512);
        signal.write_json(&mut json);
        json.pop();
        json.push_str(",\"id\":\"");
        json.push_str(&id);
        json.push_str("\"}");
        Message {
            id,
            kind: kind_of(signal),
            severity: signal.severity(),
            notify: false,
            unix_ns: signal.unix_ns,
            json: json.into(),
            alert: None,
            limit: None,
        }
    }

    /// `count` messages for `sink` are missing here.
    pub(super) fn of_loss(&self, sink: &str, count: u64) -> Message {
        let id = self.next_id();
        let unix_ns = Anchor::now().unix_ns;
        let mut json = String::new();
        let mut object = Object::begin(&mut json, Kind::Lost.name());
        object.text("sink", sink);
        object.number("count", count);
        object.text("time", Rfc3339(unix_ns));
        object.text("id", &id);
        object.end();
        Message {
            id,
            kind: Kind::Lost,
            severity: Severity::Warning,
            notify: false,
            unix_ns,
            json: json.into(),
            alert: None,
            limit: None,
        }
    }

    fn next_id(&self) -> Arc<str> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.run).into()
    }
}

impl Default for Numbering {
    fn default() -> Self {
        Self::new()
    }
}

/// The kind of message that a signal becomes.
pub(super) fn kind_of(signal: &Signal) -> Kind {
    Kind::from_name(signal.kind()).unwrap_or(Kind::Event)
}
