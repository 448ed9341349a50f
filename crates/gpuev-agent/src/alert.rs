//! An alert: what a rule found wrong, from its beginning to its end.

mod book;
mod group;
mod live;
mod silence;
mod state;
mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;

use gpuev::Severity;
use serde::{Deserialize, Serialize};

pub(crate) use book::{Alerts, SavedBook, Subject};
pub use book::{Book, BookStats};
pub use silence::{NewSilence, Silence};
pub use state::{State, StateFile};
pub(crate) use summary::placeholders;

/// What a rule found wrong with one GPU, process or job. One alert is one such thing, from pending to
/// resolved; the next time is another alert with the same [`fingerprint`](Self::fingerprint).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Tells this alert from all others of this machine, also after a restart: what arrives twice under one
    /// id and revision is the same message.
    pub id: String,
    /// Rises with every change of this alert, from 1.
    pub revision: u64,
    /// The rule and the labels that group it, as a hash: the same thing has the same.
    pub fingerprint: String,
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    #[serde(with = "severity_name")]
    pub severity: Severity,
    /// Where it is in its life.
    pub state: AlertState,
    /// What it is about: `gpu` (the BDF), `rule`, `severity`, `host`, and what the rule adds (`pid`, `job`, …).
    pub labels: BTreeMap<String, String>,
    /// One line for a person: what happened.
    pub summary: String,
    /// What to do about it.
    pub action: String,
    /// How many signals matched so far.
    pub count: u64,
    /// When the first signal matched, in nanoseconds since 1970.
    pub started_unix_ns: i64,
    /// When it began to fire, in nanoseconds since 1970.
    pub fired_unix_ns: Option<i64>,
    /// When the last signal matched, in nanoseconds since 1970.
    pub last_unix_ns: i64,
    /// When it ended, in nanoseconds since 1970.
    pub resolved_unix_ns: Option<i64>,
    /// What ended it.
    pub resolved_by: Option<Resolution>,
    /// Who said that he has seen it.
    pub acknowledged_by: Option<String>,
    /// A silence covers it: it lives on, and nobody is told.
    pub silenced: bool,
    /// Which alerts of this machine are one thing to people: they are told in one message.
    #[serde(default)]
    pub group: String,
    /// Who was hit, where that is known: processes with their jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<String>,
    /// The last signal that matched, as its JSON.
    pub example: String,
}

impl Alert {
    /// The alert as people are told of it: without the record behind it.
    pub(crate) fn without_example(&self) -> Self {
        Self { example: String::new(), ..self.clone() }
    }
}

/// Where an alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Its condition holds and not yet for as long as the rule asks.
    Pending,
    /// Somebody should know.
    Firing,
    /// It is over.
    Resolved,
}

impl AlertState {
    /// The name in JSON, metrics and texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What ended an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The opposite happened: the reset finished, the queue was restored.
    Opposite,
    /// Nothing of the kind for as long as the rule asks.
    Quiet,
    /// The machine was booted anew.
    Boot,
    /// The rule is no longer there.
    RuleRemoved,
}

impl Resolution {
    /// The name in JSON and texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opposite => "opposite",
            Self::Quiet => "quiet",
            Self::Boot => "boot",
            Self::RuleRemoved => "rule_removed",
        }
    }
}

/// An alert changed in a way that others should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertChange {
    /// The alert as it is now.
    pub alert: Arc<Alert>,
    /// Sinks that wake people are told: it began to fire, got worse or was resolved, and is neither silenced
    /// nor held back by the rate limit. Others (the page, the metrics) look at every change.
    pub notify: bool,
    /// It was on disk before it was told: a restart knows of it.
    #[serde(default = "yes")]
    pub kept: bool,
}

const fn yes() -> bool {
    true
}

/// Severities by name: the library's own type knows no serde.
mod severity_name {
    use gpuev::Severity;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(severity.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Severity, D::Error> {
        let name = String::deserialize(from)?;
        Severity::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("no such severity: {name}")))
    }
}
