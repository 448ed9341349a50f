//! Events and gaps as objects.

use gpuev::{Access, Event, EventData, FaultOutcome, Gap, GpuId, Item, json, names};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDelta, PyDict};

use crate::convert::{datetime, member, parsed, text, timedelta};
use crate::pickle::{Reduced, event_tuple, gap_tuple, gpu_facts, reduced};

/// Which GPU something is about.
#[pyclass(frozen, eq, ord, hash, weakref, name = "GpuId", module = "gpuev")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PyGpuId(pub(crate) GpuId);

#[pymethods]
impl PyGpuId {
    /// Place in the machine's list, from 0; stays with the GPU while a program runs.
    #[getter]
    fn index(&self) -> u32 {
        self.0.index
    }

    /// PCI address: `0000:03:00.0`.
    #[getter]
    fn bdf(&self) -> String {
        self.0.bdf.to_string()
    }

    /// The maker's number, 16 hex digits.
    #[getter]
    fn unique_id(&self) -> Option<String> {
        self.0.unique_id.map(|id| id.to_string())
    }

    /// Partition of that GPU, from 0.
    #[getter]
    fn partition(&self) -> u32 {
        self.0.partition
    }

    /// KFD's number (`gpu_id`).
    #[getter]
    fn kfd_id(&self) -> u32 {
        self.0.kfd_id
    }

    fn __repr__(&self) -> String {
        format!("<gpuev.GpuId {} {}/{}>", self.0.index, self.0.bdf, self.0.partition)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduced(py, "restore_gpu_id", (gpu_facts(self.0),))
    }

    // It never changes, so it is its own copy.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }
}

/// Something that happened on a GPU.
#[pyclass(frozen, eq, weakref, name = "Event", module = "gpuev")]
#[derive(PartialEq, Eq)]
pub(crate) struct PyEvent(pub(crate) Event);

/// Why something was done: a name, or the number of a later kernel.
#[derive(IntoPyObject)]
pub(crate) enum Trigger {
    Name(&'static str),
    Number(i32),
}

impl Trigger {
    pub(crate) fn new(name: Option<&'static str>, number: i32) -> Self {
        name.map_or(Self::Number(number), Self::Name)
    }
}

pub(crate) fn access<'py>(py: Python<'py>, access: Access) -> PyResult<Bound<'py, PyAny>> {
    let name = match access {
        Access::Read => "read",
        Access::Write => "write",
    };
    member(py, "Access", name)
}

#[pymethods]
impl PyEvent {
    /// Which GPU.
    #[getter]
    fn gpu(&self) -> PyGpuId {
        PyGpuId(self.0.gpu)
    }

    /// Counts this GPU's events from 0, without holes: a hole is a lost event.
    #[getter]
    fn seq(&self) -> u64 {
        self.0.seq
    }

