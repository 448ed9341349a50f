//! A filter as what it was made of: to write it down, and to say what it leaves out.

use gpuev_kfd::EventType;

use super::{Filter, ends_of};
use crate::Severity;
use crate::span::SpanKind;

/// What a [`Filter`] asks for; `None` asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FilterParts {
    /// These types.
    pub types: Option<Vec<EventType>>,
    /// Unknown events too.
    pub unknown: bool,
    /// Not all GPUs: [`Filter::passes_gpu`] tells which.
    pub some_gpus: bool,
    /// Events of these processes.
    pub pids: Option<Vec<u32>>,
    /// Events at least this severe.
    pub severity: Option<Severity>,
}

impl Filter {
    /// What it asks of events; see [`passes_gpu`](Self::passes_gpu) for GPUs.
    #[must_use]
    pub fn parts(&self) -> FilterParts {
        let Self { types, gpus, pids, severity } = self;
        FilterParts {
            types: types.map(|(mask, _)| {
                EventType::ALL.into_iter().filter(|one| mask.contains(*one)).collect()
            }),
            unknown: types.is_none_or(|(_, unknown)| unknown),
            some_gpus: gpus.is_some(),
            pids: pids.clone(),
            severity: *severity,
        }
    }

    /// The filter that asks this of the events of all GPUs.
    #[must_use]
    pub fn of_parts(parts: FilterParts) -> Self {
        let FilterParts { types, unknown, pids, severity, .. } = parts;
        let mut filter = Self { pids, severity, ..Self::new() };
        if let Some(types) = types {
            filter = filter.types(types, unknown);
        }
        filter
    }

    /// Whether every event of a type passes, as far as type and severity go; `None` for unknown ones.
    #[must_use]
    pub fn passes_all_of(&self, event_type: Option<EventType>) -> bool {
        let lowest = match event_type {
            Some(EventType::VmFault | EventType::GpuPreReset) => Severity::Critical,
            Some(EventType::ThermalThrottle | EventType::GpuPostReset) => Severity::Warning,
            _ => Severity::Info,
        };
        let named = self.types.is_none_or(|(mask, unknown)| match event_type {
            Some(event_type) => mask.contains(event_type),
            None => unknown,
        });
        named && self.severity.is_none_or(|least| lowest >= least)
    }

    /// Whether both the starts and the ends of a kind pass, so that they can be paired.
    #[must_use]
    pub fn passes_both_ends_of(&self, kind: SpanKind) -> bool {
        let (start, end) = ends_of(kind);
        self.passes_all_of(Some(start)) && self.passes_all_of(Some(end))
    }
}
