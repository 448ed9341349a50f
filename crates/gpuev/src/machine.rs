//! What GPUs a machine has, from sysfs.
//!
//! Source: `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`. Everything is read below a root folder, so that a
//! simulated machine, a mounted image or a container's host is looked at in the same way as this machine.

pub(crate) mod chips;
pub(crate) mod files;
mod hardware;
mod links;
mod names;
mod pci;
mod select;
mod surroundings;
mod topology;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use select::GpuSelector;

use crate::health::Bytes;
use crate::{Error, ErrorKind, EventSource, GpuId, KfdDevice, Result};

pub use hardware::Caches;
pub use links::{Link, LinkKind, Route};
pub use pci::Card;
pub use surroundings::ContainerEngine;

/// A machine: where its `/sys`, `/proc` and `/dev` are, and who opens its event files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Machine {
    root: Arc<Path>,
    events: Arc<dyn EventSource>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn host() -> Self {
        Self::at("/")
    }

    /// The machine whose `/sys`, `/proc` and `/dev` are below `root`.
    #[must_use]
    pub fn at(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self { root: root.into(), events: Arc::new(KfdDevice::at(root)) }
    }

    /// This machine with another source of event files than its own `/dev/kfd`: a simulator's, or that of
    /// a process with more privileges.
    #[must_use]
    pub fn with_event_source(mut self, events: impl EventSource + 'static) -> Self {
        self.events = Arc::new(events);
        self
    }

    /// Who opens its event files.
    #[must_use]
    pub fn event_source(&self) -> &dyn EventSource {
        &*self.events
    }

    /// The folder that everything is read below; `/` for this machine.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `path` (`/sys/...`, `/proc/...`; a leading slash makes no difference) is on this machine.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What GPUs there are, and which of them are kept from us.
    ///
    /// A GPU whose files are missing, unreadable or absurd is still listed, with `None` for what they do
    /// not say. A machine whose driver runs and that has no GPU gives an empty list.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] where KFD has no topology: no driver, or a container without `/sys/class/kfd`.
    pub fn inventory(&self) -> Result<Inventory> {
        topology::inventory(self)
    }

    /// The GPUs that may be used, in order of PCI address and partition.
    ///
    /// # Errors
    /// As [`Machine::inventory`].
    pub fn gpus(&self) -> Result<Vec<Gpu>> {
        self.inventory().map(|inventory| inventory.gpus)
    }

    /// The one GPU that `selector` names; see [`Inventory::find`].
    ///
    /// # Errors
    /// As [`Machine::inventory`] and [`Inventory::find`].
    pub fn find(&self, selector: &str) -> Result<Gpu> {
        self.inventory()?.find(selector).cloned()
    }

    /// KFD's count of topology changes (`generation_id`): another number means that GPUs or partitions came
    /// or went. It is the cheapest question that can be asked of the driver.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] where KFD has no topology, [`ErrorKind::Io`] where it answers with nonsense.
    pub fn generation(&self) -> Result<u64> {
        let path = self.path("sys/class/kfd/kfd/topology/generation_id");
        let text =
            files::text(&path).map_err(|error| crate::advice::no_topology(self, &path, error))?;
        text.parse().map_err(|_| {
            Error::new(ErrorKind::Io, format!("read {}: {text:?} is not a number", path.display()))
        })
    }

    /// What is known of the amdgpu driver.
    #[must_use]
    pub fn driver(&self) -> DriverInfo {
        let module = self.path("sys/module/amdgpu");
        DriverInfo {
            loaded: module.is_dir(),
            built_in: module.is_dir() && !module.join("initstate").exists(),
            version: files::non_empty(&module.join("version")),
            srcversion: files::non_empty(&module.join("srcversion")),
            references: files::number(&module.join("refcnt")),
        }
    }

    /// The kernel's release, as `uname -r` prints it.
    #[must_use]
    pub fn kernel_release(&self) -> Option<String> {
        files::non_empty(&self.path("proc/sys/kernel/osrelease"))
    }

    /// The number that the kernel drew at its start: another one means another boot, and other clocks.
    #[must_use]
    pub fn boot_id(&self) -> Option<String> {
        files::non_empty(&self.path("proc/sys/kernel/random/boot_id"))
    }

    /// The machine's name.
    #[must_use]
    pub fn hostname(&self) -> Option<String> {
        files::non_empty(&self.path("proc/sys/kernel/hostname"))
    }
}