    /// What kind of event.
    #[getter(r#type)]
    fn event_type<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "EventType", self.0.type_name())
    }

    /// How much it matters by itself.
    #[getter]
    fn severity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "Severity", self.0.severity() as u8)
    }

    /// When, as an aware datetime in UTC; `unix_ns` has the nanoseconds.
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        datetime(py, self.0.time.unix_ns)
    }

    /// When, in nanoseconds since 1970.
    #[getter]
    fn unix_ns(&self) -> i64 {
        self.0.time.unix_ns
    }

    /// When, in nanoseconds of CLOCK_BOOTTIME; `clock` says whose time it is.
    #[getter]
    fn boot_ns(&self) -> u64 {
        self.0.time.boot_ns
    }

    /// When it was read from the driver, in nanoseconds of CLOCK_BOOTTIME.
    #[getter]
    fn received_boot_ns(&self) -> u64 {
        self.0.time.received_boot_ns
    }

    /// Whose time it is: the driver's, or that of receipt.
    #[getter]
    fn clock<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "Clock", self.0.time.clock.name())
    }

    /// The process; None for an event of no process, and where only a thread's number is known: see `tid`.
    #[getter]
    fn pid(&self) -> Option<u32> {
        self.0.pid()
    }

    /// The process's name; bytes that are not UTF-8 stand as `\xNN`.
    #[getter]
    fn process(&self) -> Option<String> {
        self.0.process().map(text)
    }

    /// The thread that a memory fault, a process start or a process end names, by the machine's number; None for
    /// all other events.
    #[getter]
    fn tid(&self) -> Option<u32> {
        self.0.tid()
    }

    /// The name of that thread, which may be another than its process's.
    #[getter]
    fn thread(&self) -> Option<String> {
        self.0.thread().map(text)
    }

    /// What happened, in one line for people; always printable.
    #[getter]
    fn message(&self) -> String {
        self.0.message().to_string()
    }

    /// The driver's line without its newline, byte for byte.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.raw())
    }

    /// A task name may have forged it, and /proc could not tell.
    #[getter]
    fn doubtful(&self) -> bool {
        self.0.doubtful
    }

    /// First byte: of page faults, migrations and unmaps.
    #[getter]
    fn address(&self) -> Option<u64> {
        match self.0.data() {
            EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
                Some(migration.address)
            }
            EventData::PageFaultStart { address, .. }
            | EventData::PageFaultEnd { address, .. }
            | EventData::UnmapFromGpu { address, .. } => Some(address),
            _ => None,
        }
    }

    /// Bytes: of migrations and unmaps.
    #[getter]
    fn size(&self) -> Option<u64> {
        match self.0.data() {
            EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
                Some(migration.size)
            }
            EventData::UnmapFromGpu { size, .. } => Some(size),
            _ => None,
        }
    }

    /// KFD's id of the GPU: of page faults, evictions, restores and unmaps.
    #[getter]
    fn node(&self) -> Option<u32> {
        match self.0.data() {
            EventData::PageFaultStart { node, .. }
            | EventData::PageFaultEnd { node, .. }
            | EventData::QueueEviction { node, .. }
            | EventData::QueueRestore { node, .. }
            | EventData::UnmapFromGpu { node, .. } => Some(node),
            _ => None,
        }
    }

    /// From which GPU memory moves, by KFD's id; 0 is system memory.
    #[getter]
    fn source(&self) -> Option<u32> {
        self.migration().map(|migration| migration.from)
    }

    /// To which GPU memory moves, by KFD's id; 0 is system memory.
    #[getter]
    fn destination(&self) -> Option<u32> {
        self.migration().map(|migration| migration.to)
    }

    /// Where migrating memory wants to be fetched to, by KFD's id.
    #[getter]
    fn prefetch(&self) -> Option<u32> {
        match self.0.data() {
            EventData::MigrateStart { prefetch, .. } => prefetch,
            _ => None,
        }
    }

    /// Where migrating memory prefers to be, by KFD's id.
    #[getter]
    fn preferred(&self) -> Option<u32> {
        match self.0.data() {
            EventData::MigrateStart { preferred, .. } => preferred,
            _ => None,
        }
    }

    /// Of PAGE_FAULT_START: read or write.
    #[getter]
    fn access<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.0.data() {
            EventData::PageFaultStart { access: found, .. } => access(py, found).map(Some),
            _ => Ok(None),
        }
    }

    /// Of PAGE_FAULT_END: how it was resolved.
    #[getter]
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.0.data() {
            EventData::PageFaultEnd { outcome: FaultOutcome::Migrated, .. } => {
                member(py, "FaultOutcome", "migrated").map(Some)
            }
            EventData::PageFaultEnd { outcome: FaultOutcome::Mapped, .. } => {
                member(py, "FaultOutcome", "mapped").map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Why: of migrations, evictions and unmaps; a number where a later kernel has one without a name.
    #[getter]
    fn trigger(&self) -> Option<Trigger> {
        Some(match self.0.data() {
            EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
                Trigger::new(names::migrate_trigger(migration.trigger), migration.trigger)
            }
            EventData::QueueEviction { trigger, .. } => {
                Trigger::new(names::eviction_trigger(trigger), trigger)
            }
            EventData::UnmapFromGpu { trigger, .. } => {
                Trigger::new(names::unmap_trigger(trigger), trigger)
            }
            _ => return None,
        })
    }

    /// Of MIGRATE_END: 0 or a negative errno; None before Linux 6.13.
    #[getter]
    fn error(&self) -> Option<i32> {
        match self.0.data() {
            EventData::MigrateEnd { error, .. } => error,
            _ => None,
        }
    }

    /// Of THERMAL_THROTTLE: why, as bits.
    #[getter]
    fn throttlers(&self) -> Option<u64> {
        match self.0.data() {
            EventData::ThermalThrottle { throttlers, .. } => Some(throttlers),
            _ => None,
        }
    }

    /// Of THERMAL_THROTTLE: why, by names.
    #[getter]
    fn reasons(&self) -> Option<Vec<&'static str>> {
        self.throttlers().map(|bits| names::throttlers(bits).collect())
    }

    /// Of THERMAL_THROTTLE: throttle interrupts since the driver was loaded.
    #[getter]
    fn count(&self) -> Option<u64> {
        match self.0.data() {
            EventData::ThermalThrottle { count, .. } => Some(count),
            _ => None,
        }
    }

    /// Of resets: counts this GPU's resets.
    #[getter]
    fn sequence(&self) -> Option<u32> {
        match self.0.data() {
            EventData::PreReset { sequence, .. } | EventData::PostReset { sequence, .. } => {
                Some(sequence)
            }
            _ => None,
        }
    }

    /// Of resets: why, in the driver's words.
    #[getter]
    fn cause(&self) -> Option<String> {
        match self.0.data() {
            EventData::PreReset { cause, .. } | EventData::PostReset { cause, .. } => {
                cause.map(text)
            }
            _ => None,
        }
    }

    /// Of QUEUE_RESTORE: it did not succeed and was scheduled again.
    #[getter]
    fn rescheduled(&self) -> Option<bool> {
        match self.0.data() {
            EventData::QueueRestore { rescheduled, .. } => Some(rescheduled),
            _ => None,
        }
    }

    /// The event as the documented JSON, on one line.
    fn to_json(&self) -> String {
        let mut out = String::new();
        json::write_event(&mut out, &self.0);
        out
    }

    /// The event as the documented JSON means it.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parsed(py, &self.to_json())
    }

    fn __repr__(&self) -> String {
        let Event { gpu, seq, .. } = &self.0;
        format!("<gpuev.Event {seq} {} {} {:?}>", gpu.bdf, self.0.type_name(), self.message())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduced(py, "restore_event", (event_tuple(&self.0),))
    }

    // It never changes, so it is its own copy.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __hash__(&self) -> u64 {
        self.0.seq ^ self.0.time.received_boot_ns.rotate_left(20)
    }
}

