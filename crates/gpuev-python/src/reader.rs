//! The reader behind `AmdSmiEventReader`: one GPU, one mask, its own buffer.
//!
//! Locking: `state` is only taken without the interpreter's lock and held only by Rust, so neither can wait
//! for the other. Texts are made in that time too; with the interpreter's lock there is nothing left to do
//! but to make objects of them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuev::{BufferedReader, Error, ErrorKind, EventMask, Gap, GapCause, ItemView};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::batch::{Batch, Lost};
use crate::error::raise;
use crate::fork::{Local, quietly};
use crate::gpu::ProcessorHandle;
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

impl State {
    fn take(&mut self, after: f64, most: usize) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        if self.stopped {
            let what =
                format!("read: the reader of GPU {} has been stopped", self.reader.gpu().bdf);
            return Err(Error::new(ErrorKind::Stopped, what));
        }
        while batch.len() < most {
            match self.reader.view_next() {
                Some(ItemView::Event(event)) => {
                    batch.add(&event, after, &mut self.lost, self.vendor_messages);
                }
                Some(ItemView::Gap(gap)) => self.note(&gap),
                None => break,
            }
        }
        if batch.is_empty() && self.removed {
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
            let Some(deadline) = deadline.filter(|_| batch.is_empty()) else {
                return batch.to_dicts(py, &self.handle);
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
