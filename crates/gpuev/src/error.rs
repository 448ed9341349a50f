//! The one error of this library: what failed, on which device or file, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, why, and what to do about it.
///
/// Its text has three parts: the call and the device or path, the cause, and a hint.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    source: Option<io::Error>,
    path: Option<PathBuf>,
    hint: Option<String>,
}

/// The kinds of failure that a program may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No AMD GPU driver, or no GPU of this machine may be seen.
    NoGpu,
    /// The device is there and may not be opened.
    PermissionDenied,
    /// The driver is too old for what was asked, or does not have it.
    NotSupported,
    /// KFD answers nobody while a GPU is reset, repartitioned or removed: it is worth another try.
    Locked,
    /// The GPU is not, or no longer, there.
    GpuRemoved,
    /// The GPU appeared after this process first opened `/dev/kfd`: the driver does not show it to this process.
    AppearedLater,
    /// What was asked for does not exist or makes no sense.
    InvalidInput,
    /// The reader, monitor or subscription has been stopped.
    Stopped,
    /// No more descriptors, memory or the like.
    OutOfResources,
    /// Another process has it.
    Busy,
    /// Any other failure of the operating system.
    Io,
}

impl Error {
    /// An error of `kind`; `what` names the call and the device or path.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), source: None, path: None, hint: None }))
    }

    /// An error of the operating system in the middle of `what`; the kind follows from `source`.
    #[must_use]
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            io::ErrorKind::Unsupported => ErrorKind::NotSupported,
            io::ErrorKind::OutOfMemory => ErrorKind::OutOfResources,
            _ => kind_of_errno(&source),
        };
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            source: Some(source),
            path: None,
            hint: None,
        }))
    }

    /// This error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// This error with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// This error, and the file, folder or device that it is about. It stands in the text already.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// The file, folder or device that it is about, where it is about one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The same error again, for another that fails for the same reason.
    pub(crate) fn again(&self) -> Self {
        let source = self.0.source.as_ref().map(|source| match source.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(source.kind(), source.to_string()),
        });
        let Inner { kind, what, path, hint, .. } = &*self.0;
        Self(Box::new(Inner {
            kind: *kind,
            what: what.clone(),
            source,
            path: path.clone(),
            hint: hint.clone(),
        }))
    }

    /// The operating system's error number, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref()?.raw_os_error()
    }
}

fn kind_of_errno(error: &io::Error) -> ErrorKind {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC) => {
            ErrorKind::OutOfResources
        }
        Some(Errno::NODEV | Errno::NXIO) => ErrorKind::GpuRemoved,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
