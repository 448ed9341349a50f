//! The book of alerts: those that are not over, those of late, silences, and who was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuev::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::rule::{Rule, Variables};
use crate::signal::Signal;

use super::live::Live;
use super::silence::LONGEST_TEXT;
use super::{Alert, AlertChange, NewSilence, Resolution, Silence};

/// Alerts that are not over.
const MOST_LIVE: usize = 2048;
/// Alerts that are over and still shown.
const MOST_ENDED: usize = 500;
const MOST_SILENCES: usize = 256;

/// The alerts of this machine. Clones are the same book.
#[derive(Debug, Clone, Default)]
pub struct Book(Arc<Mutex<Alerts>>);

/// How full the book is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BookStats {
    /// Alerts that are pending.
    pub pending: usize,
    /// Alerts that fire.
    pub firing: usize,
    /// Silences in force.
    pub silences: usize,
    /// Alerts that could not begin because there were too many.
    pub refused: u64,
}

/// What is in the book.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    live: BTreeMap<u64, Live>,
    ended: VecDeque<Arc<Alert>>,
    silences: Vec<Silence>,
    /// Alerts and silences that there ever were.
    serial: u64,
    refused: u64,
    changes: Vec<AlertChange>,
    /// Silences were made or ended, and that is not kept yet.
    new_silences: bool,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SavedBook {
    live: Vec<Live>,
    ended: Vec<Arc<Alert>>,
    silences: Vec<Silence>,
    serial: u64,
}

/// What an alert is about.
pub(crate) struct Subject<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) signal: &'a Signal,
    pub(crate) host: &'a str,
    /// The values of the rule's groupings.
    pub(crate) values: &'a [String],
}

