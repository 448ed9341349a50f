//! Metrics as names, labels and numbers, whatever they are written as afterwards.

use std::collections::BTreeMap;

use gpuev::Bdf;

use super::{RuleKey, Sampled, State};
use crate::signal::GpuChange;
use crate::sink::Stats;

/// All samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name without what the kind adds (`_total`, `_info`, `_bucket`).
    pub name: &'static str,
    /// What it is, as a sentence.
    pub help: &'static str,
    /// What the numbers are.
    pub kind: FamilyKind,
    /// Their unit, with which the name ends.
    pub unit: Option<&'static str>,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// What the numbers of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// They only rise, until they begin anew at 0.
    Counter,
    /// They rise and fall.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Always 1: what there is to know is in the labels.
    Info,
}

/// One number, or one histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Value,
}

/// What a sample is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A count.
    Integer(u64),
    /// A measure.
    Float(f64),
    /// A histogram.
    Histogram {
        /// Upper ends with the number of those at most as large.
        buckets: Vec<(f64, u64)>,
        /// How many there are.
        count: u64,
        /// All together.
        sum: f64,
    },
}

impl Family {
    fn new(name: &'static str, kind: FamilyKind, help: &'static str) -> Self {
        Self { name, help, kind, unit: None, samples: Vec::new() }
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, FamilyKind::Counter, help)
    }

    fn gauge(name: &'static str, unit: Option<&'static str>, help: &'static str) -> Self {
        Self { unit, ..Self::new(name, FamilyKind::Gauge, help) }
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        self.samples.push(Sample { labels, value });
    }

    fn with<'a, K: 'a>(
        mut self,
        counts: impl IntoIterator<Item = (&'a K, &'a u64)>,
        labels: impl Fn(&'a K) -> Vec<(&'static str, String)>,
    ) -> Self {
        for (key, count) in counts {
            self.samples.push(Sample { labels: labels(key), value: Value::Integer(*count) });
        }
        self
    }
}

/// Everything that is known, in one order.
pub(super) fn all(state: &State, sinks: &[Stats]) -> Vec<Family> {
    let mut families = events(state);
    families.push(lost(state, sinks));
    families.push(spans(state));
    families.extend(health(&state.samples));
    families.extend(states(state));
    families.push(ras(state));
    families.push(alerts(state));
    families.extend(self::sinks(sinks));
    families.push(build());
    families
}

fn gpu_and(second: &'static str, key: &(Bdf, &'static str)) -> Vec<(&'static str, String)> {
    vec![("gpu", key.0.to_string()), (second, key.1.to_owned())]
}

fn events(state: &State) -> Vec<Family> {
    let events = Family::counter("gpuev_events", "Events of the driver by GPU and type.");
    let gaps = Family::counter(
        "gpuev_gaps",
        "Stretches of time in which events of a GPU may have been missed, by cause.",
    );
    vec![
        events.with(&state.events, |key| gpu_and("type", key)),
        gaps.with(&state.gaps, |key| gpu_and("cause", key)),
    ]
}

fn lost(state: &State, sinks: &[Stats]) -> Family {
    let help =
        "Events and messages known to be lost, by the place where: driver, queue, or a sink.";
    let lost = Family::counter("gpuev_lost_events", help);
    let mut lost = lost.with(&state.lost, |stage| vec![("stage", stage.clone())]);
    for sink in sinks {
        let stage = format!("sink:{}", sink.sink);
        lost.add(&[("stage", &stage)], Value::Integer(sink.lost));
    }
    lost
}

fn spans(state: &State) -> Family {
    let help = "How long resets, page faults, migrations, queue evictions and processes took.";
    let mut family = Family::new("gpuev_span_duration_seconds", FamilyKind::Histogram, help);
    family.unit = Some("seconds");
    for (key, histogram) in &state.spans {
        let (buckets, count) = histogram.cumulative();
        let value = Value::Histogram { buckets, count, sum: histogram.sum_seconds() };
        family.samples.push(Sample { labels: gpu_and("type", key), value });
    }
    family
}

/// Memory and power are of the whole GPU, also where it is partitioned; how busy it is, is of a partition.
fn health(samples: &BTreeMap<(Bdf, u32), Sampled>) -> Vec<Family> {
    let gauge = |name, unit, help| Family::gauge(name, Some(unit), help);
    let mut temperature =
        gauge("gpuev_gpu_temperature_celsius", "celsius", "Temperature by sensor.");
    let mut power = gauge("gpuev_gpu_power_watts", "watts", "Electric power.");
    let mut busy =
        gauge("gpuev_gpu_busy_ratio", "ratio", "Share of time in which a partition computes.");
    let mut used = gauge(
        "gpuev_gpu_memory_used_bytes",
        "bytes",
        "Memory in use: video memory, of an APU also the host's that it uses.",
    );
    let mut total = gauge(
        "gpuev_gpu_memory_total_bytes",
        "bytes",
        "Memory of the GPU: video memory, of an APU also what it may use of the host's.",
    );
    let mut time = gauge(
        "gpuev_gpu_sampled_timestamp_seconds",
        "seconds",
        "When the GPU was last asked how it is doing, since 1970.",
    );
    let mut whole = None;
    for ((bdf, partition), sampled) in samples {
        let gpu = bdf.to_string();
        if let Some(percent) = sampled.health.activity.gfx {
            let partition = partition.to_string();
            let value = Value::Float(f64::from(percent.0) / 100.0);
            busy.add(&[("gpu", &gpu), ("partition", &partition)], value);
        }
        if whole.replace(*bdf) == Some(*bdf) {
            continue;
        }
        let health = sampled.health.of_gpu();
        for found in &health.temperatures {
            if let Some(now) = found.current {
                let labels = [("gpu", &*gpu), ("sensor", &found.sensor.to_string())];
                temperature.add(&labels, Value::Float(now.celsius()));
            }
        }
        let labels = [("gpu", &*gpu)];
        if let Some(now) = health.power.average.or(health.power.current) {
            power.add(&labels, Value::Float(now.watts()));
        }
        for (family, bytes) in
            [(&mut used, health.memory.usable.used), (&mut total, health.memory.usable.total)]
        {
            if let Some(bytes) = bytes {
                family.add(&labels, Value::Integer(bytes.0));
            }
        }
        let seconds = u64::try_from(sampled.unix_ns / 1_000_000_000).unwrap_or(0);
        time.add(&labels, Value::Integer(seconds));
    }
    vec![temperature, power, busy, used, total, time]
}

