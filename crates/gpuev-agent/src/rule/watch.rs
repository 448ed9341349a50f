//! What one rule has seen: its windows, by group, and which of them are alerts.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::{Alerts, Resolution, Subject};
use crate::signal::Signal;

use super::group::Fingerprint;
use super::variables::Variables;
use super::window::Window;
use super::{Rule, select, weight};

/// Groups of one rule. A program that makes up process names cannot fill memory.
const MOST_GROUPS: usize = 512;

/// A rule at work.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) rule: Arc<Rule>,
    groups: HashMap<u64, Group>,
    /// Signals that made no group because there were too many.
    pub(super) refused: u64,
    /// Conditions that could not be decided, and the last reason.
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
}

/// One GPU, process or job of a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Group {
    /// The values of the rule's `by`.
    values: Vec<String>,
    window: Window,
    /// Matches that nothing has answered yet, for rules that count answers.
    open: u64,
    /// Since when the window has been full.
    since_ns: u64,
    /// The last match.
    touched_ns: u64,
    /// The last match that found the window full.
    held_ns: u64,
    life: Life,
}

/// What a group is to the alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Life {
    Counting,
    Pending,
    Firing,
}

/// What one rule has seen, to be kept over a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedRule {
    name: String,
    groups: Vec<Group>,
}

impl SavedRule {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A signal on its way through the rules.
pub(super) struct Case<'a> {
    pub(super) signal: &'a Signal,
    pub(super) variables: Variables<'a>,
    pub(super) host: &'a str,
}

