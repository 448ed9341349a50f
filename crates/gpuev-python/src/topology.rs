//! How GPUs reach one another, for functions that ask about two of them.

use gpuev::LinkKind;
use pyo3::prelude::*;

use crate::gpu::Gpu;

/// A link to another node of KFD's topology; bandwidths in megabytes a second.
#[derive(IntoPyObject)]
struct LinkDict {
    kind: &'static str,
    to: u32,
    weight: u64,
    min_bandwidth: u64,
    max_bandwidth: u64,
    flags: u32,
    peer: bool,
}

/// The way from one GPU to another.
#[derive(IntoPyObject)]
struct RouteDict {
    kind: &'static str,
    hops: u32,
    weight: Option<u64>,
}

fn kind(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Pcie => "pcie",
        LinkKind::Xgmi => "xgmi",
        _ => "other",
    }
}

/// The links of a GPU, in order of the node at the other end.
#[pyfunction]
pub(crate) fn gpu_links(py: Python<'_>, gpu: &Gpu) -> Vec<impl for<'py> IntoPyObject<'py>> {
    let links = py.detach(|| gpu.machine.links(gpu.gpu.node));
    let dict = |link: &gpuev::Link| LinkDict {
        kind: kind(link.kind),
        to: link.to,
        weight: link.weight,
        min_bandwidth: link.min_bandwidth,
        max_bandwidth: link.max_bandwidth,
        flags: link.flags,
        peer: link.peer,
    };
    links.iter().map(dict).collect::<Vec<_>>()
}

/// The way from one GPU to another; None from a GPU to itself, and where the driver shows none.
#[pyfunction]
pub(crate) fn gpu_route(
    py: Python<'_>,
    source: &Gpu,
    destination: &Gpu,
) -> Option<impl for<'py> IntoPyObject<'py>> {
    let route = py.detach(|| source.machine.route(&source.gpu, &destination.gpu))?;
    Some(RouteDict { kind: kind(route.kind), hops: route.hops, weight: route.weight })
}

/// Caches that are alike; `flags` as the driver has them (HSA_CACHE_TYPE_*).
#[derive(IntoPyObject)]
struct CacheDict {
    level: u32,
    kibibytes: u64,
    flags: u32,
    compute_units: usize,
    count: usize,
}

/// The caches of a GPU, those that are alike together.
#[pyfunction]
pub(crate) fn gpu_caches(py: Python<'_>, gpu: &Gpu) -> Vec<impl for<'py> IntoPyObject<'py>> {
    let caches = py.detach(|| gpu.machine.caches(gpu.gpu.node));
    let dict = |cache: &gpuev::Caches| CacheDict {
        level: cache.level,
        kibibytes: cache.kibibytes,
        flags: cache.flags,
        compute_units: cache.compute_units,
        count: cache.count,
    };
    caches.iter().map(dict).collect::<Vec<_>>()
}

/// How many bits wide the video memory of a GPU is.
#[pyfunction]
pub(crate) fn gpu_memory_width(py: Python<'_>, gpu: &Gpu) -> Option<u32> {
    py.detach(|| gpu.machine.video_memory_width(gpu.gpu.node))
}

/// The KFD node of the CPU that is nearest to a GPU.
#[pyfunction]
pub(crate) fn gpu_nearest_cpu(py: Python<'_>, gpu: &Gpu) -> Option<u32> {
    py.detach(|| gpu.machine.nearest_cpu(gpu.gpu.node)).map(|link| link.to)
}
