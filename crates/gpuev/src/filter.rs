//! Which events a subscriber wants.

use gpuev_kfd::{EventMask, EventType, Fields, Record};

use crate::event::{pid_of, severity_of};
use crate::{GpuId, Severity};

/// Which events a subscriber wants; the default is all. Gaps pass where their GPU does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    types: Option<(EventMask, bool)>,
    gpus: Option<Vec<GpuKey>>,
    pids: Option<Vec<u32>>,
    severity: Option<Severity>,
}

/// What of a GPU outlives a change of its partitions.
type GpuKey = (crate::Bdf, u32);

fn key(gpu: GpuId) -> GpuKey {
    (gpu.bdf, gpu.partition)
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

    /// Only these GPUs.
    #[must_use]
    pub fn gpus(mut self, gpus: impl IntoIterator<Item = GpuId>) -> Self {
        self.gpus = Some(gpus.into_iter().map(key).collect());
        self
    }

    /// Only events of these processes.
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
        self.gpus.as_ref().is_none_or(|gpus| gpus.contains(&key(gpu)))
    }

    /// Whether an event passes.
    #[must_use]
    pub fn passes(&self, gpu: GpuId, record: &Record<'_>) -> bool {
        self.passes_gpu(gpu)
            && self.types.is_none_or(|(mask, unknown)| match record.event_type() {
                Some(event_type) => mask.contains(event_type),
                None => unknown && matches!(record.fields, Fields::Unknown { .. }),
            })
            && self
                .pids
                .as_ref()
                .is_none_or(|pids| pid_of(record).is_some_and(|p| pids.contains(&p)))
            && self.severity.is_none_or(|least| severity_of(record) >= least)
    }
}
