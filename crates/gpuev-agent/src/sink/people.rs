//! What holds where people are told: alerts that belong together are one message, nobody is told of one rule too often,
//! and what is held back is told as one summary. A critical alert is never held back.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpuev::Severity;
use serde_json::{Map, Value, json};

use super::message::Message;
use crate::alert::AlertState;

/// How long alerts of one group are collected, from the first on.
pub(super) const COLLECTED: Duration = Duration::from_secs(1);
/// Alerts in one message.
pub(super) const MOST: usize = 256;
/// Characters of what a message says of its alerts.
const LONGEST: usize = 1000;

/// So many messages of one rule in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub count: usize,
    /// In how long.
    pub within: Duration,
}

impl Default for Limit {
    fn default() -> Self {
        Self { count: 20, within: Duration::from_secs(3600) }
    }
}

/// When people were told of each rule.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    told: HashMap<Arc<str>, VecDeque<Instant>>,
}

impl Limiter {
    /// Notes that people are told of `rule` now, or says when they may be.
    pub(super) fn tell(
        &mut self,
        rule: &Arc<str>,
        limit: Limit,
        now: Instant,
    ) -> Result<(), Instant> {
        let told = self.told.entry(rule.clone()).or_default();
        while told.front().is_some_and(|at| now.saturating_duration_since(*at) >= limit.within) {
            told.pop_front();
        }
        if told.len() < limit.count.max(1) {
            told.push_back(now);
            return Ok(());
        }
        Err(told.front().and_then(|first| first.checked_add(limit.within)).unwrap_or(now))
    }
}

/// One message of all of `batch`, which belong together. A single one is itself.
pub(super) fn as_one(batch: &[Message]) -> Option<Message> {
    let worst = |message: &&Message| (is_firing(message), message.severity);
    let first = batch.iter().rev().max_by_key(worst)?;
    if batch.len() == 1 || batch.iter().any(|message| message.alert.is_none()) {
        return Some(first.clone());
    }
    let records: Vec<Value> =
        batch.iter().map(|one| serde_json::from_str(&one.json).unwrap_or_default()).collect();
    let mut record: Value = serde_json::from_str(&first.json).unwrap_or_default();
    record["summary"] = summary(batch, &records).into();
    record["labels"] = Value::Object(common_labels(&records));
    record["count"] = records.iter().filter_map(|one| one["count"].as_u64()).sum::<u64>().into();
    record["alerts"] = records.iter().map(brief).collect();
    let revisions: u64 = batch.iter().map(Message::revision).sum();
    Some(Message {
        id: format!("{}+{}.{revisions}", first.id, batch.len() - 1).into(),
        severity: batch.iter().map(|one| one.severity).max().unwrap_or(Severity::Info),
        json: record.to_string().into(),
        ..first.clone()
    })
}

fn is_firing(message: &Message) -> bool {
    message.alert.as_ref().is_some_and(|alert| alert.state == AlertState::Firing)
}

/// How many there are, and what the first of them say.
fn summary(batch: &[Message], records: &[Value]) -> String {
    let firing = batch.iter().filter(|one| is_firing(one)).count();
    let over = batch.len() - firing;
    let mut text = match (firing, over) {
        (firing, 0) => format!("{firing} alerts fire."),
        (0, over) => format!("{over} alerts are over."),
        (firing, over) => format!("{firing} alerts fire, {over} are over."),
    };
    for (told, record) in records.iter().enumerate() {
        let (state, what) = (&record["state"], record["summary"].as_str().unwrap_or_default());
        let over = if state == "resolved" { " (over)" } else { "" };
        if text.chars().count() + what.chars().count() > LONGEST {
            let _infallible = write!(text, "\n... and {} more", records.len() - told);
            break;
        }
        let _infallible = write!(text, "\n- {what}{over}");
    }
    text
}

/// The labels that all of them have with the same value.
fn common_labels(records: &[Value]) -> Map<String, Value> {
    let mut labels = records[0]["labels"].as_object().cloned().unwrap_or_default();
    labels.retain(|name, value| records.iter().all(|record| record["labels"][name] == *value));
    labels
}

fn brief(record: &Value) -> Value {
    let names = ["id", "revision", "rule", "severity", "state", "labels", "summary", "victims"];
    names
        .into_iter()
        .map(|name| (name.to_owned(), record[name].clone()))
        .collect::<Map<_, _>>()
        .into()
}

/// The state of the whole group that `batch` is of: it fires while any of it does.
pub(super) fn group_state(message: &Message, still_fires: impl Fn(&str) -> bool) -> Value {
    let resolved = message
        .alert
        .as_ref()
        .is_some_and(|alert| alert.state == AlertState::Resolved && !still_fires(&alert.group));
    json!(if resolved { "resolved" } else { "firing" })
}
