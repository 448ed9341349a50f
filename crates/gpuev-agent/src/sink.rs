//! Where signals and alerts go: files, the journal, Alertmanager, webhooks, mail, programs, OpenTelemetry.
//!
//! A [`Sink`] takes messages and says whether it did. Everything else is the same for all of them and lies
//! before it in its [`Outbox`]: queue, thread, retries, counts. [`Sinks`] holds all of one machine, and the [`Mirror`]
//! keeps on disk what waits.
//!
//! What holds for every sink:
//!
//! 1. Offering never waits, whatever a server or a disk does.
//! 2. Memory and disk are bounded; what finds no room is counted, told and, in streams of records, marked. Critical
//!    alerts find room where there are others.
//! 3. Only a receiver that cannot be reached stops the line. A message that its receiver answers with an error is tried
//!    again alone and holds up nobody; one that it refuses for good is a dead letter. Both are counted, told and listed.
//!    Of each alert the latest state is delivered, critical ones first; streams of records keep their order.
//! 4. A message keeps its id through every retry and restart. Where an answer is lost nobody can know whether
//!    the message arrived: it is sent again under the same id, which the receiver sees
//!    (`Idempotency-Key`, `Message-ID`, `GPUEV_ID`, …).
//! 5. No redirect is followed, TLS is verified, secrets are read from files and stand in no error.

mod alertmanager;
mod base64;
mod bell;
mod exec;
mod file;
mod http;
mod journald;
mod message;
mod mirror;
mod otlp;
mod outbox;
mod people;
mod rotate;
mod secret;
mod settings;
mod sinks;
mod smtp;
mod webhook;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use gpuev::Severity;
use serde::{Deserialize, Serialize};

pub use alertmanager::AlertmanagerSettings;
pub use exec::ExecSettings;
pub use file::FileSettings;
pub use http::HttpSettings;
pub use journald::JournaldSettings;
pub use message::{Kind, Message, Numbering, Told};
pub use mirror::{Mirror, MirrorStats};
pub use otlp::OtlpSettings;
pub use outbox::{
    DeadLetter, Notice, Outbox, OutboxSettings, OutboxStart, Report, SetAside, Stats, SyncPolicy,
};
pub use people::Limit;
pub use settings::{Context, Firing, InvalidSink, Settings};
pub use sinks::Sinks;
pub use smtp::{SmtpSettings, Tls};
pub use webhook::{Ready, WebhookSettings};

/// Something that takes messages.
pub trait Sink: Send {
    /// How many messages it takes at once, at most.
    fn batch(&self) -> usize {
        1
    }

    /// In which order it takes messages.
    fn order(&self) -> Order {
        Order::Alerts
    }

    /// Its receivers read records one by one: a record `lost` tells them what is missing.
    fn tells_loss(&self) -> bool {
        false
    }

    /// Delivers all of `batch` or nothing of it, and tells how many of them the receiver took and threw
    /// away.
    ///
    /// # Errors
    /// Nothing was delivered, as far as can be known.
    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure>;

    /// What went wrong with messages that were delivered all the same: some of those who should have got them
    /// did not. Asked after each delivery.
    fn take_misses(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// After how long [`upkeep`](Self::upkeep) is to be called; `None`: there is nothing to do.
    fn upkeep_every(&self) -> Option<Duration> {
        None
    }

    /// What has to be done from time to time: say again what still holds, bring a file to the medium.
    ///
    /// # Errors
    /// It did not work; it is tried again.
    fn upkeep(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// In which order a sink is given messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The worst first, and of each alert its latest state only.
    Alerts,
    /// As alerts, those that belong together at once: the receiver is a person.
    People,
    /// As they came, each of them.
    Records,
    /// As they came, each of them, and nothing before what came earlier: a file or a journal is not reordered.
    Lines,
}

/// Why a sink did not take messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The receiver cannot be reached, or takes nothing at the moment: nothing is tried for a while.
    Unreachable {
        /// Why, for people, with what to do.
        error: String,
        /// When, if the server says so.
        after: Option<Duration>,
    },
    /// The receiver answered, and did not take these messages: they are tried again, and others go on.
    Failed {
        /// Why, for people, with what to do.
        error: String,
        /// When, if the server says so.
        after: Option<Duration>,
    },
    /// It will never take them as they are.
    Refused(String),
}

impl Failure {
    /// The receiver cannot be reached; nobody says until when.
    pub fn unreachable(error: impl Into<String>) -> Self {
        Self::Unreachable { error: error.into(), after: None }
    }

    /// The receiver answered with an error; nobody says when to try again.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), after: None }
    }

    /// Why, for people.
    #[must_use]
    pub fn into_text(self) -> String {
        match self {
            Self::Unreachable { error, .. } | Self::Failed { error, .. } | Self::Refused(error) => {
                error
            }
        }
    }
}

/// Which messages a sink gets: `send.*`. What is unset is as the kind of sink has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// These kinds of records.
    pub records: Option<BTreeSet<Kind>>,
    /// Only what is at least so bad: `info`, `warning` or `critical`.
    #[serde(with = "severity_name")]
    pub min_severity: Option<Severity>,
    /// Also changes of alerts that wake nobody: pending, silenced.
    pub every_change: Option<bool>,
}

impl Filter {
    /// All changes and severities of these kinds.
    fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            records: Some(kinds.into_iter().collect()),
            min_severity: Some(Severity::Info),
            every_change: Some(true),
        }
    }

    /// Changes of alerts that should wake somebody.
    fn of_alerts() -> Self {
        Self { every_change: Some(false), ..Self::of([Kind::Alert]) }
    }

    /// What is unset is as in `defaults`.
    fn or(&self, defaults: &Self) -> Self {
        Self {
            records: self.records.clone().or_else(|| defaults.records.clone()),
            min_severity: self.min_severity.or(defaults.min_severity),
            every_change: self.every_change.or(defaults.every_change),
        }
    }

    fn wants(&self, kind: Kind, severity: Severity) -> bool {
        self.records.as_ref().is_some_and(|kinds| kinds.contains(&kind))
            && self.min_severity.is_none_or(|least| severity >= least)
    }

    fn takes(&self, message: &Message) -> bool {
        let everything = message.kind != Kind::Alert || self.every_change == Some(true);
        self.wants(message.kind, message.severity) && (everything || message.notify)
    }
}

/// Severities by name, where one is given.
mod severity_name {
    use gpuev::Severity;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        severity: &Option<Severity>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        severity.map(Severity::name).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Severity>, D::Error> {
        let name = String::deserialize(from)?;
        let found = Severity::from_name(&name);
        let unknown = || D::Error::custom("the severities are `info`, `warning`, `critical`");
        found.map(Some).ok_or_else(unknown)
    }
}
