//! What GPUs a machine has, from sysfs.
//!
//! Source: `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`.

use std::path::PathBuf;

use crate::GpuId;

/// One GPU, or one partition of a GPU, as KFD lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Which one.
    pub id: GpuId,
    /// Number of its KFD topology node.
    pub node: u32,
    /// Marketing or code name, e.g. `MI300X`; empty where nobody says.
    pub name: String,
    /// Instruction set.
    pub gfx_target: Option<GfxTarget>,
    /// Minor of `/dev/dri/renderD<minor>`.
    pub render_minor: Option<u32>,
    /// Number of `/dev/dri/card<number>`.
    pub card: Option<u32>,
    /// How many partitions the GPU with this PCI address has; 1 where it is not partitioned.
    pub partitions: u32,
    /// The PCI device's folder in sysfs, under the machine's root.
    pub device_dir: PathBuf,
}

/// `gfx_target_version`: major, minor, stepping. Written `gfx90a`, `gfx1100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GfxTarget(pub u32);

/// A topology node that may not be read: a GPU that the device cgroup keeps from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedNode {
    /// Number of its KFD topology node.
    pub node: u32,
}

/// What a look at the topology found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// KFD's count of topology changes.
    pub generation: u64,
    /// GPUs that may be used, in order of PCI address and partition.
    pub gpus: Vec<Gpu>,
    /// GPUs of others.
    pub denied: Vec<DeniedNode>,
}

/// A machine: where its sysfs, `/proc` and `/dev` are, and how its event files are opened.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}