impl PyEvent {
    fn migration(&self) -> Option<gpuev::Migration> {
        match self.0.data() {
            EventData::MigrateStart { migration, .. } | EventData::MigrateEnd { migration, .. } => {
                Some(migration)
            }
            _ => None,
        }
    }
}

/// A stretch of time in which events of one GPU were, or may have been, lost. It stands in the stream where
/// they are missing.
#[pyclass(frozen, eq, weakref, name = "Gap", module = "gpuev")]
#[derive(PartialEq, Eq)]
pub(crate) struct PyGap(pub(crate) Gap);

#[pymethods]
impl PyGap {
    /// Which GPU.
    #[getter]
    fn gpu(&self) -> PyGpuId {
        PyGpuId(self.0.gpu)
    }

    /// Always None: a gap is no event.
    #[getter(r#type)]
    fn event_type(&self) -> Option<u32> {
        None
    }

    /// Where they were lost.
    #[getter]
    fn cause<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "GapCause", self.0.cause.name())
    }

    /// How many; None where nobody counted.
    #[getter]
    fn count(&self) -> Option<u64> {
        self.0.count
    }

    /// Nanoseconds of CLOCK_BOOTTIME: nothing was lost before.
    #[getter(from_boot_ns)]
    fn start_boot_ns(&self) -> u64 {
        self.0.from_boot_ns
    }

    /// Nanoseconds of CLOCK_BOOTTIME: nothing was lost after.
    #[getter(to_boot_ns)]
    fn end_boot_ns(&self) -> u64 {
        self.0.to_boot_ns
    }

    /// Its end, as an aware datetime in UTC.
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        datetime(py, self.0.unix_ns)
    }

    /// Its end, in nanoseconds since 1970.
    #[getter]
    fn unix_ns(&self) -> i64 {
        self.0.unix_ns
    }

    /// How long it is.
    #[getter]
    fn duration<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDelta>> {
        timedelta(py, self.0.to_boot_ns.saturating_sub(self.0.from_boot_ns))
    }

    /// What is missing, in one line for people.
    #[getter]
    fn message(&self) -> String {
        self.0.to_string()
    }

    /// The gap as the documented JSON, on one line.
    fn to_json(&self) -> String {
        let mut out = String::new();
        json::write_gap(&mut out, &self.0);
        out
    }

    /// The gap as the documented JSON means it.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parsed(py, &self.to_json())
    }

    fn __repr__(&self) -> String {
        format!("<gpuev.Gap {} {:?}>", self.0.gpu.bdf, self.message())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduced(py, "restore_gap", (gap_tuple(&self.0),))
    }

    // It never changes, so it is its own copy.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __hash__(&self) -> u64 {
        self.0.from_boot_ns ^ self.0.to_boot_ns.rotate_left(20)
    }
}

/// An event or a gap.
#[derive(IntoPyObject)]
pub(crate) enum PyItem {
    Event(PyEvent),
    Gap(PyGap),
}

impl From<Item> for PyItem {
    fn from(item: Item) -> Self {
        match item {
            Item::Event(event) => Self::Event(PyEvent(event)),
            Item::Gap(gap) => Self::Gap(PyGap(gap)),
        }
    }
}
