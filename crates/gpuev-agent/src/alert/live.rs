//! One alert that is not over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rule::{Rule, Variables};

use super::book::Subject;
use super::group::Group;
use super::{Alert, AlertChange, AlertState, Resolution, summary};

/// A running count is told to those who look at every change so often at most.
const COUNT_TOLD_NS: i64 = 30_000_000_000;
/// An example is taken so often at most: a storm is not to cost its JSON each time.
const EXAMPLE_NS: i64 = 1_000_000_000;
/// Longer examples are left out.
const LONGEST_EXAMPLE: usize = 16 << 10;

/// One alert that is not over, and what has been told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(super) fingerprint: u64,
    pub(super) alert: Arc<Alert>,
    /// People know that it fires: they will be told that it is over.
    told: bool,
    /// When people were told last.
    told_unix_ns: i64,
    /// When those who look at every change were told last.
    changed_unix_ns: i64,
    example_unix_ns: i64,
    count_told: u64,
    remind_ns: Option<u64>,
    summary: String,
}

impl Live {
    pub(super) fn new(fingerprint: u64, subject: &Subject<'_>, serial: u64, count: u64) -> Self {
        let Subject { rule, signal, .. } = subject;
        let started_unix_ns = signal.unix_ns;
        let alert = Alert {
            id: format!("{fingerprint:016x}-{started_unix_ns:x}-{serial:x}"),
            revision: 0,
            fingerprint: format!("{fingerprint:016x}"),
            rule: rule.name.clone(),
            severity: rule.severity,
            state: AlertState::Pending,
            labels: subject.labels(),
            summary: String::new(),
            action: rule.action.clone(),
            count,
            started_unix_ns,
            fired_unix_ns: None,
            last_unix_ns: started_unix_ns,
            resolved_unix_ns: None,
            resolved_by: None,
            acknowledged_by: None,
            silenced: false,
            group: String::new(),
            victims: Vec::new(),
            example: String::new(),
        };
        let told_unix_ns = started_unix_ns;
        Self {
            fingerprint,
            alert: Arc::new(alert),
            told: false,
            told_unix_ns,
            changed_unix_ns: started_unix_ns,
            example_unix_ns: i64::MIN,
            count_told: 0,
            remind_ns: rule.remind_ns,
            summary: rule.summary.clone(),
        }
    }

    /// One more signal of it.
    pub(super) fn matched(&mut self, rule: &Rule, weight: u64, variables: &Variables<'_>) {
        let unix_ns = variables.signal().unix_ns;
        let alert = Arc::make_mut(&mut self.alert);
        alert.count = alert.count.saturating_add(weight);
        alert.last_unix_ns = alert.last_unix_ns.max(unix_ns);
        if unix_ns.saturating_sub(self.example_unix_ns) >= EXAMPLE_NS {
            self.example_unix_ns = unix_ns;
            alert.example.clear();
            variables.signal().write_json(&mut alert.example);
            if alert.example.len() > LONGEST_EXAMPLE {
                alert.example.clear();
            }
            let group = Group::of(rule, variables);
            (alert.group, alert.victims) = (group.key, group.victims);
            alert.summary = summary::fill(&self.summary, &alert.labels, alert.count, variables);
        }
    }

    /// Somebody should know.
    pub(super) fn fire(&mut self, unix_ns: i64) {
        let alert = Arc::make_mut(&mut self.alert);
        alert.state = AlertState::Firing;
        alert.fired_unix_ns = Some(unix_ns);
    }

    pub(super) fn is_firing(&self) -> bool {
        self.alert.state == AlertState::Firing
    }

    /// It fires, nobody who is woken by it knows, and nothing forbids to tell.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.is_firing() && !self.told && !self.alert.silenced
    }

    /// Nobody has said that he has seen it, for too long.
    pub(super) fn is_to_be_told_again(&self, unix_ns: i64) -> bool {
        let since = unix_ns.saturating_sub(self.told_unix_ns);
        let due = self.remind_ns.is_some_and(|every| i128::from(since) >= i128::from(every));
        self.is_firing()
            && self.told
            && due
            && !self.alert.silenced
            && self.alert.acknowledged_by.is_none()
    }

    /// Sets whether a silence covers it; whether that is new.
    pub(super) fn set_silenced(&mut self, silenced: bool) -> bool {
        let changed = self.alert.silenced != silenced;
        if changed {
            Arc::make_mut(&mut self.alert).silenced = silenced;
        }
        changed
    }

    pub(super) fn acknowledge(&mut self, by: Option<&str>) {
        Arc::make_mut(&mut self.alert).acknowledged_by = by.map(str::to_owned);
    }

    /// Whether those who look at every change should hear the count again.
    pub(super) fn count_is_news(&self, unix_ns: i64) -> bool {
        self.alert.count != self.count_told
            && unix_ns.saturating_sub(self.changed_unix_ns) >= COUNT_TOLD_NS
    }

    /// The next revision of it.
    pub(super) fn change(&mut self, notify: bool, unix_ns: i64) -> AlertChange {
        if notify {
            self.told = true;
            self.told_unix_ns = unix_ns;
        }
        self.changed_unix_ns = unix_ns;
        let alert = Arc::make_mut(&mut self.alert);
        alert.revision += 1;
        self.count_told = alert.count;
        AlertChange { alert: Arc::clone(&self.alert), notify, kept: true }
    }

    /// It is over. Who knows that it fired is told, whatever else holds.
    pub(super) fn end(mut self, resolution: Resolution, unix_ns: i64) -> AlertChange {
        let alert = Arc::make_mut(&mut self.alert);
        alert.state = AlertState::Resolved;
        alert.resolved_unix_ns = Some(unix_ns.max(alert.started_unix_ns));
        alert.resolved_by = Some(resolution);
        let told = self.told;
        self.change(told, unix_ns)
    }
}
