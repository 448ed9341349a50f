//! What monitoring systems ask for: counters of what happened, gauges of how GPUs are doing.
//!
//! [`Metrics`] keeps plain numbers; when somebody asks they become [`Family`]s, which are written as
//! OpenMetrics, as Prometheus' older text (`promtool` and older servers read nothing else) or as OTLP. Labels
//! are bounded: GPUs by their PCI address, types, causes and blocks as the driver has them, rules as they
//! are written. Processes, jobs and pods are in records, not in labels: their number never stops growing.

mod exposition;
mod family;
mod histogram;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuev::health::Health;
use gpuev::span::SpanKind;
use gpuev::{Bdf, EventType, GapCause, GpuId};

use crate::alert::{Alert, AlertChange, AlertState};
use crate::signal::{GpuChange, RasKind, Signal, What};
use crate::sink::Stats;
use histogram::Histogram;

pub use exposition::Exposition;
pub use family::{Family, FamilyKind, Sample, Value};

/// A rule that has fired keeps its series at 0 afterwards, unless there are more than this many.
const MOST_RULES: usize = 1000;

/// Counts what goes by.
#[derive(Debug, Default)]
pub struct Metrics {
    state: Mutex<State>,
}

/// A GPU and one more label of our own.
type Key = (Bdf, &'static str);

#[derive(Debug, Default)]
struct State {
    events: BTreeMap<Key, u64>,
    gaps: BTreeMap<Key, u64>,
    lost: BTreeMap<String, u64>,
    spans: BTreeMap<Key, Histogram>,
    ras: BTreeMap<(Bdf, String, RasKind), u64>,
    samples: BTreeMap<(Bdf, u32), Sampled>,
    gpus: BTreeMap<(Bdf, u32), GpuChange>,
    /// Whether a history is written; `None` where none is to be.
    recording: Option<bool>,
    released: bool,
    /// By the alert's id: rule and severity.
    firing: BTreeMap<String, RuleKey>,
    rules: BTreeSet<RuleKey>,
}

type RuleKey = (String, &'static str);

#[derive(Debug)]
struct Sampled {
    health: Arc<Health>,
    unix_ns: i64,
}

impl Metrics {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `signal` and takes over the health that it carries.
    pub fn observe(&self, signal: &Signal) {
        let mut state = self.lock();
        let bdf = signal.gpu.bdf;
        match &signal.what {
            What::Event(event) => *state.events.entry((bdf, event.type_name())).or_default() += 1,
            What::Aggregate(aggregate) => {
                let key = (bdf, aggregate.event_type.name());
                *state.events.entry(key).or_default() += aggregate.count;
                if let (Some(kind), Some(latency)) =
                    (ended_by(aggregate.event_type), aggregate.latency)
                {
                    state.spans.entry((bdf, kind.name())).or_default().add_many(&latency);
                }
            }
            What::Gap(gap) => {
                *state.gaps.entry((bdf, GapCause::name(gap.cause))).or_default() += 1;
                if let (Some(stage), Some(count)) = (stage_of(gap.cause), gap.count) {
                    *state.lost.entry(stage.to_owned()).or_default() += count;
                }
            }
            What::Span(span) => {
                if let Some(duration) = span.duration_ns() {
                    let histogram = state.spans.entry((bdf, span.kind().name())).or_default();
                    histogram.add(duration);
                }
            }
            What::RasErrors(ras) => state.set_ras(bdf, &ras.block, ras.kind, ras.total),
            What::Gpu(change) => {
                let key = (bdf, signal.gpu.partition);
                state.gpus.insert(key, *change);
                if matches!(change, GpuChange::Lost | GpuChange::Silent) {
                    state.samples.remove(&key);
                }
            }
            What::Health => {}
        }
        if let Some(health) = &signal.health {
            state.sampled(signal.gpu, health, signal.unix_ns);
        }
    }

    /// Takes over what became of an alert.
    pub fn observe_change(&self, change: &AlertChange) {
        self.lock().alert(&change.alert);
    }

    /// After a restart: the alerts as they are known.
    pub fn observe_alerts<'a>(&self, alerts: impl IntoIterator<Item = &'a Alert>) {
        let mut state = self.lock();
        state.firing.clear();
        for alert in alerts {
            state.alert(alert);
        }
    }

    /// Whether a history is written (`None`: none is to be), and whether the GPUs are released.
    pub fn observe_agent(&self, recording: Option<bool>, released: bool) {
        let mut state = self.lock();
        (state.recording, state.released) = (recording, released);
    }

    /// `count` events were lost on their way to `stage`: the history, a stream, ….
    pub fn lose(&self, stage: &str, count: u64) {
        *self.lock().lost.entry(stage.to_owned()).or_default() += count;
    }

    /// Everything as it is now, with the counts of the sinks.
    #[must_use]
    pub fn families(&self, sinks: &[Stats]) -> Vec<Family> {
        family::all(&self.lock(), sinks)
    }

    /// Everything as text.
    #[must_use]
    pub fn encode(&self, exposition: Exposition, sinks: &[Stats]) -> String {
        exposition.encode(&self.families(sinks))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kind of span that such an event ends, of the types that may be aggregated.
const fn ended_by(event_type: EventType) -> Option<SpanKind> {
    match event_type {
        EventType::PageFaultEnd => Some(SpanKind::PageFault),
        EventType::MigrateEnd => Some(SpanKind::Migration),
        EventType::QueueRestore => Some(SpanKind::QueueEviction),
        _ => None,
    }
}

/// Where events of a gap were lost, where they are counted.
const fn stage_of(cause: GapCause) -> Option<&'static str> {
    match cause {
        GapCause::DriverFifoFull => Some("driver"),
        GapCause::SubscriberSlow => Some("queue"),
        _ => None,
    }
}

impl State {
    fn sampled(&mut self, gpu: GpuId, health: &Arc<Health>, unix_ns: i64) {
        for block in &health.of_gpu().ras {
            let counters = [
                (RasKind::Correctable, block.correctable),
                (RasKind::Uncorrectable, block.uncorrectable),
                (RasKind::Deferred, block.deferred),
            ];
            for (kind, total) in counters {
                if let Some(total) = total {
                    self.set_ras(gpu.bdf, &block.block, kind, total);
                }
            }
        }
        let sampled = Sampled { health: health.clone(), unix_ns };
        self.samples.insert((gpu.bdf, gpu.partition), sampled);
    }

    /// The driver counts since it was loaded; where it begins anew, so does the counter.
    fn set_ras(&mut self, bdf: Bdf, block: &str, kind: RasKind, total: u64) {
        self.ras.insert((bdf, block.to_owned(), kind), total);
    }

    fn alert(&mut self, alert: &Alert) {
        if alert.state != AlertState::Firing {
            self.firing.remove(&alert.id);
            return;
        }
        let key = (alert.rule.clone(), alert.severity.name());
        self.firing.insert(alert.id.clone(), key.clone());
        if self.rules.len() >= MOST_RULES {
            let firing: BTreeSet<&RuleKey> = self.firing.values().collect();
            self.rules.retain(|rule| firing.contains(rule));
        }
        self.rules.insert(key);
    }
}
