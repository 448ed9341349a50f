//! Alertmanager, API v2.
//!
//! Alertmanager forgets a firing alert that nobody speaks of for its `endsAt`. So every alert that fires is
//! sent again each `resend`, with an `endsAt` four times as far away, as Prometheus does; one that is over is
//! sent with the time when it ended. An agent that dies leaves no alert behind for ever, and one that comes
//! back says what still holds. What is sent twice is the same alert to Alertmanager: labels tell them apart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use gpuev::time::{Anchor, Rfc3339};
use serde::{Deserialize, Serialize};

use super::http::{Client, HttpSettings, check_url};
use super::message::{Kind, Message};
use super::outbox::OutboxSettings;
use super::settings::{Context, Firing, SinkSettings};
use super::{Failure, Filter, Sink};
use crate::alert::{Alert, AlertState};
use crate::quantity::Period;

/// Alerts whose first telling is remembered.
const MOST_TOLD: usize = 4096;
/// Alerts in one request, at most.
const BATCH: usize = 64;

/// `[sinks.alertmanager.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSettings {
    /// Its addresses without `/api/v2`. More than one are a cluster: all of them are told.
    pub urls: Vec<String>,
    /// How often alerts that fire are sent again.
    #[serde(default = "resend")]
    pub resend: Period,
    /// How long an alert fires at least, from when Alertmanager hears of it: one that is over before its `group_wait`
    /// would tell nobody.
    #[serde(default = "fires_at_least")]
    pub fires_at_least: Period,
    /// Labels for every alert, such as the cluster's name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How the server is reached.
    #[serde(default)]
    pub http: HttpSettings,
    /// What is sent. Unset: alerts that should wake somebody.
    #[serde(default)]
    pub send: Filter,
    /// How messages wait. They are kept on disk, too, unless `queue.spool` says otherwise.
    #[serde(default)]
    pub queue: OutboxSettings,
}

const fn resend() -> Period {
    Period::from_secs(60)
}

const fn fires_at_least() -> Period {
    Period::from_secs(300)
}

impl SinkSettings for AlertmanagerSettings {
    const KIND: &'static str = "alertmanager";
    const PROMISES: bool = true;

    fn defaults() -> Filter {
        Filter::of_alerts()
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String> {
        if self.urls.is_empty() {
            return Err("`urls` is empty: give Alertmanager's address".to_owned());
        }
        self.urls.iter().try_for_each(|url| check_url(url))?;
        let least = self.send.or(&Self::defaults()).min_severity.unwrap_or(Severity::Info);
        Ok(Box::new(Alertmanager {
            client: Client::new(&self.http)?,
            settings: self.clone(),
            firing: context.firing.clone(),
            least,
            told: VecDeque::new(),
        }))
    }
}

struct Alertmanager {
    client: Client,
    settings: AlertmanagerSettings,
    firing: Firing,
    least: Severity,
    /// Since when Alertmanager knows of alerts, of the latest of them.
    told: VecDeque<(String, i64)>,
}

/// An alert as Alertmanager takes it.
#[derive(Debug, Serialize)]
struct Posted {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

impl Alertmanager {
    fn posted(&self, alert: &Alert) -> Posted {
        let own = alert.labels.iter().filter(|(_, value)| !value.is_empty());
        let labels = own.chain(&self.settings.labels);
        let mut labels: BTreeMap<String, String> =
            labels.map(|(name, value)| (label_name(name), value.clone())).collect();
        labels.insert("alertname".to_owned(), alert.rule.clone());
        // An alert that got worse is another one to Alertmanager; the milder ends with its `endsAt`.
        labels.insert("severity".to_owned(), alert.severity.name().to_owned());
        let annotations = [
            ("summary", alert.summary.clone()),
            ("action", alert.action.clone()),
            ("count", alert.count.to_string()),
            ("gpuev_id", format!("{}.{}", alert.id, alert.revision)),
        ];
        let started = alert.fired_unix_ns.unwrap_or(alert.started_unix_ns);
        Posted {
            labels,
            annotations: annotations.into_iter().filter(|(_, text)| !text.is_empty()).collect(),
            starts_at: Rfc3339(started).to_string(),
            ends_at: Rfc3339(self.ends_unix_ns(alert)).to_string(),
        }
    }

