//! Spans: starts and ends as one.

use std::sync::{Mutex, PoisonError};

use gpuev::span::{Direction, Limits, Span, SpanData, Spans};
use gpuev::{json, names};
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyDict};

use crate::convert::{datetime, member, parsed, text, timedelta};
use crate::event::{PyEvent, PyGap, PyGpuId, Trigger, access};
use crate::pickle::{Reduced, reduced, span_tuple};

/// Pairs starts with their ends: give it events and gaps in order. Bounded: what stays open too long is
/// given with the reason.
#[pyclass(frozen, module = "gpuev")]
pub(crate) struct Pairing {
    spans: Mutex<Spans>,
}

#[derive(FromPyObject)]
enum AnyItem<'py> {
    Event(PyRef<'py, PyEvent>),
    Gap(PyRef<'py, PyGap>),
}

#[pymethods]
impl Pairing {
    #[new]
    fn new() -> Self {
        Self { spans: Mutex::new(Spans::new(Limits::default())) }
    }

    /// Takes the next event or gap; gives the spans that end with it.
    fn push(&self, item: AnyItem<'_>) -> Vec<PySpan> {
        let mut done = Vec::new();
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        match item {
            AnyItem::Event(event) => spans.push_event(&event.0, |span| done.push(PySpan(span))),
            AnyItem::Gap(gap) => spans.push_gap(&gap.0, |span| done.push(PySpan(span))),
        }
        done
    }

    /// The stream is over: gives what is still open.
    fn finish(&self) -> Vec<PySpan> {
        let mut done = Vec::new();
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.finish(|span| done.push(PySpan(span)));
        done
    }

    /// What is open now.
    #[getter]
    fn open(&self) -> Vec<PySpan> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.open().map(|span| PySpan(*span)).collect()
    }
}

/// A start and its end, or one of both.
#[pyclass(frozen, eq, weakref, name = "Span", module = "gpuev")]
#[derive(PartialEq, Eq)]
pub(crate) struct PySpan(pub(crate) Span);

