//! The reader behind `AmdSmiEventReader`: one GPU, one mask, its own buffer.
//!
//! Locking: `state` is only taken without the interpreter's lock and held only by Rust, so neither can wait
//! for the other. Texts are made in that time too; with the interpreter's lock there is nothing left to do
//! but to make objects of them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuev::{
    BufferedReader, Error, ErrorKind, EventMask, EventType, EventView, Gap, GapCause, ItemView,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList, PyString};

use crate::error::raise;
use crate::fork::{Local, quietly};
use crate::gpu::ProcessorHandle;
use crate::vendor::{keep, write_message};
use crate::wait::{Deadline, until_readable};

/// Reads the events of one GPU into dicts. Any number of them are independent.
#[pyclass(frozen, module = "gpuev._core")]
pub(crate) struct EventReader {
    handle: Py<ProcessorHandle>,
    state: Local<Arc<Mutex<State>>>,
}

struct State {
    reader: BufferedReader,
    stopped: bool,
    removed: bool,
    /// Messages as the vendor's library words them.
    vendor_messages: bool,
    /// Lost since the last event that was handed out.
    lost: Lost,
}

/// What is not there.
#[derive(Clone, Copy, Default)]
struct Lost {
    counted: u64,
    /// And perhaps more that nobody counted.
    uncounted: bool,
}

impl Lost {
    fn add(&mut self, gap: &Gap) {
        match gap.count {
            Some(count) => self.counted = self.counted.saturating_add(count),
            None => self.uncounted = true,
        }
    }

    /// The number that is known; -1 where something may be lost and nothing is known.
    fn told(self) -> i64 {
        match self {
            Self { counted: 0, uncounted: true } => -1,
            Self { counted, .. } => i64::try_from(counted).unwrap_or(i64::MAX),
        }
    }
}

/// Events on their way to Python.
#[derive(Default)]
struct Batch {
    events: Vec<Taken>,
    messages: String,
    /// The driver's lines, each with what is known of its process beside it.
    lines: Vec<u8>,
}

struct Taken {
    event_type: EventType,
    seconds: f64,
    lost_before: i64,
    /// Where its message ends in `messages`.
    message_end: usize,
    /// Where its line ends in `lines`.
    line_end: usize,
}

impl Batch {
    /// Adds an event that happened later than `after`; it tells of what was `lost` before it.
    fn add(&mut self, event: &EventView<'_>, after: f64, lost: &mut Lost, vendor: bool) {
        // An event of a later kernel has no place in the documented enum.
        let Some(event_type) = event.record.event_type() else { return };
        let seconds = seconds(event.facts.time.unix_ns);
        if seconds <= after {
            return;
        }
        if vendor {
            write_message(&mut self.messages, &event.record);
        } else {
            event.write_message(&mut self.messages);
        }
        keep(&mut self.lines, event);
        let (message_end, line_end) = (self.messages.len(), self.lines.len());
        let lost_before = std::mem::take(lost).told();
        self.events.push(Taken { event_type, seconds, lost_before, message_end, line_end });
    }
}

impl State {
    fn take(&mut self, after: f64, most: usize) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        if self.stopped {
            let what =
                format!("read: the reader of GPU {} has been stopped", self.reader.gpu().bdf);
            return Err(Error::new(ErrorKind::Stopped, what));
        }
        while batch.events.len() < most {
            match self.reader.view_next() {
                Some(ItemView::Event(event)) => {
                    batch.add(&event, after, &mut self.lost, self.vendor_messages);
                }
                Some(ItemView::Gap(gap)) => self.note(&gap),
                None => break,
            }
        }
        if batch.events.is_empty() && self.removed {
            let what = format!("read: GPU {} is gone", self.reader.gpu().bdf);
            let hint = "the GPU was removed or its partitions changed: list the GPUs again";
            return Err(Error::new(ErrorKind::GpuRemoved, what).with_hint(hint));
        }
        Ok(batch)
    }

    fn note(&mut self, gap: &Gap) {
        if gap.cause == GapCause::GpuRemoved {
            self.removed = true;
        } else {
            self.lost.add(gap);
        }
    }
}

