//! Events on their way from a reader to Python: texts are made without the interpreter's lock, objects with it.

use gpuev::{EventType, EventView, Gap};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple, PyType};
use pyo3::{ffi, intern};

use crate::gpu::ProcessorHandle;
use crate::vendor::{keep, write_message};

/// What is not there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lost {
    counted: u64,
    /// And perhaps more that nobody counted.
    uncounted: bool,
}

impl Lost {
    pub(crate) fn add(&mut self, gap: &Gap) {
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

/// What one read takes.
#[derive(Default)]
pub(crate) struct Batch {
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
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event that happened later than `after`; it tells of what was `lost` before it.
    pub(crate) fn add(&mut self, event: &EventView<'_>, after: f64, lost: &mut Lost, vendor: bool) {
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

impl Batch {
    /// A dict for each event. It has few keys and most of its values are those of others: it is copied from one of
    /// its type, which is faster than to fill it.
    pub(crate) fn to_dicts<'py>(
        &self,
        py: Python<'py>,
        handle: &Py<ProcessorHandle>,
    ) -> PyResult<Bound<'py, PyList>> {
        let class = EventClass::get(py)?;
        let mut of_type: Vec<Option<Bound<'py, PyDict>>> = vec![None; EventType::ALL.len()];
        let (mut start, mut line_start) = (0, 0);
        let mut dicts = Vec::with_capacity(self.events.len());
        for event in &self.events {
            let place = event.event_type as usize - 1;
            let like = match &of_type[place] {
                Some(dict) => dict,
                None => of_type[place].insert(empty_dict(py, handle, place)?),
            };
            let dict = class.instance(py)?;
            dict.update(like.as_mapping())?;
            let message = &self.messages[start..event.message_end];
            let line = &self.lines[line_start..event.line_end];
            (start, line_start) = (event.message_end, event.line_end);
            dict.setattr(intern!(py, "_line"), PyBytes::new(py, line))?;
            dict.set_item(intern!(py, "message"), PyString::new(py, message))?;
            dict.set_item(intern!(py, "timestamp"), PyFloat::new(py, event.seconds))?;
            if event.lost_before != 0 {
                dict.set_item(intern!(py, "lost_before"), event.lost_before)?;
            }
            class.hide_from_collector(&dict);
            dicts.push(dict);
        }
        PyList::new(py, dicts)
    }
}

/// All keys in their order, with what is the same for every event of the type at `place`.
fn empty_dict<'py>(
    py: Python<'py>,
    handle: &Py<ProcessorHandle>,
    place: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "processor_handle"), handle)?;
    dict.set_item(intern!(py, "event"), &names(py)[place])?;
    dict.set_item(intern!(py, "message"), py.None())?;
    dict.set_item(intern!(py, "timestamp"), py.None())?;
    dict.set_item(intern!(py, "lost_before"), 0)?;
    Ok(dict)
}

/// The class of what is read: a dict that makes its rarer keys when they are asked for.
struct EventClass {
    class: Py<PyType>,
    /// What makes an instance. A call of the class would look for `__init__` each time, which it has not.
    new: ffi::newfunc,
    no_arguments: Py<PyTuple>,
    /// Whether a dict shows itself to the garbage collector as soon as it gets a value that may be part of a cycle.
    /// From 3.14 on it is always shown.
    shows_itself: bool,
}

impl EventClass {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static CLASS: PyOnceLock<EventClass> = PyOnceLock::new();
        CLASS.get_or_try_init(py, || Self::find(py))
    }

    fn find(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("gpuev.amdsmi._event")?.getattr("AmdSmiEvent")?;
        let class = class.cast_into::<PyType>()?;
        // SAFETY: the class is a live type, made by a class statement: a heap type, which is all that
        // Python 3.9 can be asked for slots.
        let slot = unsafe { ffi::PyType_GetSlot(class.as_type_ptr(), ffi::Py_tp_new) };
        if slot.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: what lies in the slot `tp_new` is a `newfunc`, and it is not null.
        let new = unsafe { std::mem::transmute::<*mut std::ffi::c_void, ffi::newfunc>(slot) };
        let no_arguments = PyTuple::empty(py).unbind();
        let shows_itself = py.version_info() < (3, 14);
        Ok(Self { class: class.unbind(), new, no_arguments, shows_itself })
    }

    /// An empty event.
    fn instance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let class = self.class.bind(py).as_type_ptr();
        let (arguments, no_keywords) = (self.no_arguments.as_ptr(), std::ptr::null_mut());
        // SAFETY: the slot is that of this class, which lives as long as `self`; the arguments are a tuple, no
        // keywords are a null pointer, and the interpreter's lock is held.
        let made = unsafe { (self.new)(class, arguments, no_keywords) };
        // SAFETY: it gives a new reference, or null with an exception set.
        let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
        Ok(made.cast_into::<PyDict>()?)
    }

    /// The garbage collector need not look at what holds texts, numbers and a handle: no cycle goes through them, and a
    /// program that keeps many events pays for each look. The interpreter does the same with plain dicts.
    fn hide_from_collector(&self, event: &Bound<'_, PyDict>) {
        if self.shows_itself {
            // SAFETY: the object is alive and of a class that the collector knows; the interpreter's lock is held.
            unsafe { ffi::PyObject_GC_UnTrack(event.as_ptr().cast()) };
        }
    }
}

/// The documented names, made once.
fn names(py: Python<'_>) -> &[Py<PyString>] {
    static NAMES: PyOnceLock<Vec<Py<PyString>>> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        EventType::ALL.into_iter().map(|t| PyString::intern(py, t.name()).unbind()).collect()
    })
}

/// Seconds since 1970, as `time.time()` has them.
#[expect(clippy::cast_precision_loss, reason = "a float of today has a precision of 240 ns")]
fn seconds(unix_ns: i64) -> f64 {
    unix_ns as f64 / 1e9
}
