//! Waiting as Python does it: without the interpreter's lock, and Ctrl-C ends it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// When a wait ends.
#[derive(Clone, Copy)]
pub(crate) enum Deadline {
    At(Instant),
    Never,
}

impl Deadline {
    /// In so many seconds from now; a number that no clock reaches is never.
    pub(crate) fn in_seconds(seconds: f64) -> Self {
        let at = Duration::try_from_secs_f64(seconds.max(0.0))
            .ok()
            .and_then(|wait| Instant::now().checked_add(wait));
        at.map_or(Self::Never, Self::At)
    }

    fn left(self) -> Option<Timespec> {
        match self {
            Self::At(at) => Timespec::try_from(at.saturating_duration_since(Instant::now())).ok(),
            Self::Never => None,
        }
    }
}

/// Waits until `fd` is readable; false where the deadline came first.
///
/// # Errors
/// What a signal's handler raises, `KeyboardInterrupt` for Ctrl-C.
pub(crate) fn until_readable(py: Python<'_>, fd: &OwnedFd, deadline: Deadline) -> PyResult<bool> {
    loop {
        py.check_signals()?;
        let polled = py.detach(|| {
            let mut fds = [PollFd::new(fd, PollFlags::IN)];
            rustix::event::poll(&mut fds, deadline.left().as_ref())
        });
        match polled {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(PyOSError::new_err(std::io::Error::from(error).to_string())),
        }
    }
}
