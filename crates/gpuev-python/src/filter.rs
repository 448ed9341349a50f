//! Which items are wanted, as Python says it.

use gpuev::{EventType, Filter, Severity};

/// Those of `types` (the driver's numbers) and, with `unknown`, of later kernels, of these processes, at least
/// this severe; all where nothing is said.
pub(crate) fn filter(
    types: Option<Vec<u32>>,
    unknown: bool,
    pids: Option<Vec<u32>>,
    severity: Option<usize>,
) -> Filter {
    let mut filter = Filter::new();
    if let Some(types) = types {
        filter = filter.types(types.into_iter().filter_map(EventType::from_id), unknown);
    }
    if let Some(pids) = pids {
        filter = filter.pids(pids);
    }
    if let Some(least) = severity.and_then(|place| Severity::ALL.get(place)) {
        filter = filter.severity(*least);
    }
    filter
}
