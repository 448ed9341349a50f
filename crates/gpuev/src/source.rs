//! Where event files come from: the seam between this library and a driver, a simulator, or a process that
//! opens them for us.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gpuev_kfd::{KfdVersion, ioctl};
use rustix::io::Errno;

use crate::keeper::Keeper;
use crate::machine::files;
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

    /// Event files of several GPUs of one look at the machine, in their order. A source that can open all of them at
    /// once does. `each` is called with a file as soon as it is open, and subscribes: no GPU's events wait for the other
    /// files.
    ///
    /// # Errors
    /// Where none can be opened, all for one reason.
    fn open_all(&self, gpus: &[Gpu], each: OnOpened<'_>) -> Result<OpenedFiles> {
        let version = self.version()?;
        let open = |gpu: &Gpu| self.open(gpu).inspect(|file| each(gpu, file));
        let files = gpus.iter().map(open).collect();
        Ok(OpenedFiles::new(version, self.scope(), files))
    }
}

/// What [`EventSource::open_all`] calls for each file.
pub type OnOpened<'a> = &'a dyn Fn(&Gpu, &OwnedFd);

/// What [`EventSource::open_all`] opened.
#[derive(Debug)]
pub struct OpenedFiles {
    pub(crate) version: KfdVersion,
    pub(crate) scope: Scope,
    pub(crate) files: Vec<Result<OwnedFd>>,
    /// The process that opened them. It stays until they are closed.
    pub(crate) keeper: Option<Keeper>,
}

impl OpenedFiles {
    /// A file or the reason why there is none for each GPU that was asked for, opened by a driver of `version`. They
    /// show the events of `scope`.
    #[must_use]
    pub fn new(version: KfdVersion, scope: Scope, files: Vec<Result<OwnedFd>>) -> Self {
        Self { version, scope, files, keeper: None }
    }

    /// The files alone.
    #[must_use]
    pub fn into_files(self) -> Vec<Result<OwnedFd>> {
        self.files
    }
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

    /// KFD's ids of the GPUs that the topology lists now.
    fn listed(&self) -> Vec<u32> {
        let nodes = std::fs::read_dir(self.root.join("sys/class/kfd/kfd/topology/nodes"));
        let nodes = nodes.into_iter().flatten().flatten();
        let ids = nodes.filter_map(|node| files::number::<u32>(&node.path().join("gpu_id")));
        ids.filter(|id| *id != 0).collect()
    }

    /// Event files of the GPUs with these KFD ids, by which they are also called, all through one open of the device.
    #[cfg(feature = "keeper-server")]
    pub(crate) fn open_ids(&self, kfd_ids: &[u32]) -> Result<OpenedFiles> {
        let name = |id: &u32| (*id, format!("the GPU with the KFD id {id}"));
        self.open_each(kfd_ids.iter().map(name), |_, _| {})
    }

    fn open_each(
        &self,
        gpus: impl Iterator<Item = (u32, String)>,
        each: impl Fn(usize, &OwnedFd),
    ) -> Result<OpenedFiles> {
        let device = self.device()?;
        let version = self.version_of(&device)?;
        let scope = Scope::of_this_process(&self.root, Some(version));
        let open = |(at, (id, name)): (usize, (u32, String))| {
            ioctl::open_event_file(&device, id)
                .inspect(|file| each(at, file))
                .map_err(|error| self.explain_events(id, &name, error))
        };
        Ok(OpenedFiles::new(version, scope, gpus.enumerate().map(open).collect()))
    }

    /// Since Linux 5.18 the driver looks for what it made of the GPU when this process first opened the device
    /// (`kfd_process_device_data_by_id`).
    fn explain_events(&self, kfd_id: u32, name: &str, error: io::Error) -> Error {
        let unknown = error.raw_os_error() == Some(Errno::INVAL.raw_os_error());
        let failed = explain_events(name, error);
        if unknown && self.listed().contains(&kfd_id) {
            return failed.with_kind(ErrorKind::AppearedLater).with_hint(APPEARED_LATER);
        }
        failed
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
        let opened = self.open_all(std::slice::from_ref(gpu), &|_, _| {})?;
        opened.files.into_iter().next().unwrap_or_else(|| Err(no_answer()))
    }

    fn scope(&self) -> Scope {
        Scope::of_this_process(&self.root, self.version().ok())
    }

    fn open_all(&self, gpus: &[Gpu], each: OnOpened<'_>) -> Result<OpenedFiles> {
        let named = gpus.iter().map(|gpu| (gpu.id.kfd_id, name_of(gpu)));
        self.open_each(named, |at, file| each(&gpus[at], file))
    }
}

const APPEARED_LATER: &str = "the driver shows a process only the GPUs that were there when it first opened /dev/kfd: start it \
     again, or have a keeper open the event files (gpuev::keeper; gpuev watch, record and agent do)";

/// A source that was asked for one file and gave none.
pub(crate) fn no_answer() -> Error {
    Error::new(ErrorKind::Io, "the source of event files gave none")
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

/// What the errors call it.
fn name_of(gpu: &Gpu) -> String {
    format!("GPU {} (KFD id {})", gpu.id.bdf, gpu.id.kfd_id)
}

fn explain_events(name: &str, error: io::Error) -> Error {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let failed = Error::io(format!("SMI_EVENTS of {name}"), error);
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
        (self.open)(gpu).map_err(|error| explain_events(&name_of(gpu), error))
    }

    fn scope(&self) -> Scope {
        self.scope.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose topology lists GPUs with these KFD ids.
    fn device(ids: &[u32]) -> (tempfile::TempDir, KfdDevice) {
        let root = tempfile::TempDir::new().unwrap();
        for (node, id) in ids.iter().enumerate() {
            let node = root.path().join(format!("sys/class/kfd/kfd/topology/nodes/{node}"));
            std::fs::create_dir_all(&node).unwrap();
            std::fs::write(node.join("gpu_id"), format!("{id}\n")).unwrap();
        }
        let device = KfdDevice::at(root.path());
        (root, device)
    }

    fn errno(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn a_gpu_that_is_listed_and_not_known_appeared_later() {
        let (_root, device) = device(&[0, 100]);
        let listed = device.explain_events(100, "it", errno(Errno::INVAL));
        assert_eq!(listed.kind(), ErrorKind::AppearedLater);
        assert!(listed.to_string().contains("a keeper"), "{listed}");
        let gone = device.explain_events(101, "it", errno(Errno::INVAL));
        assert_eq!(gone.kind(), ErrorKind::GpuRemoved);
    }
}
