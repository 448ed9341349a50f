//! How the agent is, as one table: the HTTP API, the local socket and `gpuev status` all tell this.

use gpuev::GpuId;
use gpuev::time::{Rfc3339, boot_now_ns};
use serde::{Deserialize, Serialize};

use super::{Shared, Status};
use crate::alert::Alert;
use crate::signal::GpuChange;
use crate::sink::Stats;

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Overview {
    /// `ok`, or `degraded` where there are problems.
    pub status: String,
    /// The agent's version.
    pub version: String,
    /// When it was started, as RFC 3339.
    pub started: String,
    /// What a person should look at.
    pub problems: Vec<String>,
    /// The GPUs, and what each is.
    pub gpus: Vec<GpuState>,
    /// The GPUs are released on request.
    pub released: bool,
    /// Signals since it was started.
    pub signals: u64,
    /// Whether a history is written; `None` where none is to be.
    pub recording: Option<bool>,
    /// Events in it since the start.
    pub recorded_events: u64,
    /// Its size.
    pub history_bytes: u64,
    /// Where alerts go.
    pub sinks: Vec<SinkState>,
    /// Alerts that fire.
    pub firing: usize,
    /// Alerts that wait for what their rules ask.
    pub pending: usize,
    /// Silences in force.
    pub silences: usize,
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuState {
    /// Its PCI address.
    pub gpu: String,
    /// Its partition.
    pub partition: u32,
    /// `found`, `lost`, `unreadable` or `silent`.
    pub state: String,
}

/// How a sink is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkState {
    /// `KIND.NAME`.
    pub sink: String,
    /// Messages that its receiver took.
    pub delivered: u64,
    /// Messages that wait.
    pub waiting: u64,
    /// Of these, messages that the receiver answered with an error.
    pub set_aside: u64,
    /// Why its receiver is not reached, where it is not.
    pub failing: Option<String>,
}

impl Shared {
    /// What a person should look at.
    pub(crate) fn problems(&self, status: &Status, sinks: &[Stats]) -> Vec<String> {
        let mut problems = problems(status, sinks);
        if !self.is_alive(boot_now_ns()) {
            problems.push("the agent hangs: what happens now is not told".to_owned());
        }
        problems
    }

    /// How the agent is.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let (status, sinks) = (self.status(), self.sinks());
        let problems = self.problems(&status, &sinks);
        let book = self.book.stats();
        let recording = self.history.as_ref().map(|_| status.recording_failure.is_none());
        Overview {
            status: if problems.is_empty() { "ok" } else { "degraded" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Rfc3339(self.started.unix_ns).to_string(),
            problems,
            gpus: status.states.iter().map(gpu_state).collect(),
            released: status.yielded_since_boot_ns.is_some(),
            signals: status.signals,
            recording,
            recorded_events: status.recorded.events,
            history_bytes: status.recorded.bytes,
            sinks: sinks.into_iter().map(sink_state).collect(),
            firing: book.firing,
            pending: book.pending,
            silences: book.silences,
        }
    }
}

fn gpu_state((gpu, state): &(GpuId, GpuChange)) -> GpuState {
    let state = state.name().to_owned();
    GpuState { gpu: gpu.bdf.to_string(), partition: gpu.partition, state }
}

fn sink_state(stats: Stats) -> SinkState {
    let Stats { sink, delivered, waiting, set_aside, failing, .. } = stats;
    SinkState { sink, delivered, waiting, set_aside, failing }
}

fn problems(status: &Status, sinks: &[Stats]) -> Vec<String> {
    let mut problems = status.not_kept.clone();
    problems.extend(status.lacks.iter().map(|lack| format!("the agent works without {lack}")));
    sinks.iter().for_each(|sink| of_sink(sink, &mut problems));
    problems
        .extend(status.recording_failure.iter().map(|why| format!("nothing is recorded: {why}")));
    let unreadable = status.unreadable.iter();
    problems
        .extend(unreadable.map(|(gpu, why)| format!("GPU {} cannot be read: {why}", gpu.id.bdf)));
    for (gpu, state) in &status.states {
        match state {
            GpuChange::Silent => problems.push(format!("GPU {} does not answer", gpu.bdf)),
            GpuChange::Lost => problems.push(format!("GPU {} is missing", gpu.bdf)),
            _ => {}
        }
    }
    let none = status.gpus.is_empty() && status.unreadable.is_empty() && status.states.is_empty();
    if none && status.yielded_since_boot_ns.is_none() {
        problems.push("no GPU is found: run gpuev doctor".to_owned());
    }
    if status.refused > 0 {
        let count = status.refused;
        problems.push(format!("rules and alerts had no room for {count} signals"));
    }
    if let Some((rule, why)) = &status.condition_error {
        problems.push(format!("rule {rule}: its condition cannot be decided: {why}"));
    }
    problems
}

fn of_sink(sink: &Stats, problems: &mut Vec<String>) {
    let name = &sink.sink;
    problems.extend(sink.failing.iter().map(|why| format!("sink {name} is not reached: {why}")));
    problems.extend(sink.upkeep_failing.iter().map(|why| format!("sink {name}: {why}")));
    if let Some(one) = sink.set_aside_messages.first() {
        let count = sink.set_aside;
        problems.push(format!("sink {name} does not take {count} messages: {}", one.error));
    }
}

/// Alerts as they are told to people: the worst first, then the oldest, without the records behind them.
pub(crate) fn for_people<'a>(
    alerts: impl Iterator<Item = &'a std::sync::Arc<Alert>>,
    most: usize,
) -> Vec<Alert> {
    let mut alerts: Vec<&Alert> = alerts.map(|alert| &**alert).collect();
    alerts.sort_by(|one, two| {
        let key = |alert: &Alert| (std::cmp::Reverse(alert.severity), alert.started_unix_ns);
        key(one).cmp(&key(two))
    });
    alerts.into_iter().take(most).map(Alert::without_example).collect()
}
