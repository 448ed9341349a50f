//! Which events a subscriber wants.

mod parts;

pub use parts::FilterParts;

use gpuev_kfd::{EventMask, EventType, Fields, Record};

use crate::event::{EventFacts, highest_severity_of, severity_of, tid_of};
use crate::span::{Outcome, Span, SpanKind};
use crate::{GpuId, GpuSelector, Severity};

/// Which events a subscriber wants; the default is all. Gaps pass where their GPU does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    types: Option<(EventMask, bool)>,
    gpus: Option<Vec<GpuSelector>>,
    pids: Option<Vec<u32>>,
    severity: Option<Severity>,
}

impl Filter {
    /// Everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these types, and unknown events where `unknown` says so.
    #[must_use]
    pub fn types(mut self, types: impl IntoIterator<Item = EventType>, unknown: bool) -> Self {
        self.types = Some((types.into_iter().collect(), unknown));
        self
    }

    /// Only these GPUs, those that a [`GpuSelector`] selects later included.
    #[must_use]
    pub fn gpus(mut self, gpus: impl IntoIterator<Item = impl Into<GpuSelector>>) -> Self {
        self.gpus = Some(gpus.into_iter().map(Into::into).collect());
        self
    }

    /// Only events of these processes; a thread's number stands for the events that name it.
    #[must_use]
    pub fn pids(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.pids = Some(pids.into_iter().collect());
        self
    }

    /// Only events at least this severe.
    #[must_use]
    pub fn severity(mut self, least: Severity) -> Self {
        self.severity = Some(least);
        self
    }

    /// Whether an item of `gpu` passes as far as the GPU goes.
    #[must_use]
    pub fn passes_gpu(&self, gpu: GpuId) -> bool {
        self.gpus.as_ref().is_none_or(|gpus| gpus.iter().any(|one| one.selects(gpu)))
    }

    /// What the driver must queue so that every event that passes arrives.
    pub(crate) fn mask(&self) -> EventMask {
        let (types, unknown) = self.types.unwrap_or((EventMask::ALL, true));
        let is_severe = |severity| self.severity.is_none_or(|least| severity >= least);
        let named = EventType::ALL
            .into_iter()
            .filter(|t| types.contains(*t) && is_severe(highest_severity_of(*t)))
            .collect::<EventMask>();
        // An unknown event is Severity::Info.
        if unknown && is_severe(Severity::Info) { named.union(EventMask::UNNAMED) } else { named }
    }

    /// Whether an event passes, `record` being what its line decodes to.
    #[must_use]
    pub fn passes(&self, facts: &EventFacts<'_>, record: &Record<'_>) -> bool {
        self.passes_gpu(facts.gpu)
            && self.types.is_none_or(|(mask, unknown)| match record.event_type() {
                Some(event_type) => mask.contains(event_type),
                None => unknown && matches!(record.fields, Fields::Unknown { .. }),
            })
            && self.passes_process(facts.pid_in(record), tid_of(record))
            && self.severity.is_none_or(|least| severity_of(record) >= least)
    }

    fn passes_process(&self, pid: Option<u32>, tid: Option<u32>) -> bool {
        let Some(wanted) = &self.pids else { return true };
        [pid, tid].into_iter().flatten().any(|number| wanted.contains(&number))
    }

    /// Whether a span passes: its GPU and process do, and the type and severity of one of the events that begin
    /// and end its kind.
    #[must_use]
    pub fn passes_span(&self, span: &Span) -> bool {
        self.passes_gpu(span.gpu)
            && self.types.is_none_or(|(mask, _)| {
                let (start, end) = ends_of(span.kind());
                mask.contains(start) || mask.contains(end)
            })
            && self.passes_process(span.pid, span.tid)
            && self.severity.is_none_or(|least| severity_of_span(span) >= least)
    }
}

/// The types that begin and end a kind of span.
fn ends_of(kind: SpanKind) -> (EventType, EventType) {
    match kind {
        SpanKind::Reset => (EventType::GpuPreReset, EventType::GpuPostReset),
        SpanKind::PageFault => (EventType::PageFaultStart, EventType::PageFaultEnd),
        SpanKind::Migration => (EventType::MigrateStart, EventType::MigrateEnd),
        SpanKind::QueueEviction => (EventType::QueueEviction, EventType::QueueRestore),
        SpanKind::Process => (EventType::ProcessStart, EventType::ProcessEnd),
    }
}

/// The severity of the severer of its ends.
fn severity_of_span(span: &Span) -> Severity {
    match (span.kind(), span.outcome) {
        (SpanKind::Reset, _) => Severity::Critical,
        (SpanKind::Migration, Outcome::Failed) => Severity::Warning,
        _ => Severity::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The driver is asked for every event that passes, whatever is filtered by.
    #[test]
    fn what_passes_is_asked_for() {
        let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../captures");
        let mut passed = 0;
        for kernel in std::fs::read_dir(captures).unwrap() {
            let Ok(files) = std::fs::read_dir(kernel.unwrap().path()) else { continue };
            for file in files {
                let text = std::fs::read(file.unwrap().path()).unwrap();
                for line in text.split(|&byte| byte == b'\n') {
                    let record = gpuev_kfd::decode(line);
                    let Some(event_type) = record.event_type() else { continue };
                    for least in Severity::ALL {
                        let filter = Filter::new().severity(least);
                        let asked = filter.mask().contains(event_type);
                        assert!(asked || severity_of(&record) < least, "{}", line.escape_ascii());
                        passed += usize::from(asked);
                    }
                }
            }
        }
        assert!(passed > 30, "{passed}");
    }
}
