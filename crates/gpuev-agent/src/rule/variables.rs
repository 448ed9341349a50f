//! What conditions can ask about: the names of a signal's JSON, as CEL values.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cel::objects::{Key, Map};
use cel::{Context, Value};

use gpuev::message::Printable;

use crate::signal::Signal;

/// Everything that a condition may name, with dots for what lies within. A name without an entry of its own
/// below it (`latency`) is a whole; `docs/event-schema.md` tells what each means.
pub(super) const NAMES: &[&str] = &[
    "record",
    "type",
    "severity",
    "gpu",
    "gpu.index",
    "gpu.bdf",
    "gpu.unique_id",
    "gpu.partition",
    "time",
    "boot_ns",
    "seq",
    "clock",
    "received_boot_ns",
    "pid",
    "process",
    "tid",
    "thread",
    "message",
    "raw",
    "doubtful",
    "ambiguous",
    "count",
    "data",
    "data.address",
    "data.access",
    "data.node",
    "data.size",
    "data.from",
    "data.to",
    "data.trigger",
    "data.prefetch",
    "data.preferred",
    "data.error",
    "data.outcome",
    "data.rescheduled",
    "data.sequence",
    "data.cause",
    "data.throttlers",
    "data.reasons",
    "data.count",
    "data.id",
    "data.direction",
    "data.bytes_per_second",
    "data.reschedules",
    "bytes",
    "from_boot_ns",
    "to_boot_ns",
    "latency",
    "latency.count",
    "latency.p50_ns",
    "latency.p99_ns",
    "latency.max_ns",
    "latency.sum_ns",
    "start_boot_ns",
    "end_boot_ns",
    "duration_ns",
    "outcome",
    "across_gap",
    "hive",
    "victims",
    "cause",
    "block",
    "kind",
    "increase",
    "total",
    "change",
    "job",
    "job.pid",
    "job.name",
    "job.command",
    "job.user",
    "job.uid",
    "job.cgroup",
    "job.slurm_job",
    "job.slurm_step",
    "job.pod",
    "job.container",
    "job.unit",
    "health",
    "health.suspended",
    "health.temperatures",
    "health.power_microwatts",
    "health.power_cap_microwatts",
    "health.gfx_busy_percent",
    "health.memory_busy_percent",
    "health.vram_used",
    "health.vram_total",
    "health.gtt_used",
    "health.gtt_total",
    "health.memory_used",
    "health.memory_total",
    "health.ras",
    "health.retired_pages",
    "health.pending_pages",
    "health.unretired_pages",
    "health.whole_gpu",
];

/// What a condition finds where the signal has nothing of this name.
fn missing(name: &str, signal: &Signal) -> Value {
    match name {
        "job" | "health" | "data" | "gpu" | "latency" => Value::Map(map(std::iter::empty())),
        "doubtful" | "ambiguous" | "across_gap" => Value::Bool(false),
        "count" => integer(super::weight(signal)),
        "severity" => text(signal.severity().name()),
        _ => Value::Null,
    }
}

/// A signal as conditions see it. Its JSON is written when the first condition asks, and once.
#[derive(Debug)]
pub(crate) struct Variables<'a> {
    signal: &'a Signal,
    json: OnceCell<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(signal: &'a Signal) -> Self {
        Self { signal, json: OnceCell::new() }
    }

    pub(crate) fn signal(&self) -> &'a Signal {
        self.signal
    }

    /// The value of `name`, which may have dots, as text for people: nothing in it moves a cursor or breaks a line.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = match name {
            "duration" => self.duration()?,
            "victims" => self.victims()?,
            _ => self.plain_text(name)?,
        };
        Some(Printable(text.as_bytes()).to_string())
    }

    /// How long a span took, in the unit that people read.
    fn duration(&self) -> Option<String> {
        let ns = self.json().get("duration_ns")?.as_u64()?;
        let seconds = Duration::from_nanos(ns).as_secs_f64();
        Some(match ns {
            0..1_000_000 => format!("{:.0} us", seconds * 1e6),
            1_000_000..1_000_000_000 => format!("{:.0} ms", seconds * 1e3),
            _ if seconds < 60.0 => format!("{seconds:.1} s"),
            _ => format!("{seconds:.0} s"),
        })
    }

    /// Who was hit: names and numbers, with their jobs.
    fn victims(&self) -> Option<String> {
        let victims = self.victim_list()?;
        if victims.is_empty() { Some("no process".to_owned()) } else { Some(victims.join(", ")) }
    }

    /// The same one by one; `None` where nobody can know.
    pub(crate) fn victim_list(&self) -> Option<Vec<String>> {
        let facts = self.signal.reset.as_ref()?;
        let victims = facts.victims.as_ref()?.iter();
        Some(victims.map(super::group::victim).collect())
    }

    fn plain_text(&self, name: &str) -> Option<String> {
        // Of a thread whose process is not known there is the thread.
        let instead = match name {
            "process" => Some("thread"),
            "pid" => Some("tid"),
            _ => None,
        };
        self.text_of(name).or_else(|| self.text_of(instead?))
    }

    fn text_of(&self, name: &str) -> Option<String> {
        let mut parts = name.split('.');
        let first = self.json().get(parts.next()?)?;
        let value = parts.try_fold(first, |value, part| value.get(part))?;
        match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Array(values) => {
                let texts = values.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned));
                Some(texts.collect::<Vec<_>>().join(", "))
            }
            other => Some(other.to_string()),
        }
    }

    /// Gives `context` these variables.
    pub(super) fn bind(&self, names: &[String], context: &mut Context<'_, '_>) {
        for name in names {
            let found = self.json().get(name).filter(|value| !value.is_null());
            let value = found.map_or_else(|| missing(name, self.signal), value_of);
            context.add_variable_from_value(name.clone(), value);
        }
    }

    fn json(&self) -> &serde_json::Map<String, serde_json::Value> {
        self.json.get_or_init(|| {
            let mut text = String::new();
            self.signal.write_json(&mut text);
            serde_json::from_str(&text).unwrap_or_default()
        })
    }
}

fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(string) => text(string),
        serde_json::Value::Array(values) => {
            Value::List(Arc::new(values.iter().map(value_of).collect()))
        }
        serde_json::Value::Object(entries) => {
            Value::Map(map(entries.iter().map(|(name, value)| (name.as_str(), value_of(value)))))
        }
    }
}

fn map<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Map {
    let key = |name: &str| Key::String(Arc::new(name.to_owned()));
    let entries: HashMap<Key, Value> = entries.map(|(name, value)| (key(name), value)).collect();
    Map { map: Arc::new(entries) }
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

/// CEL counts with signed numbers; what they cannot hold is unsigned.
fn integer(number: u64) -> Value {
    i64::try_from(number).map_or(Value::UInt(number), Value::Int)
}
