//! The library's errors as Python exceptions: classes of `gpuev.errors`, their text and hint unchanged.

use gpuev::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exception for `error`.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    of_kind(py, error.kind(), &error.to_string(), error.hint())
}

/// The exception of `kind`; should its class be missing, what the import says.
pub(crate) fn of_kind(py: Python<'_>, kind: ErrorKind, text: &str, hint: Option<&str>) -> PyErr {
    let class = py.import("gpuev.errors").and_then(|module| module.getattr(class_name(kind)));
    match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => match class.call1((text, hint)) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NoGpu => "NoGpuError",
        ErrorKind::PermissionDenied => "PermissionDeniedError",
        ErrorKind::NotSupported => "NotSupportedError",
        ErrorKind::GpuRemoved => "GpuRemovedError",
        ErrorKind::InvalidInput => "InvalidInputError",
        ErrorKind::Stopped => "StoppedError",
        ErrorKind::OutOfResources => "OutOfResourcesError",
        ErrorKind::Locked => "LockedError",
        _ => "IoError",
    }
}
