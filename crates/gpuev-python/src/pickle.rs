//! Facts as tuples of Python's own values, and back: for pickle, and so for `multiprocessing`, joblib and dask.
//!
//! What is frozen needs no copy: `copy.copy` and `copy.deepcopy` give the object itself.

use gpuev::span::{Cause, Outcome, Span, SpanData};
use gpuev::{
    Access, Bdf, Clock, Comm, Error, ErrorKind, Event, EventFacts, EventTime, Gap, GapCause, GpuId,
    Life, Migration, UniqueId,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::raise;
use crate::event::{PyEvent, PyGap, PyGpuId};
use crate::fork::quietly;
use crate::gpu::Gpu;
use crate::machine::current;
use crate::span::PySpan;

/// What `__reduce__` gives: a function of `gpuev._core`, and its arguments.
pub(crate) type Reduced<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

/// The function `name` of `gpuev._core` with these arguments.
pub(crate) fn reduced<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Reduced<'py>> {
    let restore = py.import("gpuev._core")?.getattr(name)?;
    Ok((restore, arguments.into_pyobject(py)?))
}

/// Index, PCI address, unique id, partition, KFD's number.
pub(crate) type GpuFacts = (u32, String, Option<u64>, u32, u32);
/// Nanoseconds of CLOCK_BOOTTIME, whether by the driver's clock, nanoseconds at receipt, since 1970.
pub(crate) type TimeFacts = (u64, bool, u64, i64);
/// Which GPU, number, when, doubtful, process and its name, line.
pub(crate) type EventTuple =
    (GpuFacts, u64, TimeFacts, bool, (Option<u32>, Option<Vec<u8>>), Vec<u8>);
/// Which GPU, cause, count, from, to, wall time of the end.
pub(crate) type GapTuple = (GpuFacts, String, Option<u64>, u64, u64, i64);
/// Which GPU, process with its life, thread and name, start and end, outcome, whether doubtful, across a gap and
/// nested, data.
pub(crate) type SpanTuple = (
    GpuFacts,
    (Option<u32>, (u32, bool), Option<u32>, Option<Vec<u8>>),
    (Option<TimeFacts>, Option<TimeFacts>),
    String,
    (bool, bool, bool),
    SpanFacts,
);

/// The numbers of a span's data by kind, and the text that one kind has.
pub(crate) type SpanFacts = (String, Vec<Option<i128>>, Vec<u8>);

pub(crate) fn gpu_facts(gpu: GpuId) -> GpuFacts {
    (gpu.index, gpu.bdf.to_string(), gpu.unique_id.map(|id| id.0), gpu.partition, gpu.kfd_id)
}

fn gpu_of((index, bdf, unique_id, partition, kfd_id): GpuFacts) -> Result<GpuId, Error> {
    let bdf: Bdf = bdf.parse()?;
    Ok(GpuId { index, bdf, unique_id: unique_id.map(UniqueId), partition, kfd_id })
}

fn time_facts(time: EventTime) -> TimeFacts {
    (time.boot_ns, time.clock == Clock::Driver, time.received_boot_ns, time.unix_ns)
}

fn time_of((boot_ns, by_driver, received_boot_ns, unix_ns): TimeFacts) -> EventTime {
    let clock = if by_driver { Clock::Driver } else { Clock::Receipt };
    EventTime { boot_ns, clock, received_boot_ns, unix_ns }
}

fn comm_of(name: Option<Vec<u8>>) -> Comm {
    name.map_or(Comm::NONE, |name| Comm::new(&name))
}

pub(crate) fn event_tuple(event: &Event) -> EventTuple {
    let EventFacts { gpu, seq, time, doubtful, pid, comm, raw } = event.facts();
    let name = comm.bytes().map(<[u8]>::to_vec);
    (gpu_facts(gpu), seq, time_facts(time), doubtful, (pid, name), raw.to_vec())
}

pub(crate) fn gap_tuple(gap: &Gap) -> GapTuple {
    let cause = gap.cause.name().to_owned();
    (gpu_facts(gap.gpu), cause, gap.count, gap.from_boot_ns, gap.to_boot_ns, gap.unix_ns)
}

pub(crate) fn span_tuple(span: &Span) -> SpanTuple {
    (
        gpu_facts(span.gpu),
        (
            span.pid,
            (span.life.number, span.life.is_shared),
            span.tid,
            span.process.bytes().map(<[u8]>::to_vec),
        ),
        (span.start.map(time_facts), span.end.map(time_facts)),
        span.outcome.name().to_owned(),
        (span.doubtful, span.across_gap, span.nested),
        span_facts(&span.data),
    )
}

fn span_facts(data: &SpanData) -> SpanFacts {
    let (kind, numbers, text): (&str, Vec<Option<i128>>, &[u8]) = match data {
        SpanData::Reset { sequence, cause } => {
            ("reset", vec![Some((*sequence).into())], cause.bytes().unwrap_or_default())
        }
        SpanData::PageFault { address, node, access } => {
            let access = access.map(|access| i128::from(access == Access::Write));
            ("page_fault", vec![Some((*address).into()), Some((*node).into()), access], &[])
        }
        SpanData::Migration { migration, error } => {
            let Migration { address, size, from, to, trigger } = *migration;
            let numbers = [address.into(), size.into(), from.into(), to.into(), trigger.into()];
            let error = error.map(i128::from);
            ("migration", numbers.into_iter().map(Some).chain([error]).collect(), &[])
        }
        SpanData::QueueEviction { node, trigger, reschedules } => {
            let trigger = trigger.map(i128::from);
            (
                "queue_eviction",
                vec![Some((*node).into()), trigger, Some((*reschedules).into())],
                &[],
            )
        }
        _ => ("process", Vec::new(), &[]),
    };
    (kind.to_owned(), numbers, text.to_vec())
}

