//! Values of the library as values of Python's own types.

use gpuev::message::Escaped;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyDelta, PyDict, PyTzInfo};

/// Wall time in UTC, to the microsecond below.
pub(crate) fn datetime<'py>(py: Python<'py>, unix_ns: i64) -> PyResult<Bound<'py, PyAny>> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    let make = || {
        let utc = PyTzInfo::utc(py)?.to_owned();
        PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc)).map(Bound::unbind)
    };
    let microseconds = unix_ns.div_euclid(1000);
    EPOCH.get_or_try_init(py, make)?.bind(py).add(delta(py, microseconds)?)
}

/// A length of time, to the microsecond below.
pub(crate) fn timedelta(py: Python<'_>, nanoseconds: u64) -> PyResult<Bound<'_, PyDelta>> {
    delta(py, i64::try_from(nanoseconds / 1000).unwrap_or(i64::MAX))
}

const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

fn delta(py: Python<'_>, microseconds: i64) -> PyResult<Bound<'_, PyDelta>> {
    let days = microseconds.div_euclid(MICROSECONDS_A_DAY);
    let rest = microseconds.rem_euclid(MICROSECONDS_A_DAY);
    let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    PyDelta::new(py, small(days), small(rest / 1_000_000), small(rest % 1_000_000), false)
}

/// The member of an enumeration of `gpuev._enums` with this value.
pub(crate) fn member<'py>(
    py: Python<'py>,
    class: &'static str,
    value: impl IntoPyObject<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    static ENUMS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = ENUMS.get_or_try_init(py, || py.import("gpuev._enums").map(Bound::unbind))?;
    module.bind(py).getattr(class)?.call1((value,))
}

/// Bytes of any kind as text; what is not UTF-8 stands as `\xNN`.
pub(crate) fn text(bytes: &[u8]) -> String {
    Escaped(bytes).to_string()
}

/// The dict that JSON text means.
pub(crate) fn parsed<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyDict>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads =
        LOADS.get_or_try_init(py, || py.import("json")?.getattr("loads").map(Bound::unbind))?;
    Ok(loads.bind(py).call1((json,))?.cast_into()?)
}