/// Seconds since 1970, as `time.time()` has them.
#[expect(clippy::cast_precision_loss, reason = "a float of today has a precision of 240 ns")]
fn seconds(unix_ns: i64) -> f64 {
    unix_ns as f64 / 1e9
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl EventReader {
    /// Subscribes to the events in `mask` (bit `1 << (type - 1)`); live when this returns. At most `limit`
    /// bytes wait to be read, 64 MiB unless said. `vendor_messages` has messages worded as the vendor's library
    /// does.
    #[new]
    #[pyo3(signature = (handle, mask, limit = None, *, vendor_messages = false))]
    fn new(
        handle: Py<ProcessorHandle>,
        mask: u64,
        limit: Option<usize>,
        vendor_messages: bool,
    ) -> PyResult<Self> {
        Python::attach(|py| {
            let gpu = handle.get().gpu();
            let mask = EventMask::from_bits(mask);
            let limit = limit.unwrap_or(gpuev::DEFAULT_LIMIT);
            let opened = quietly(py, || BufferedReader::open(&gpu.machine, &gpu.gpu, mask, limit));
            let reader = opened.map_err(|error| raise(py, &error))?;
            let lost = Lost::default();
            let state = State { reader, stopped: false, removed: false, vendor_messages, lost };
            Ok(Self { handle, state: Local::new(Arc::new(Mutex::new(state))) })
        })
    }

    /// Up to `most` events later than `after` (seconds since 1970), oldest first. Without `timeout` (seconds)
    /// it never waits; with one it waits until there is an event.
    #[pyo3(signature = (after, most, timeout = None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        after: f64,
        most: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let state = self.state.get().ok_or_else(|| forked(py))?;
        let deadline = timeout.map(Deadline::in_seconds);
        loop {
            let taken = py.detach(|| lock(state).take(after, most));
            let batch = taken.map_err(|error| raise(py, &error))?;
            let Some(deadline) = deadline.filter(|_| batch.events.is_empty()) else {
                return self.as_dicts(py, &batch);
            };
            let ready = ready_fd(py, state)?;
            if !until_readable(py, &ready, deadline)? {
                return Ok(PyList::empty(py));
            }
        }
    }

    /// Closes the event file. Repeating it does nothing.
    fn stop(&self, py: Python<'_>) {
        if let Some(state) = self.state.get() {
            py.detach(|| {
                let mut state = lock(state);
                state.stopped = true;
                state.reader.stop();
            });
        }
    }

    /// Whether it was stopped, or belongs to the process that this one was forked from.
    #[getter]
    fn stopped(&self, py: Python<'_>) -> bool {
        self.state.get().is_none_or(|state| py.detach(|| lock(state).stopped))
    }

    /// The GPU that it reads.
    #[getter]
    fn processor_handle<'py>(&self, py: Python<'py>) -> &Bound<'py, ProcessorHandle> {
        self.handle.bind(py)
    }
}

fn forked(py: Python<'_>) -> PyErr {
    let error = Error::new(ErrorKind::Stopped, "read: the reader is that of the parent process")
        .with_hint("make a reader of your own after fork()");
    raise(py, &error)
}

/// A copy of the descriptor that is readable while events wait, so that the wait for it needs no lock.
fn ready_fd(py: Python<'_>, state: &Mutex<State>) -> PyResult<OwnedFd> {
    let copied = quietly(py, || {
        let mut state = lock(state);
        let ready = state.reader.ready_fd()?;
        let copied = ready.as_fd().try_clone_to_owned();
        copied.map_err(|error| Error::io("copy an eventfd", error))
    });
    copied.map_err(|error| raise(py, &error))
}

impl EventReader {
    /// A dict has few keys and most of its values are those of others: it is copied from one of its type, which
    /// is faster than to fill it.
    fn as_dicts<'py>(&self, py: Python<'py>, batch: &Batch) -> PyResult<Bound<'py, PyList>> {
        let mut of_type: Vec<Option<Bound<'py, PyDict>>> = vec![None; EventType::ALL.len()];
        let (mut start, mut line_start) = (0, 0);
        let mut dicts = Vec::with_capacity(batch.events.len());
        let class = event_class(py)?;
        for event in &batch.events {
            let place = event.event_type as usize - 1;
            let like = match &of_type[place] {
                Some(dict) => dict,
                None => of_type[place].insert(self.empty_dict(py, place)?),
            };
            let dict = class.call1((like,))?.cast_into::<PyDict>()?;
            let message = &batch.messages[start..event.message_end];
            let line = &batch.lines[line_start..event.line_end];
            (start, line_start) = (event.message_end, event.line_end);
            dict.setattr(intern!(py, "_line"), PyBytes::new(py, line))?;
            dict.set_item(intern!(py, "message"), PyString::new(py, message))?;
            dict.set_item(intern!(py, "timestamp"), PyFloat::new(py, event.seconds))?;
            if event.lost_before != 0 {
                dict.set_item(intern!(py, "lost_before"), event.lost_before)?;
            }
            dicts.push(dict);
        }
        PyList::new(py, dicts)
    }

    /// All keys in their order, with what is the same for every event of the type at `place`.
    fn empty_dict<'py>(&self, py: Python<'py>, place: usize) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item(intern!(py, "processor_handle"), &self.handle)?;
        dict.set_item(intern!(py, "event"), &names(py)[place])?;
        dict.set_item(intern!(py, "message"), py.None())?;
        dict.set_item(intern!(py, "timestamp"), py.None())?;
        dict.set_item(intern!(py, "lost_before"), 0)?;
        Ok(dict)
    }
}

/// The class of what is read: a dict that makes its rarer keys when they are asked for.
fn event_class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let find = || py.import("gpuev.amdsmi._event")?.getattr("AmdSmiEvent").map(Bound::unbind);
    CLASS.get_or_try_init(py, find).map(|class| class.bind(py))
}

/// The documented names, made once.
fn names(py: Python<'_>) -> &[Py<PyString>] {
    static NAMES: PyOnceLock<Vec<Py<PyString>>> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        EventType::ALL.into_iter().map(|t| PyString::intern(py, t.name()).unbind()).collect()
    })
}
