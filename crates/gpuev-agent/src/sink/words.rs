//! A record in words for people: what mails, chats and pagers show.

use gpuev::Severity;
use serde_json::{Map, Value};

use super::message::{Kind, Message};

/// The parts of which templates and mails are made.
pub(super) struct Words {
    /// The same for all changes of one alert.
    pub(super) key: String,
    /// `firing`, `resolved`, …; empty for what is no alert.
    pub(super) state: String,
    /// One line: state, what, where.
    pub(super) headline: String,
    /// What happened.
    pub(super) summary: String,
    /// What to do.
    pub(super) action: String,
    /// Labels, one a line.
    pub(super) details: String,
    /// Labels of the alert; of other records the GPU.
    pub(super) labels: Map<String, Value>,
    /// For state and severity, as `#rrggbb`.
    pub(super) colour: &'static str,
}

impl Words {
    pub(super) fn of(message: &Message, record: &Value, host: &str) -> Self {
        let text = |key: &str| record[key].as_str().unwrap_or_default();
        let state = text("state");
        let summary = if message.kind == Kind::Alert { text("summary") } else { text("message") };
        let what = [text("rule"), text("type"), message.kind.name()];
        let what = what.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let status = if state.is_empty() { message.severity.name() } else { state }.to_uppercase();
        let first_line = summary.lines().next().unwrap_or_default();
        let labels = labels(record);
        let details: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()))
            .collect();
        Self {
            key: record["id"].as_str().unwrap_or(&message.id).to_owned(),
            state: state.to_owned(),
            headline: format!("[{status}] {what} on {host}: {first_line}"),
            summary: summary.to_owned(),
            action: text("action").to_owned(),
            details: details.join("\n"),
            labels,
            colour: colour(state, message.severity),
        }
    }
}

fn labels(record: &Value) -> Map<String, Value> {
    let of_alert = record["labels"].as_object().cloned();
    of_alert.unwrap_or_else(|| {
        let gpu = record["gpu"]["bdf"].as_str();
        gpu.map(|bdf| ("gpu".to_owned(), bdf.into())).into_iter().collect()
    })
}

fn colour(state: &str, severity: Severity) -> &'static str {
    match (state, severity) {
        ("resolved", _) => "#2eb67d",
        (_, Severity::Critical) => "#d00000",
        (_, Severity::Warning) => "#e8a000",
        (_, Severity::Info) => "#3070d0",
    }
}
