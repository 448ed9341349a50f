//! Where event files come from: the seam between this library and a driver, a simulator, or a process that
//! opens them for us.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gpuev_kfd::{KfdVersion, ioctl};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Gpu, Machine, Result, Scope, advice};

/// Opens the event files of a machine's GPUs.
pub trait EventSource: Send + Sync + fmt::Debug {
    /// The version of the driver's interface.
    ///
    /// # Errors
    /// Where there is no driver, or it may not be asked.
    fn version(&self) -> Result<KfdVersion>;

    /// A fresh event file of `gpu`, its mask empty.
    ///
    /// # Errors
    /// Where it cannot be opened; the error says what to do.
    fn open(&self, gpu: &Gpu) -> Result<OwnedFd>;

    /// Whose events the files show that this source opens now.
    fn scope(&self) -> Scope;
}

/// The driver itself, through `/dev/kfd`.
///
/// The device is open only while it is asked something. Still, the kernel makes whoever opens it a KFD
/// process until that process ends, and refuses partition changes as long.
#[derive(Debug)]
pub struct KfdDevice {
    root: PathBuf,
}

impl KfdDevice {
    /// The driver behind `<root>/dev/kfd`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.root.join("dev/kfd")
    }

    fn device(&self) -> Result<File> {
        let path = self.path();
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| advice::opening_kfd(&Machine::at(&self.root), &path, error))
    }

    fn version_of(&self, device: &File) -> Result<KfdVersion> {
        let version = ioctl::get_version(device).map_err(|error| {
            Error::io(format!("GET_VERSION on {}", self.path().display()), error)
                .with_kind(ErrorKind::NotSupported)
                .with_hint("it is not the device of the amdgpu driver")
        })?;
        require_events(version)?;
        Ok(version)
    }
}

impl EventSource for KfdDevice {
    fn version(&self) -> Result<KfdVersion> {
        self.version_of(&self.device()?)
    }

    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        let device = self.device()?;
        self.version_of(&device)?;
        ioctl::open_event_file(&device, gpu.id.kfd_id).map_err(|error| explain_events(gpu, error))
    }

    fn scope(&self) -> Scope {
        Scope::of_this_process(&self.root, self.version().ok())
    }
}

/// Whoever opens the files, a driver that is too old has none that could be read.
pub(crate) fn require_events(version: KfdVersion) -> Result<()> {
    if version < KfdVersion::FIRST_WITH_EVENTS || version.major != 1 {
        return Err(Error::new(
            ErrorKind::NotSupported,
            format!("the driver's KFD interface {version} has no events that gpuev knows"),
        )
        .with_hint("events need KFD 1.3 or later, i.e. Linux 5.8"));
    }
    Ok(())
}

fn explain_events(gpu: &Gpu, error: io::Error) -> Error {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let id = gpu.id;
    let what = format!("SMI_EVENTS of GPU {} (KFD id {})", id.bdf, id.kfd_id);
    let failed = Error::io(what, error);
    match errno {
        Some(Errno::INVAL) => failed
            .with_kind(ErrorKind::GpuRemoved)
            .with_hint("the driver does not know this GPU (any more): list the GPUs again"),
        Some(Errno::MFILE) => failed.with_hint("raise the limit of open files (ulimit -n)"),
        _ => failed,
    }
}

/// A source made of a version and a function, for simulators and for processes that are handed their files.
pub struct OpenWith<F> {
    version: KfdVersion,
    scope: Scope,
    open: F,
}

impl<F> OpenWith<F>
where
    F: Fn(&Gpu) -> io::Result<OwnedFd> + Send + Sync,
{
    /// `open` gives a fresh event file of a GPU; `version` is that of the driver behind it.
    pub fn new(version: KfdVersion, scope: Scope, open: F) -> Self {
        Self { version, scope, open }
    }
}

impl<F> fmt::Debug for OpenWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenWith({})", self.version)
    }
}

impl<F> EventSource for OpenWith<F>
where
    F: Fn(&Gpu) -> io::Result<OwnedFd> + Send + Sync,
{
    fn version(&self) -> Result<KfdVersion> {
        Ok(self.version)
    }

    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        (self.open)(gpu).map_err(|error| explain_events(gpu, error))
    }

    fn scope(&self) -> Scope {
        self.scope.clone()
    }
}
