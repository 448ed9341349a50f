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

/// The KFD node of the CPU that is nearest to a GPU.
#[pyfunction]
pub(crate) fn gpu_nearest_cpu(py: Python<'_>, gpu: &Gpu) -> Option<u32> {
    py.detach(|| gpu.machine.nearest_cpu(gpu.gpu.node)).map(|link| link.to)
}