impl Watch {
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self { rule, groups: HashMap::new(), refused: 0, errors: 0, last_error: None }
    }

    /// Whether it keeps this group.
    pub(super) fn has(&self, fingerprint: u64) -> bool {
        self.groups.contains_key(&fingerprint)
    }

    /// Groups that it keeps.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The rule was changed: what it has seen stays.
    pub(super) fn replace(&mut self, rule: Arc<Rule>) {
        self.rule = rule;
    }

    /// A signal of a kind and type that the rule takes.
    pub(super) fn take(&mut self, case: &Case<'_>, alerts: &mut Alerts) {
        if self.meets(case, false) {
            self.matched(case, alerts);
        } else if select::is_reading(case.signal) {
            self.lapsed(case, alerts);
        }
    }

    /// A signal of a kind and type that may resolve what the rule found.
    pub(super) fn resolve(&mut self, case: &Case<'_>, slot: usize, alerts: &mut Alerts) {
        let concerned = self.concerned(case.signal);
        if concerned.is_empty() || !self.meets(case, true) {
            return;
        }
        for fingerprint in concerned {
            let Some(group) = self.groups.get_mut(&fingerprint) else { continue };
            group.open = group.open.saturating_sub(weight(case.signal));
            if self.rule.resolve.each.has(slot) && group.open > 0 {
                continue;
            }
            alerts.end(fingerprint, Resolution::Opposite, case.signal.unix_ns);
            self.groups.remove(&fingerprint);
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, boot_ns: u64, unix_ns: i64, alerts: &mut Alerts) {
        let rule = &self.rule;
        self.groups.retain(|fingerprint, group| {
            let full = group.window.is_full(boot_ns, rule.full);
            let quiet = |since: u64| boot_ns.saturating_sub(since) >= rule.resolve.quiet_ns;
            match group.life {
                Life::Counting => !group.window.is_empty() && !quiet(group.touched_ns),
                Life::Pending if !full => {
                    alerts.end(*fingerprint, Resolution::Quiet, unix_ns);
                    group.life = Life::Counting;
                    !group.window.is_empty()
                }
                Life::Pending => {
                    let until_ns = if rule.needs_evidence() { group.held_ns } else { boot_ns };
                    if until_ns.saturating_sub(group.since_ns) >= rule.for_ns {
                        group.life = Life::Firing;
                        alerts.fire(*fingerprint, unix_ns);
                    }
                    true
                }
                Life::Firing if quiet(group.held_ns) => {
                    alerts.end(*fingerprint, Resolution::Quiet, unix_ns);
                    false
                }
                Life::Firing => true,
            }
        });
    }

    /// Ends all that it found.
    pub(super) fn end_all(&mut self, resolution: Resolution, unix_ns: i64, alerts: &mut Alerts) {
        for (fingerprint, _) in self.groups.drain() {
            alerts.end(fingerprint, resolution, unix_ns);
        }
    }

    /// What it has seen.
    pub(super) fn save(&self) -> SavedRule {
        let mut groups: Vec<Group> = self.groups.values().cloned().collect();
        groups.sort_by(|a, b| a.values.cmp(&b.values));
        SavedRule { name: self.rule.name.clone(), groups }
    }

    /// Goes on from what was seen before a restart; alerts that are not in `alerts` any more begin anew.
    pub(super) fn restore(&mut self, saved: SavedRule, alerts: &Alerts) {
        let seed = Fingerprint::of_rule(&self.rule.name);
        for mut group in saved.groups.into_iter().take(MOST_GROUPS) {
            let fingerprint = seed.of_values(&group.values);
            if !alerts.has(fingerprint) {
                group.life = Life::Counting;
            }
            self.groups.insert(fingerprint, group);
        }
    }

    /// The machine was booted anew: its clock began again. What survives that begins to be quiet now, all else
    /// is over.
    pub(super) fn boot(&mut self, boot_ns: u64, unix_ns: i64, alerts: &mut Alerts) {
        if !self.rule.survives_boot {
            return self.end_all(Resolution::Boot, unix_ns, alerts);
        }
        let full = self.rule.full;
        self.groups.retain(|fingerprint, group| {
            group.window.clear();
            group.window.add(boot_ns, full.count, full);
            (group.since_ns, group.touched_ns, group.held_ns) = (boot_ns, boot_ns, boot_ns);
            if group.life == Life::Pending {
                alerts.end(*fingerprint, Resolution::Boot, unix_ns);
            }
            group.life == Life::Firing
        });
    }

    fn meets(&mut self, case: &Case<'_>, resolving: bool) -> bool {
        let when = if resolving { &self.rule.resolve.when } else { &self.rule.when };
        let Some(when) = when else { return true };
        when.holds(&case.variables).unwrap_or_else(|error| {
            self.errors += 1;
            self.last_error = Some(error);
            false
        })
    }

    fn matched(&mut self, case: &Case<'_>, alerts: &mut Alerts) {
        let Self { rule, groups, refused, .. } = self;
        let Case { signal, .. } = case;
        let (fingerprint, _) = Fingerprint::of_rule(&rule.name).of_signal(&rule.by, signal);
        if groups.len() >= MOST_GROUPS && !groups.contains_key(&fingerprint) {
            *refused += 1;
            return;
        }
        let group = groups.entry(fingerprint).or_insert_with(|| Group::new(rule, signal));
        if !group.add(rule, signal) {
            return;
        }
        let weight = weight(signal);
        if group.life == Life::Counting {
            let subject = Subject { rule, signal, host: case.host, values: &group.values };
            if !alerts.begin(fingerprint, &subject, group.window.weight() - weight) {
                *refused += 1;
                return;
            }
            group.life = Life::Pending;
        }
        alerts.matched(fingerprint, rule, weight, &case.variables);
        if group.life == Life::Pending && group.held_ns - group.since_ns >= rule.for_ns {
            group.life = Life::Firing;
            alerts.fire(fingerprint, signal.unix_ns);
        }
    }

    /// A reading says that it is not so any more.
    fn lapsed(&mut self, case: &Case<'_>, alerts: &mut Alerts) {
        for fingerprint in self.concerned(case.signal) {
            let pending = |group: &Group| group.life != Life::Firing;
            if self.groups.get(&fingerprint).is_some_and(pending) {
                alerts.end(fingerprint, Resolution::Opposite, case.signal.unix_ns);
                self.groups.remove(&fingerprint);
            }
        }
    }

    /// The groups that `signal` is about. One that lacks a label is about all with whatever value: the end of a
    /// GPU is the end of all that its processes did.
    fn concerned(&self, signal: &Signal) -> Vec<u64> {
        if self.groups.is_empty() {
            return Vec::new();
        }
        let by = &self.rule.by;
        let (fingerprint, complete) = Fingerprint::of_rule(&self.rule.name).of_signal(by, signal);
        if complete {
            return self
                .groups
                .contains_key(&fingerprint)
                .then_some(fingerprint)
                .into_iter()
                .collect();
        }
        let wanted: Vec<String> = by.iter().map(|grouping| grouping.value(signal)).collect();
        let fits = |group: &Group| {
            wanted.iter().zip(&group.values).all(|(want, value)| want.is_empty() || want == value)
        };
        self.groups.iter().filter(|(_, group)| fits(group)).map(|(key, _)| *key).collect()
    }
}

impl Group {
    fn new(rule: &Rule, signal: &Signal) -> Self {
        Self {
            values: rule.by.iter().map(|grouping| grouping.value(signal)).collect(),
            window: Window::default(),
            open: 0,
            since_ns: signal.boot_ns,
            touched_ns: signal.boot_ns,
            held_ns: signal.boot_ns,
            life: Life::Counting,
        }
    }

    /// Counts a match; whether the window is full with it.
    fn add(&mut self, rule: &Rule, signal: &Signal) -> bool {
        let at_ns = signal.boot_ns.max(self.touched_ns);
        let was_full = self.window.is_full(at_ns, rule.full);
        self.window.add(at_ns, weight(signal), rule.full);
        self.open = self.open.saturating_add(weight(signal));
        self.touched_ns = at_ns;
        if !self.window.is_full(at_ns, rule.full) {
            return false;
        }
        if !was_full {
            self.since_ns = at_ns;
        }
        self.held_ns = at_ns;
        true
    }
}
