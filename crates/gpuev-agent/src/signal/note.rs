//! What a history keeps of a signal beside the event: how the GPU was doing, and counters that rose.

use std::collections::HashMap;
use std::sync::Arc;

use gpuev::health::Health;
use gpuev::json::{self, Object};
use gpuev::time::{Anchor, Rfc3339};
use gpuev::{Bdf, Severity};
use gpuev_store::{Note, NotedEvent, RecordedNote};
use serde_json::Value;

use super::{RasIncrease, RasKind, Signal, What};

/// The reading of each GPU that was noted last: events of a storm share one, and it is kept once.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    latest: HashMap<(Bdf, u32), Arc<Health>>,
}

impl Noted {
    /// What is to be kept of `signal`. Periodic readings are for those who look now; a year of them would be
    /// larger than all else.
    pub(crate) fn note_of(&mut self, signal: &Signal) -> Option<Note> {
        let at = Anchor { boot_ns: signal.boot_ns, unix_ns: signal.unix_ns };
        match (&signal.what, &signal.health) {
            (What::RasErrors(_), _) => {
                let mut json = String::new();
                signal.write_json(&mut json);
                Some(Note { gpu: signal.gpu, at, event: None, record: "ras", json })
            }
            (What::Event(event), Some(health)) if self.is_new(signal, health) => {
                let (seq, received_boot_ns) = (event.seq, event.time.received_boot_ns);
                let event = Some(NotedEvent { seq, received_boot_ns });
                let json = reading(signal, seq, health);
                Some(Note { gpu: signal.gpu, at, event, record: "health", json })
            }
            _ => None,
        }
    }

    fn is_new(&mut self, signal: &Signal, health: &Arc<Health>) -> bool {
        let key = (signal.gpu.bdf, signal.gpu.partition);
        let before = self.latest.insert(key, Arc::clone(health));
        before.is_none_or(|before| !Arc::ptr_eq(&before, health))
    }
}

impl Signal {
    /// What `note` was taken of, where that was a signal of its own: a counter that rose. How the GPU was doing
    /// then is not read back.
    #[must_use]
    pub fn noted(note: &RecordedNote) -> Option<Self> {
        if note.record != "ras" {
            return None;
        }
        let said: Value = serde_json::from_str(&note.json).ok()?;
        let ras = RasIncrease {
            block: said["block"].as_str()?.to_owned(),
            kind: RasKind::from_name(said["kind"].as_str()?)?,
            increase: said["increase"].as_u64()?,
            total: said["total"].as_u64()?,
        };
        Some(Self {
            what: What::RasErrors(ras),
            boot_ns: note.at.boot_ns,
            unix_ns: note.at.unix_ns,
            gpu: note.gpu,
            life: gpuev::Life::default(),
            process: None,
            ambiguous: false,
            health: None,
            reset: None,
        })
    }
}

/// The record `health` of `docs/event-schema.md`, of the reading for event number `seq`.
fn reading(signal: &Signal, seq: u64, health: &Health) -> String {
    let mut json = String::new();
    let mut object = Object::begin(&mut json, "health");
    object.word("severity", Severity::Info.name());
    object.value("gpu", |out| json::write_gpu(out, signal.gpu));
    object.text("time", Rfc3339(signal.unix_ns));
    object.number("boot_ns", signal.boot_ns);
    object.number("seq", seq);
    object.value("health", |out| json::write_health(out, health));
    object.end();
    json
}
