//! The stream of events behind `gpuev.watch`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuev::{Error, ErrorKind, Filter, Item, Monitor, Subscription};
use pyo3::prelude::*;

use crate::error::raise;
use crate::event::PyItem;
use crate::filter::filter;
use crate::fork::{Local, quietly};
use crate::gpu::Gpu;
use crate::machine::current;
use crate::wait::{Deadline, until_readable};

/// Events and gaps of chosen GPUs, as they happen.
#[pyclass(frozen, subclass, module = "gpuev")]
pub(crate) struct Stream {
    /// Taken only without the interpreter's lock; `None` once closed.
    open: Local<Mutex<Option<Open>>>,
}

struct Open {
    /// Dropped first: its end wakes whoever waits.
    monitor: Monitor,
    subscription: Subscription,
}

type Place = Mutex<Option<Open>>;

fn lock(open: &Place) -> MutexGuard<'_, Option<Open>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wanted.
struct Wanted {
    gpus: Option<Vec<Gpu>>,
    filter: Filter,
    limit: usize,
}

impl Wanted {
    fn open(self) -> Result<Open, Error> {
        let chosen = self.gpus.as_ref().and_then(|gpus| gpus.first());
        let machine = chosen.map_or_else(current, |gpu| gpu.machine.clone());
        let mut monitor = Monitor::builder(&machine);
        if let Some(gpus) = &self.gpus {
            monitor = monitor.gpus(gpus.iter().map(|gpu| &gpu.gpu));
        }
        let (monitor, subscription) = monitor.start_with(self.filter, self.limit)?;
        Ok(Open { monitor, subscription })
    }
}

#[pymethods]
impl Stream {
    /// Subscribes; live when this returns. `types` are the driver's numbers, with `unknown` also those that it
    /// has and we do not know.
    #[new]
    #[pyo3(signature = (types, unknown, gpus, pids, severity, limit))]
    fn new(
        py: Python<'_>,
        types: Option<Vec<u32>>,
        unknown: bool,
        gpus: Option<Vec<Gpu>>,
        pids: Option<Vec<u32>>,
        severity: Option<usize>,
        limit: Option<usize>,
    ) -> PyResult<Self> {
        let filter = filter(types, unknown, pids, severity);
        let limit = limit.unwrap_or(gpuev::DEFAULT_LIMIT);
        let wanted = Wanted { gpus, filter, limit };
        let open = quietly(py, || wanted.open()).map_err(|error| raise(py, &error))?;
        Ok(Self { open: Local::new(Mutex::new(Some(open))) })
    }

    /// The next event or gap; None where there is none now.
    fn try_next(&self, py: Python<'_>) -> PyResult<Option<PyItem>> {
        let open = self.place(py)?;
        Ok(py.detach(|| lock(open).as_mut()?.subscription.try_next()).map(PyItem::from))
    }

    /// The next event or gap, waiting for `timeout` seconds, or for ever; None where none came, or after
    /// `close`.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<PyItem>> {
        let open = self.place(py)?;
        let deadline = timeout.map_or(Deadline::Never, Deadline::in_seconds);
        loop {
            match take(py, open)? {
                Taken::Item(item) => return Ok(Some((*item).into())),
                Taken::Ended => return Ok(None),
                Taken::Nothing(ready) => {
                    if !until_readable(py, &ready, deadline)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A descriptor that is readable while something waits; do not read from it.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        let open = self.place(py)?;
        let number = quietly(py, || match lock(open).as_mut() {
            Some(open) => open.subscription.ready_fd().map(|fd| fd.as_raw_fd()),
            None => Err(Error::new(ErrorKind::Stopped, "fileno: the watch has been closed")),
        });
        number.map_err(|error| raise(py, &error))
    }

    /// Ends it. Repeating it does nothing.
    fn close(&self, py: Python<'_>) {
        if let Some(open) = self.open.get() {
            py.detach(|| {
                let taken = lock(open).take();
                drop(taken);
            });
        }
    }

    /// Whether it has ended, or belongs to the process that this one was forked from.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        self.open.get().is_none_or(|open| py.detach(|| lock(open).is_none()))
    }

    /// GPUs whose events could not be opened, and why.
    #[getter]
    fn failures(&self, py: Python<'_>) -> PyResult<Vec<(Gpu, String)>> {
        let open = self.place(py)?;
        let failures = py.detach(|| lock(open).as_ref().map(|open| open.monitor.failures()));
        let machine = current();
        let failures = failures.unwrap_or_default().into_iter();
        Ok(failures.map(|(gpu, why)| (Gpu::new(&machine, gpu), why)).collect())
    }

    /// Whose events are seen, in one sentence.
    #[getter]
    fn scope(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let open = self.place(py)?;
        Ok(py.detach(|| lock(open).as_ref().map(|open| open.monitor.scope().reason)))
    }
}

impl Stream {
    fn place(&self, py: Python<'_>) -> PyResult<&Place> {
        self.open.get().ok_or_else(|| {
            let error = Error::new(ErrorKind::Stopped, "the watch is that of the parent process")
                .with_hint("watch anew after fork()");
            raise(py, &error)
        })
    }
}

enum Taken {
    Item(Box<Item>),
    /// With what tells that there is something.
    Nothing(OwnedFd),
    Ended,
}

fn take(py: Python<'_>, open: &Place) -> PyResult<Taken> {
    let taken = quietly(py, || {
        let mut open = lock(open);
        let Some(open) = open.as_mut() else { return Ok(Taken::Ended) };
        if let Some(item) = open.subscription.try_next() {
            return Ok(Taken::Item(Box::new(item)));
        }
        let ready = open.subscription.ready_fd()?;
        let copied = ready.as_fd().try_clone_to_owned();
        copied.map(Taken::Nothing).map_err(|error| Error::io("copy an eventfd", error))
    });
    taken.map_err(|error| raise(py, &error))
}