/// The amdgpu driver, from `/sys/module/amdgpu`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverInfo {
    /// Whether it is there at all, as a module or built in.
    pub loaded: bool,
    /// Whether it is part of the kernel and cannot be unloaded.
    pub built_in: bool,
    /// Its own version; only AMD's out-of-tree driver has one.
    pub version: Option<String>,
    /// Checksum of its source.
    pub srcversion: Option<String>,
    /// How many users keep it from being unloaded; `None` where the kernel does not say.
    pub references: Option<u64>,
}

/// One GPU, or one partition of a GPU, as KFD lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Which one.
    pub id: GpuId,
    /// Number of its KFD topology node.
    pub node: u32,
    /// Marketing or code name, e.g. `AMD Instinct MI300X`; empty where nobody says.
    pub name: String,
    /// Instruction set.
    pub gfx_target: Option<GfxTarget>,
    /// Minor of `/dev/dri/renderD<minor>`.
    pub render_minor: Option<u32>,
    /// Number of `/dev/dri/card<number>`.
    pub card: Option<u32>,
    /// How many partitions the driver divides the GPU with this PCI address into, whoever may see them; 1 where it
    /// is not partitioned.
    pub partitions: u32,
    /// The PCI device's folder in sysfs, under the machine's root; the partitions of a GPU share it.
    pub device_dir: PathBuf,
    /// The folder of the device that the render node belongs to: that of the PCI device, or the one that a further
    /// partition has.
    pub partition_dir: Option<PathBuf>,
    /// PCI device id.
    pub device_id: Option<u16>,
    /// Whether it shares package and memory with a CPU.
    pub apu: bool,
    /// The memory that KFD gives it: of a partition its own. An APU's is the host's, as far as it may have it.
    pub local_memory: Option<Bytes>,
    /// Compute units of this GPU or partition.
    pub compute_units: Option<u32>,
    /// The XGMI hive that it belongs to: its GPUs are reset together.
    pub hive: Option<u64>,
    /// How the compute units are divided now: `SPX`, `DPX`, `TPX`, `QPX` or `CPX`.
    pub compute_partition: Option<String>,
    /// How the memory is divided now: `NPS1`, `NPS2`, `NPS4` or `NPS8`.
    pub memory_partition: Option<String>,
}

/// `gfx_target_version`: major * 10000 + minor * 100 + stepping. Written `gfx90a`, `gfx1100`: the stepping is
/// a hex digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GfxTarget(pub u32);

impl GfxTarget {
    /// Generation: 9 for GCN and CDNA, 10 to 12 for RDNA.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Variant within the generation.
    #[must_use]
    pub fn minor(self) -> u32 {
        self.0 / 100 % 100
    }

    /// Stepping within the variant.
    #[must_use]
    pub fn stepping(self) -> u32 {
        self.0 % 100
    }
}

impl fmt::Display for GfxTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gfx{}{:x}{:x}", self.major(), self.minor(), self.stepping())
    }
}

/// A topology node that may not be read: a GPU that the device cgroup keeps from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedNode {
    /// Number of its KFD topology node.
    pub node: u32,
}

/// A topology node that should be a GPU and does not say which.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableNode {
    /// Number of its KFD topology node.
    pub node: u32,
    /// What is wrong, naming the file.
    pub problem: String,
}

impl Gpu {
    /// Whether it is a partition of a GPU.
    #[must_use]
    pub fn is_partition(&self) -> bool {
        self.partitions > 1
    }
}

/// What a look at the topology found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// KFD's count of topology changes; 0 where it cannot be read.
    pub generation: u64,
    /// GPUs that may be used, in order of PCI address and partition.
    pub gpus: Vec<Gpu>,
    /// GPUs of others.
    pub denied: Vec<DeniedNode>,
    /// Nodes that say nothing that would identify them.
    pub unreadable: Vec<UnreadableNode>,
    /// AMD GPUs on the PCI bus that are in none of these lists by their address, in order of address. One of them
    /// may be a GPU in `denied`: such a node does not say which it is.
    pub left_out: Vec<Card>,
}
