//! GPUs, and the handles by which the documented API names them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::path::Path;

use gpuev::{Bdf, Machine};
use pyo3::prelude::*;

use crate::health::Sensors;
use crate::pickle::{Reduced, gpu_facts, reduced};

/// A GPU, or one partition of a GPU. Two are equal where PCI address and partition are.
#[pyclass(frozen, eq, ord, hash, weakref, module = "gpuev", from_py_object)]
#[derive(Clone)]
pub(crate) struct Gpu {
    pub(crate) machine: Machine,
    pub(crate) gpu: gpuev::Gpu,
}

impl Gpu {
    pub(crate) fn new(machine: &Machine, gpu: gpuev::Gpu) -> Self {
        Self { machine: machine.clone(), gpu }
    }

    fn key(&self) -> (&Path, Bdf, u32) {
        (self.machine.root(), self.gpu.id.bdf, self.gpu.id.partition)
    }

    /// PCI address, and the partition where there are several.
    fn place(&self) -> String {
        match self.gpu.partitions {
            0 | 1 => self.gpu.id.bdf.to_string(),
            _ => format!("{}/{}", self.gpu.id.bdf, self.gpu.id.partition),
        }
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Gpu {}

impl PartialOrd for Gpu {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Gpu {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Gpu {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[pymethods]
impl Gpu {
    /// Place in the machine's list, in order of PCI address and partition, from 0.
    #[getter]
    fn index(&self) -> u32 {
        self.gpu.id.index
    }

    /// PCI address: `0000:03:00.0`.
    #[getter]
    fn bdf(&self) -> String {
        self.gpu.id.bdf.to_string()
    }

    /// The maker's number, 16 hex digits: the same in every slot and machine. None on GPUs that have none.
    #[getter]
    fn unique_id(&self) -> Option<String> {
        self.gpu.id.unique_id.map(|id| id.to_string())
    }

    /// Partition of the GPU with this PCI address, from 0.
    #[getter]
    fn partition(&self) -> u32 {
        self.gpu.id.partition
    }

    /// How many partitions the GPU with this PCI address has; 1 where it is not partitioned.
    #[getter]
    fn partitions(&self) -> u32 {
        self.gpu.partitions
    }

    /// Marketing or code name; empty where nobody says.
    #[getter]
    fn name(&self) -> &str {
        &self.gpu.name
    }

    /// Instruction set: `gfx942`.
    #[getter]
    fn gfx_target(&self) -> Option<String> {
        self.gpu.gfx_target.map(|target| target.to_string())
    }

    /// Compute units of this GPU or partition.
    #[getter]
    fn compute_units(&self) -> Option<u32> {
        self.gpu.compute_units
    }

    /// Minor of `/dev/dri/renderD<minor>`.
    #[getter]
    fn render_minor(&self) -> Option<u32> {
        self.gpu.render_minor
    }

    /// Number of `/dev/dri/card<number>`.
    #[getter]
    fn card(&self) -> Option<u32> {
        self.gpu.card
    }

    /// KFD's number (`gpu_id`); changes with the partition mode.
    #[getter]
    fn kfd_id(&self) -> u32 {
        self.gpu.id.kfd_id
    }

    /// Number of its KFD topology node.
    #[getter]
    fn kfd_node(&self) -> u32 {
        self.gpu.node
    }

    /// Whether it shares package and memory with a CPU.
    #[getter]
    fn apu(&self) -> bool {
        self.gpu.apu
    }

    /// The XGMI hive that it belongs to: its GPUs are reset together.
    #[getter]
    fn hive(&self) -> Option<u64> {
        self.gpu.hive
    }

    /// How the compute units are divided now: `SPX`, `DPX`, `TPX`, `QPX` or `CPX`.
    #[getter]
    fn compute_partition(&self) -> Option<&str> {
        self.gpu.compute_partition.as_deref()
    }

    /// How the memory is divided now: `NPS1`, `NPS2`, `NPS4` or `NPS8`.
    #[getter]
    fn memory_partition(&self) -> Option<&str> {
        self.gpu.memory_partition.as_deref()
    }

    /// How it is doing.
    #[getter]
    fn sensors(&self) -> Sensors {
        Sensors(self.clone())
    }

    fn __repr__(&self) -> String {
        format!("<gpuev.Gpu {} {} {:?}>", self.index(), self.place(), self.gpu.name)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduced(py, "restore_gpu", (gpu_facts(self.gpu.id),))
    }

    // It never changes, so it is its own copy.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }
}

/// A GPU as the documented API names it: got from `amdsmi_get_processor_handles`, and only given back.
///
/// Hashable and comparable; equal handles are of the same GPU.
#[pyclass(frozen, eq, ord, hash, weakref, name = "processor_handle", module = "gpuev.amdsmi")]
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessorHandle(Gpu);

impl ProcessorHandle {
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.0
    }
}

#[pymethods]
impl ProcessorHandle {
    /// The handle of `gpu`.
    #[staticmethod]
    fn of(gpu: Gpu) -> Self {
        Self(gpu)
    }

    /// The GPU that it stands for.
    #[getter(gpu)]
    fn py_gpu(&self) -> Gpu {
        self.0.clone()
    }

    /// A number that no other GPU of the machine has: PCI domain, bus, device and function in the lower 48
    /// bits, the partition above.
    #[getter]
    fn value(&self) -> u64 {
        let id = self.0.gpu.id;
        let Bdf { domain, bus, device, function } = id.bdf;
        let devfn = u64::from(device) << 3 | u64::from(function);
        u64::from(id.partition) << 48 | u64::from(domain) << 16 | u64::from(bus) << 8 | devfn
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Gpu,))> {
        let class = py.get_type::<Self>();
        Ok((class.getattr("of")?, (self.0.clone(),)))
    }

    // It never changes, so it is its own copy: events that are copied keep their handle.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __repr__(&self) -> String {
        format!("<processor_handle {}>", self.0.place())
    }
}