#[pymethods]
impl PySpan {
    /// What it is of.
    #[getter(r#type)]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "SpanType", self.0.kind().name())
    }

    /// Which GPU.
    #[getter]
    fn gpu(&self) -> PyGpuId {
        PyGpuId(self.0.gpu)
    }

    /// Whose; None for a reset, and where only a thread's number is known: see `tid`.
    #[getter]
    fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// The thread that start or end name: that of a process's life only.
    #[getter]
    fn tid(&self) -> Option<u32> {
        self.0.tid
    }

    /// The process's name; bytes that are not UTF-8 stand as `\xNN`.
    #[getter]
    fn process(&self) -> Option<String> {
        self.0.process.bytes().map(text)
    }

    /// When it began, as an aware datetime in UTC; None where the start was never seen.
    #[getter]
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.start.map(|time| datetime(py, time.unix_ns)).transpose()
    }

    /// When it ended, as an aware datetime in UTC; None where the end was never seen.
    #[getter]
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.end.map(|time| datetime(py, time.unix_ns)).transpose()
    }

    /// When it began, in nanoseconds of CLOCK_BOOTTIME.
    #[getter]
    fn start_boot_ns(&self) -> Option<u64> {
        self.0.start.map(|time| time.boot_ns)
    }

    /// When it ended, in nanoseconds of CLOCK_BOOTTIME.
    #[getter]
    fn end_boot_ns(&self) -> Option<u64> {
        self.0.end.map(|time| time.boot_ns)
    }

    /// From start to end; None where one of them is missing. `duration_ns` has the nanoseconds.
    #[getter]
    fn duration<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDelta>>> {
        self.0.duration_ns().map(|length| timedelta(py, length)).transpose()
    }

    /// Nanoseconds from start to end.
    #[getter]
    fn duration_ns(&self) -> Option<u64> {
        self.0.duration_ns()
    }

    /// Whose clock its times are of.
    #[getter]
    fn clock<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "Clock", self.0.clock().name())
    }

    /// How it ended, or why it is given without an end or start.
    #[getter]
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        member(py, "Outcome", self.0.outcome.name())
    }

    /// One of its events may be forged.
    #[getter]
    fn doubtful(&self) -> bool {
        self.0.doubtful
    }

    /// Events of this GPU may have been lost while it was open.
    #[getter]
    fn across_gap(&self) -> bool {
        self.0.across_gap
    }

    /// First byte: of page faults and migrations.
    #[getter]
    fn address(&self) -> Option<u64> {
        match self.0.data {
            SpanData::PageFault { address, .. } => Some(address),
            SpanData::Migration { migration, .. } => Some(migration.address),
            _ => None,
        }
    }

    /// Bytes: of migrations.
    #[getter]
    fn size(&self) -> Option<u64> {
        self.migration().map(|migration| migration.size)
    }

    /// KFD's id of the GPU: of page faults and evictions.
    #[getter]
    fn node(&self) -> Option<u32> {
        match self.0.data {
            SpanData::PageFault { node, .. } | SpanData::QueueEviction { node, .. } => Some(node),
            _ => None,
        }
    }

    /// Of page faults: read or write.
    #[getter]
    fn access<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.0.data {
            SpanData::PageFault { access: Some(found), .. } => access(py, found).map(Some),
            _ => Ok(None),
        }
    }

    /// From which GPU memory moved, by KFD's id; 0 is system memory.
    #[getter]
    fn source(&self) -> Option<u32> {
        self.migration().map(|migration| migration.from)
    }

    /// To which GPU memory moved, by KFD's id; 0 is system memory.
    #[getter]
    fn destination(&self) -> Option<u32> {
        self.migration().map(|migration| migration.to)
    }

    /// Which way memory moved.
    #[getter]
    fn direction<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let direction = self.migration().map(|migration| Direction::of(&migration));
        direction.map(|direction| member(py, "Direction", direction.name())).transpose()
    }

    /// Of migrations: 0 or a negative errno.
    #[getter]
    fn error(&self) -> Option<i32> {
        match self.0.data {
            SpanData::Migration { error, .. } => error,
            _ => None,
        }
    }

    /// Of migrations that succeeded: bytes moved a second.
    #[getter]
    fn bytes_per_second(&self) -> Option<u64> {
        self.0.bytes_per_second()
    }

    /// Why: of migrations and evictions.
    #[getter]
    fn trigger(&self) -> Option<Trigger> {
        match self.0.data {
            SpanData::Migration { migration, .. } => {
                let number = migration.trigger;
                Some(Trigger::new(names::migrate_trigger(number), number))
            }
            SpanData::QueueEviction { trigger, .. } => {
                trigger.map(|number| Trigger::new(names::eviction_trigger(number), number))
            }
            _ => None,
        }
    }

    /// Of evictions: how often the restore was scheduled again.
    #[getter]
    fn reschedules(&self) -> Option<u32> {
        match self.0.data {
            SpanData::QueueEviction { reschedules, .. } => Some(reschedules),
            _ => None,
        }
    }

    /// Of resets: counts this GPU's resets.
    #[getter]
    fn sequence(&self) -> Option<u32> {
        match self.0.data {
            SpanData::Reset { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    /// Of resets: why, in the driver's words.
    #[getter]
    fn cause(&self) -> Option<String> {
        match &self.0.data {
            SpanData::Reset { cause, .. } => cause.bytes().map(text),
            _ => None,
        }
    }

    /// The span as the documented JSON, on one line.
    fn to_json(&self) -> String {
        let mut out = String::new();
        json::write_span(&mut out, &self.0);
        out
    }

    /// The span as the documented JSON means it.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        parsed(py, &self.to_json())
    }

    fn __repr__(&self) -> String {
        let (kind, outcome) = (self.0.kind().name(), self.0.outcome.name());
        let duration = self
            .0
            .duration_ns()
            .map_or_else(String::new, |ns| format!(" {:.1?}", std::time::Duration::from_nanos(ns)));
        format!("<gpuev.Span {} {kind}{duration} {outcome}>", self.0.gpu.bdf)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduced(py, "restore_span", (span_tuple(&self.0),))
    }

    // It never changes, so it is its own copy.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __hash__(&self) -> u64 {
        let boot_ns = |time: Option<gpuev::EventTime>| time.map_or(0, |time| time.boot_ns);
        boot_ns(self.0.start) ^ boot_ns(self.0.end).rotate_left(20)
    }
}

impl PySpan {
    fn migration(&self) -> Option<gpuev::Migration> {
        match self.0.data {
            SpanData::Migration { migration, .. } => Some(migration),
            _ => None,
        }
    }
}
