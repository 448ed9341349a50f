//! Where signals and alerts go: files, the journal, Alertmanager, webhooks, mail, programs, OpenTelemetry.
//!
//! A [`Sink`] takes messages and says whether it did. Everything else is the same for all of them and lies
//! before it in its [`Outbox`]: queue, threads, retries, spool, counts. [`Sinks`] holds all of one machine.
//!
//! What holds for every sink:
//!
//! 1. Offering never waits, whatever a server or a disk does.
//! 2. Memory and disk are bounded; what finds no room is counted, told and, in streams of records, marked.
//! 3. Messages are delivered in order. A message is gone only when the sink took it, refused it, or could not
//!    be reached for `give_up`; the latter two are dead letters, counted and told.
//! 4. A message keeps its id through every retry and restart. Where an answer is lost nobody can know whether
//!    the message arrived: it is sent again under the same id, which the receiver sees
//!    (`Idempotency-Key`, `Message-ID`, `GPUEV_ID`, …).
//! 5. No redirect is followed, TLS is verified, secrets are read from files and stand in no error.

mod alertmanager;
mod backoff;
mod base64;
mod exec;
mod file;
mod http;
mod journald;
mod message;
mod otlp;
mod outbox;
mod rotate;
mod secret;
mod settings;
mod sinks;
mod smtp;
mod spool;
mod webhook;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use gpuev::Severity;
use serde::{Deserialize, Serialize};

use crate::quantity::Size;

pub use alertmanager::AlertmanagerSettings;
pub use exec::ExecSettings;
pub use file::FileSettings;
pub use http::HttpSettings;
pub use journald::JournaldSettings;
pub use message::{Kind, Message, Numbering};
pub use otlp::OtlpSettings;
pub use outbox::{Notice, Outbox, OutboxSettings, OutboxStart, Report, Stats};
pub use settings::{Context, Firing, InvalidSink, Settings};
pub use sinks::Sinks;
pub use smtp::{SmtpSettings, Tls};
pub use spool::SyncPolicy;
pub use webhook::{Ready, WebhookSettings};

/// How large a spool may become where the settings do not say.
const SPOOL: Size = Size(64 << 20);

/// Something that takes messages.
pub trait Sink: Send {
    /// How many messages it takes at once, at most.
    fn batch(&self) -> usize {
        1
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

/// Why a sink did not take messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may take them later.
    Later {
        /// Why, for people, with what to do.
        error: String,
        /// When, if the server says so.
        after: Option<Duration>,
    },
    /// It will never take them as they are.
    Refused(String),
}

impl Failure {
    /// It may work later; nobody says when.
    pub fn later(error: impl Into<String>) -> Self {
        Self::Later { error: error.into(), after: None }
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
    /// Also changes of alerts that wake nobody: pending, silenced, held back by the rate limit.
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