impl Subject<'_> {
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.rule.labels.clone();
        let grouped = self.rule.groupings().zip(self.values).filter(|(_, value)| !value.is_empty());
        labels.extend(grouped.map(|(name, value)| (name.to_owned(), value.clone())));
        labels.insert("rule".to_owned(), self.rule.name.clone());
        labels.insert("severity".to_owned(), self.rule.severity.name().to_owned());
        labels.insert("host".to_owned(), self.host.to_owned());
        labels
    }
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The alerts that are not over, the oldest first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Arc<Alert>> {
        let mut alerts: Vec<Arc<Alert>> =
            self.lock().live.values().map(|live| Arc::clone(&live.alert)).collect();
        alerts.sort_by_key(|alert| alert.started_unix_ns);
        alerts
    }

    /// The last alerts that fired and are over, the latest first.
    #[must_use]
    pub fn ended(&self) -> Vec<Arc<Alert>> {
        self.lock().ended.iter().rev().cloned().collect()
    }

    /// The silences that have not ended.
    #[must_use]
    pub fn silences(&self) -> Vec<Silence> {
        self.lock().silences.clone()
    }

    /// Makes a silence. It holds from the engine's next tick on, for alerts of now and of later.
    ///
    /// # Errors
    /// Where it covers everything, is over before it begins, or there are too many.
    pub fn silence(&self, what: NewSilence, now_unix_ns: i64) -> Result<Silence> {
        what.check(now_unix_ns)?;
        let mut alerts = self.lock();
        if alerts.silences.len() >= MOST_SILENCES {
            let what = format!("there are {MOST_SILENCES} silences already");
            return Err(Error::new(ErrorKind::OutOfResources, what)
                .with_hint("end one, or make one that covers more"));
        }
        alerts.serial += 1;
        let silence = Silence { id: alerts.serial, what, since_unix_ns: now_unix_ns };
        alerts.silences.push(silence.clone());
        alerts.new_silences = true;
        Ok(silence)
    }

    /// Ends a silence; whether there was one. Who should have been told is told at the engine's next tick.
    #[must_use]
    pub fn end_silence(&self, id: u64) -> bool {
        let mut alerts = self.lock();
        let before = alerts.silences.len();
        alerts.silences.retain(|silence| silence.id != id);
        alerts.new_silences |= alerts.silences.len() < before;
        alerts.silences.len() < before
    }

    /// Whether silences were made or ended since this was last asked.
    pub(crate) fn has_new_silences(&self) -> bool {
        std::mem::take(&mut self.lock().new_silences)
    }

    /// Notes that `by` has seen the alert, or with `None` that nobody has; whether there is one. The change is
    /// among those of the engine's next tick.
    #[must_use]
    pub fn acknowledge(&self, id: &str, by: Option<&str>, now_unix_ns: i64) -> bool {
        let mut alerts = self.lock();
        let Alerts { live, changes, .. } = &mut *alerts;
        let Some(found) = live.values_mut().find(|live| live.alert.id == id) else { return false };
        found.acknowledge(by.map(cut));
        changes.push(found.change(false, now_unix_ns));
        true
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> BookStats {
        let alerts = self.lock();
        let firing = alerts.live.values().filter(|live| live.is_firing()).count();
        BookStats {
            pending: alerts.live.len() - firing,
            firing,
            silences: alerts.silences.len(),
            refused: alerts.refused,
        }
    }

    /// What a panic of another thread left is whole: every change is made in one go.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Alerts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alerts {
    /// Something may be wrong: a pending alert that stands for `count` signals so far. False where there are
    /// too many.
    pub(crate) fn begin(&mut self, fingerprint: u64, subject: &Subject<'_>, count: u64) -> bool {
        if self.live.len() >= MOST_LIVE {
            self.refused += 1;
            return false;
        }
        self.serial += 1;
        let mut live = Live::new(fingerprint, subject, self.serial, count);
        live.set_silenced(covered(&self.silences, &live.alert));
        self.live.insert(fingerprint, live);
        true
    }

    /// One more signal of an alert.
    pub(crate) fn matched(
        &mut self,
        fingerprint: u64,
        rule: &Rule,
        weight: u64,
        variables: &Variables<'_>,
    ) {
        let Some(live) = self.live.get_mut(&fingerprint) else { return };
        live.matched(rule, weight, variables);
        if live.alert.revision == 0 {
            self.changes.push(live.change(false, variables.signal().unix_ns));
        }
    }

    /// An alert begins to fire.
    pub(crate) fn fire(&mut self, fingerprint: u64, unix_ns: i64) {
        let Self { live, changes, .. } = self;
        let Some(live) = live.get_mut(&fingerprint) else { return };
        live.fire(unix_ns);
        let notify = live.is_to_be_told();
        changes.push(live.change(notify, unix_ns));
    }

    /// An alert is over.
    pub(crate) fn end(&mut self, fingerprint: u64, resolution: Resolution, unix_ns: i64) {
        let Some(live) = self.live.remove(&fingerprint) else { return };
        let fired = live.is_firing();
        let change = live.end(resolution, unix_ns);
        if fired {
            self.ended.push_back(Arc::clone(&change.alert));
            if self.ended.len() > MOST_ENDED {
                self.ended.pop_front();
            }
        }
        self.changes.push(change);
    }

    /// Ends what is not kept: its rule is no longer there.
    pub(crate) fn end_unless(&mut self, kept: impl Fn(u64) -> bool, unix_ns: i64) {
        let lost: Vec<u64> = self.live.keys().copied().filter(|key| !kept(*key)).collect();
        for fingerprint in lost {
            self.end(fingerprint, Resolution::RuleRemoved, unix_ns);
        }
    }

    /// Looks what time has changed: silences that ended, people who can be told now or are to be told again.
    pub(crate) fn review(&mut self, unix_ns: i64) {
        let Self { live, silences, changes, .. } = self;
        silences.retain(|silence| silence.what.until_unix_ns > unix_ns);
        for live in live.values_mut() {
            let silenced = live.set_silenced(covered(silences, &live.alert));
            let notify = live.is_to_be_told() || live.is_to_be_told_again(unix_ns);
            if notify || silenced || live.count_is_news(unix_ns) {
                changes.push(live.change(notify, unix_ns));
            }
        }
    }

    /// Whether time alone may change anything.
    pub(crate) fn needs_review(&self) -> bool {
        !self.live.is_empty() || !self.silences.is_empty() || !self.changes.is_empty()
    }

    pub(crate) fn has(&self, fingerprint: u64) -> bool {
        self.live.contains_key(&fingerprint)
    }

    /// What has changed since this was asked last.
    pub(crate) fn changes(&mut self) -> Vec<AlertChange> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn save(&self) -> SavedBook {
        SavedBook {
            live: self.live.values().cloned().collect(),
            ended: self.ended.iter().cloned().collect(),
            silences: self.silences.clone(),
            serial: self.serial,
        }
    }

    pub(crate) fn restore(&mut self, saved: SavedBook) {
        let alerts = saved.live.into_iter().take(MOST_LIVE);
        self.live = alerts.map(|live| (live.fingerprint, live)).collect();
        self.ended = saved.ended.into_iter().take(MOST_ENDED).collect();
        self.silences = saved.silences.into_iter().take(MOST_SILENCES).collect();
        self.serial = saved.serial;
    }
}

fn covered(silences: &[Silence], alert: &Alert) -> bool {
    silences.iter().any(|silence| silence.what.covers(&alert.labels))
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST_TEXT);
    &text[..end.unwrap_or(text.len())]
}
