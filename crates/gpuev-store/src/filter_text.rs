//! What a recorder left out, as text: the column `filter` of a session, and the same in JSON lines.

use gpuev::{Bdf, EventType, Filter, FilterParts, GpuId, Severity};
use serde::{Deserialize, Serialize};

/// A filter as JSON: `{"types":["VMFAULT"],"unknown":false,"gpus":[{"bdf":"0000:03:00.0","partition":0}],
/// "pids":[4242],"severity":"warning"}`. What it does not ask for is absent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FilterText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpus: Option<Vec<GpuText>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pids: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    severity: Option<String>,
}

/// What is in both lists; without one, what is in the other.
fn both<T: Clone + PartialEq>(one: Option<&Vec<T>>, other: Option<&Vec<T>>) -> Option<Vec<T>> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(one.iter().filter(|item| other.contains(item)).cloned().collect())
        }
        (one, other) => one.or(other).cloned(),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct GpuText {
    bdf: String,
    partition: u32,
}

impl FilterText {
    /// What `filter` asks for, of a machine with these GPUs; `None` where that is everything.
    pub(crate) fn of(filter: &Filter, gpus: impl IntoIterator<Item = GpuId>) -> Option<Self> {
        if *filter == Filter::new() {
            return None;
        }
        let parts = filter.parts();
        let named = |gpu: GpuId| GpuText { bdf: gpu.bdf.to_string(), partition: gpu.partition };
        let passing = gpus.into_iter().filter(|gpu| filter.passes_gpu(*gpu)).map(named);
        let gpus = parts.some_gpus.then(|| passing.collect());
        let name = |event_type: &EventType| event_type.name().to_owned();
        Some(Self {
            unknown: parts.types.is_some().then_some(parts.unknown),
            types: parts.types.map(|types| types.iter().map(name).collect()),
            gpus,
            pids: parts.pids,
            severity: parts.severity.map(|least| least.name().to_owned()),
        })
    }

    /// What passes both filters.
    pub(crate) fn of_both(
        one: &Filter,
        other: &Filter,
        gpus: impl IntoIterator<Item = GpuId> + Clone,
    ) -> Option<Self> {
        let (one, other) = (Self::of(one, gpus.clone()), Self::of(other, gpus));
        let (Some(one), Some(other)) = (&one, &other) else { return one.or(other) };
        let severity = |text: &Self| text.severity.as_deref().and_then(Severity::from_name);
        Some(Self {
            types: both(one.types.as_ref(), other.types.as_ref()),
            unknown: match (one.unknown, other.unknown) {
                (Some(one), Some(other)) => Some(one && other),
                (one, other) => one.or(other),
            },
            gpus: both(one.gpus.as_ref(), other.gpus.as_ref()),
            pids: both(one.pids.as_ref(), other.pids.as_ref()),
            severity: severity(one).max(severity(other)).map(|least| least.name().to_owned()),
        })
    }

    /// The filter. A type of a later version is left out. What a severity of a later version leaves out is not known:
    /// that may be anything.
    pub(crate) fn filter(&self) -> Filter {
        let severity = self.severity.as_deref();
        if severity.is_some_and(|name| Severity::from_name(name).is_none()) {
            return Filter::new().types([], false);
        }
        let mut parts = FilterParts::default();
        parts.types = self
            .types
            .as_ref()
            .map(|names| names.iter().filter_map(|name| EventType::from_name(name)).collect());
        parts.unknown = self.unknown.unwrap_or(true);
        parts.pids.clone_from(&self.pids);
        parts.severity = severity.and_then(Severity::from_name);
        let filter = Filter::of_parts(parts);
        match &self.gpus {
            Some(gpus) => filter.gpus(gpus.iter().filter_map(GpuText::gpu)),
            None => filter,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The filter that `text` tells of. What cannot be read may have left out anything.
    pub(crate) fn read(text: &str) -> Filter {
        serde_json::from_str(text)
            .map_or_else(|_| Filter::new().types([], false), |text: Self| text.filter())
    }
}

impl GpuText {
    /// A filter asks for address and partition only.
    fn gpu(&self) -> Option<GpuId> {
        let bdf: Bdf = self.bdf.parse().ok()?;
        Some(GpuId { index: 0, bdf, unique_id: None, partition: self.partition, kfd_id: 0 })
    }
}