    /// One that is over ends when it did, and not before Alertmanager has had time to tell of it: an end in the future
    /// is what it waits for by itself.
    fn ends_unix_ns(&self, alert: &Alert) -> i64 {
        let after = |from: i64, period: Period, times: u64| {
            let ns = i64::try_from(period.as_nanos().saturating_mul(times)).unwrap_or(i64::MAX);
            from.saturating_add(ns)
        };
        let now = Anchor::now().unix_ns;
        if alert.state != AlertState::Resolved {
            return after(now, self.settings.resend, 4);
        }
        let ended = alert.resolved_unix_ns.unwrap_or(alert.last_unix_ns);
        let known = self.told.iter().find(|(id, _)| *id == alert.id).map(|(_, since)| *since);
        ended.max(after(known.unwrap_or(now), self.settings.fires_at_least, 1))
    }

    /// Alertmanager knows of this alert since then.
    fn note_told(&mut self, alert: &Alert, since_unix_ns: i64) {
        if alert.state == AlertState::Firing && !self.told.iter().any(|(id, _)| *id == alert.id) {
            self.told.push_back((alert.id.clone(), since_unix_ns));
            if self.told.len() > MOST_TOLD {
                self.told.pop_front();
            }
        }
    }

    fn post(&self, alerts: &[Posted]) -> Result<(), Failure> {
        let body = serde_json::to_string(alerts).map_err(|e| Failure::Refused(e.to_string()))?;
        let headers = [("Content-Type", "application/json")];
        let mut taken = false;
        let mut failure = None;
        for url in &self.settings.urls {
            let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
            match self.client.post(&url, &headers, &body) {
                Ok(_) => taken = true,
                Err(error) => failure = Some(error),
            }
        }
        // The members of a cluster tell each other what they notified, not what they were told: a member
        // that misses it hears of it with the next resend.
        if taken { Ok(()) } else { failure.map_or(Ok(()), Err) }
    }
}

impl Sink for Alertmanager {
    fn batch(&self) -> usize {
        BATCH
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        let mut alerts: Vec<Alert> = Vec::with_capacity(batch.len());
        for message in batch.iter().filter(|message| message.kind == Kind::Alert) {
            let Some(alert) = message.alert() else {
                return Err(Failure::Refused("it is not an alert".to_owned()));
            };
            alerts.push(alert);
        }
        let posted: Vec<Posted> = alerts.iter().map(|alert| self.posted(alert)).collect();
        self.post(&posted)?;
        let now = Anchor::now().unix_ns;
        alerts.iter().for_each(|alert| self.note_told(alert, now));
        Ok(0)
    }

    fn upkeep_every(&self) -> Option<Duration> {
        Some(self.settings.resend.0)
    }

    fn upkeep(&mut self) -> Result<(), Failure> {
        let firing: Vec<Arc<Alert>> = (self.firing)();
        let told = firing.iter().filter(|alert| {
            let fires = alert.state == AlertState::Firing && !alert.silenced;
            fires && alert.severity >= self.least
        });
        let told: Vec<&Arc<Alert>> = told.collect();
        for alerts in told.chunks(BATCH) {
            let posted: Vec<Posted> = alerts.iter().map(|alert| self.posted(alert)).collect();
            self.post(&posted)?;
        }
        // What is not known yet was told by an earlier run.
        for alert in told {
            self.note_told(alert, alert.fired_unix_ns.unwrap_or(alert.started_unix_ns));
        }
        Ok(())
    }
}

/// Alertmanager takes letters, digits and `_`, and no digit first.
fn label_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
