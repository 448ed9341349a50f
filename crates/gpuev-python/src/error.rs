//! The library's errors as Python exceptions: classes of `gpuev.errors`, their text and hint unchanged.

use std::path::Path;

use gpuev::{Error, ErrorKind};
use pyo3::prelude::*;

/// The exception for `error`.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let (class, errno) = match class_name(error.kind()) {
        "IoError" => ("os_error", error.raw_os_error()),
        name => (name, error.raw_os_error().or_else(|| errno_of(error.kind()))),
    };
    made(py, class, (&error.to_string(), error.hint(), errno, error.path()))
}

/// The exception of `kind`; should its class be missing, what the import says.
pub(crate) fn of_kind(py: Python<'_>, kind: ErrorKind, text: &str, hint: Option<&str>) -> PyErr {
    made(py, class_name(kind), (text, hint, errno_of(kind), None))
}

/// What `class` of `gpuev.errors`, or a function there, makes of text, hint, errno and path.
fn made(
    py: Python<'_>,
    class: &str,
    (text, hint, errno, path): (&str, Option<&str>, Option<i32>, Option<&Path>),
) -> PyErr {
    let path = path.map(Path::as_os_str);
    let make = py.import("gpuev.errors").and_then(|module| module.getattr(class));
    match make.and_then(|make| make.call1((text, hint, errno, path))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The number that an error of this kind has where the system gave none.
fn errno_of(kind: ErrorKind) -> Option<i32> {
    use rustix::io::Errno;
    let errno = match kind {
        ErrorKind::PermissionDenied => Errno::ACCESS,
        ErrorKind::GpuRemoved => Errno::NODEV,
        _ => return None,
    };
    Some(errno.raw_os_error())
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