/// The data of a span, if these are the facts of one.
fn span_data((kind, numbers, text): SpanFacts) -> Option<SpanData> {
    fn as_a<T: TryFrom<i128>>(number: Option<i128>) -> Option<T> {
        number.and_then(|number| T::try_from(number).ok())
    }
    Some(match (kind.as_str(), &numbers[..]) {
        ("reset", [sequence]) => {
            SpanData::Reset { sequence: as_a(*sequence)?, cause: Cause::new(&text) }
        }
        ("page_fault", [address, node, access]) => {
            let access = access.map(|write| if write == 1 { Access::Write } else { Access::Read });
            SpanData::PageFault { address: as_a(*address)?, node: as_a(*node)?, access }
        }
        ("migration", [address, size, from, to, trigger, error]) => SpanData::Migration {
            migration: Migration {
                address: as_a(*address)?,
                size: as_a(*size)?,
                from: as_a(*from)?,
                to: as_a(*to)?,
                trigger: as_a(*trigger)?,
            },
            error: as_a(*error),
        },
        ("queue_eviction", [node, trigger, reschedules]) => SpanData::QueueEviction {
            node: as_a(*node)?,
            trigger: as_a(*trigger),
            reschedules: as_a(*reschedules)?,
        },
        ("process", []) => SpanData::Process,
        _ => return None,
    })
}

fn no_facts() -> Error {
    Error::new(ErrorKind::InvalidInput, "the pickle is of another version of gpuev, or damaged")
}

#[pyfunction]
pub(crate) fn restore_gpu_id(py: Python<'_>, gpu: GpuFacts) -> PyResult<PyGpuId> {
    gpu_of(gpu).map(PyGpuId).map_err(|error| raise(py, &error))
}

#[pyfunction]
pub(crate) fn restore_event(py: Python<'_>, facts: EventTuple) -> PyResult<PyEvent> {
    let (gpu, seq, time, doubtful, (pid, name), raw) = facts;
    let gpu = gpu_of(gpu).map_err(|error| raise(py, &error))?;
    let facts =
        EventFacts { gpu, seq, time: time_of(time), doubtful, pid, comm: comm_of(name), raw: &raw };
    Ok(PyEvent(Event::from_facts(facts)))
}

#[pyfunction]
pub(crate) fn restore_gap(py: Python<'_>, facts: GapTuple) -> PyResult<PyGap> {
    let (gpu, cause, count, from_boot_ns, to_boot_ns, unix_ns) = facts;
    let gap = gpu_of(gpu).map(|gpu| {
        let cause = GapCause::from_name(&cause);
        Gap { gpu, cause, count, from_boot_ns, to_boot_ns, unix_ns }
    });
    gap.map(PyGap).map_err(|error| raise(py, &error))
}

#[pyfunction]
pub(crate) fn restore_span(py: Python<'_>, facts: SpanTuple) -> PyResult<PySpan> {
    let (gpu, who, (start, end), outcome, (doubtful, across_gap, nested), data) = facts;
    let (pid, (number, is_shared), tid, name) = who;
    let span = gpu_of(gpu).and_then(|gpu| {
        Ok(Span {
            gpu,
            pid,
            life: Life { number, is_shared },
            tid,
            process: comm_of(name),
            start: start.map(time_of),
            end: end.map(time_of),
            outcome: Outcome::from_name(&outcome).ok_or_else(no_facts)?,
            doubtful,
            across_gap,
            nested,
            data: span_data(data).ok_or_else(no_facts)?,
        })
    });
    span.map(PySpan).map_err(|error| raise(py, &error))
}

/// The GPU of this machine that these facts are of. One of another machine is not found, so that its sensors are
/// not those of a GPU that happens to be in the same slot.
#[pyfunction]
pub(crate) fn restore_gpu(py: Python<'_>, facts: GpuFacts) -> PyResult<Gpu> {
    let machine = current();
    let found = gpu_of(facts).and_then(|wanted| {
        let gpus = quietly(py, || machine.gpus())?;
        let same = |gpu: &gpuev::Gpu| {
            let GpuId { bdf, unique_id, partition, .. } = gpu.id;
            (bdf, unique_id, partition) == (wanted.bdf, wanted.unique_id, wanted.partition)
        };
        gpus.into_iter().find(same).ok_or_else(|| {
            let text = format!(
                "GPU {}/{} of the pickle is not on this machine",
                wanted.bdf, wanted.partition
            );
            Error::new(ErrorKind::GpuRemoved, text)
                .with_hint("keep its GpuId (event.gpu) to name a GPU of another machine")
        })
    });
    found.map(|gpu| Gpu::new(&machine, gpu)).map_err(|error| raise(py, &error))
}