/// What is, beside what happens: GPUs, and the agent itself.
fn states(state: &State) -> Vec<Family> {
    let help = "1 for what a GPU is: found, lost, unreadable or silent.";
    let mut gpus = Family::gauge("gpuev_gpu_state", None, help);
    for ((bdf, partition), now) in &state.gpus {
        let (gpu, partition) = (bdf.to_string(), partition.to_string());
        for one in GpuChange::ALL {
            let labels = [("gpu", &*gpu), ("partition", &*partition), ("state", one.name())];
            gpus.add(&labels, Value::Integer(u64::from(one == *now)));
        }
    }
    let help = "1 while events are written to the history, 0 while that fails.";
    let mut recording = Family::gauge("gpuev_history_recording", None, help);
    if let Some(is_recording) = state.recording {
        recording.add(&[], Value::Integer(u64::from(is_recording)));
    }
    let help = "1 while the GPUs are released on request: nobody watches them.";
    let mut released = Family::gauge("gpuev_gpus_released", None, help);
    released.add(&[], Value::Integer(u64::from(state.released)));
    vec![gpus, recording, released]
}

fn ras(state: &State) -> Family {
    let help = "Errors that the GPU counts since the driver was loaded, by block and kind.";
    Family::counter("gpuev_ras_errors", help).with(&state.ras, |(bdf, block, kind)| {
        vec![("gpu", bdf.to_string()), ("block", block.clone()), ("kind", kind.name().to_owned())]
    })
}

fn alerts(state: &State) -> Family {
    let mut counts: BTreeMap<&RuleKey, u64> = state.rules.iter().map(|rule| (rule, 0)).collect();
    for rule in state.firing.values() {
        *counts.entry(rule).or_default() += 1;
    }
    let mut family = Family::gauge("gpuev_alerts_firing", None, "Alerts that fire, by rule.");
    for ((rule, severity), count) in counts {
        family.add(&[("rule", rule), ("severity", severity)], Value::Integer(count));
    }
    family
}

fn sinks(sinks: &[Stats]) -> Vec<Family> {
    type Read = fn(&Stats) -> u64;
    let counters: [(&str, &str, Read); 6] = [
        ("gpuev_sink_messages", "Messages that a sink was given.", |s| s.accepted),
        ("gpuev_sink_delivered", "Messages that a sink's receiver took.", |s| s.delivered),
        (
            "gpuev_sink_superseded",
            "States of alerts that a later one took the place of while they waited.",
            |s| s.superseded,
        ),
        ("gpuev_sink_failures", "Tries to deliver that failed.", |s| s.failures),
        ("gpuev_sink_dead_letters", "Messages that a sink's receiver will never take.", |s| {
            s.dead_letters
        }),
        ("gpuev_sink_missed", "Receivers that did not get a message that others got.", |s| {
            s.missed
        }),
    ];
    let gauges: [(&str, Option<&str>, &str, Read); 5] = [
        ("gpuev_sink_waiting_messages", None, "Messages that wait for a sink.", |s| s.waiting),
        ("gpuev_sink_queue_bytes", Some("bytes"), "Memory that they take.", |s| s.memory_bytes),
        (
            "gpuev_sink_set_aside_messages",
            None,
            "Of these, messages that the receiver answered with an error.",
            |s| s.set_aside,
        ),
        (
            "gpuev_sink_held_back_messages",
            None,
            "Of these, messages that wait for a summary, as people were told enough of their rules.",
            |s| s.held_back,
        ),
        ("gpuev_sink_failing", None, "1 while a sink cannot reach its receiver.", |s| {
            u64::from(s.failing.is_some())
        }),
    ];
    let fill = |mut family: Family, read: Read| {
        for sink in sinks {
            family.add(&[("sink", &sink.sink)], Value::Integer(read(sink)));
        }
        family
    };
    let counters =
        counters.into_iter().map(|(name, help, read)| fill(Family::counter(name, help), read));
    let gauges = gauges
        .into_iter()
        .map(|(name, unit, help, read)| fill(Family::gauge(name, unit, help), read));
    counters.chain(gauges).collect()
}

fn build() -> Family {
    let mut family = Family::new("gpuev_build", FamilyKind::Info, "What is running.");
    family.add(&[("version", env!("CARGO_PKG_VERSION"))], Value::Integer(1));
    family
}
