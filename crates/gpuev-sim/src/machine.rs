//! The machine: its GPUs, their files and event files, and what may happen to them.

mod plug;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::io::Errno;

use crate::client::Client;
use crate::clock::boot_ns;
use crate::engine::{EventFileStats, FileLine, Port};
use crate::event::{DriverEvent, Pid};
use crate::gpu::{Device, SimGpu};
use crate::health::Health;
use crate::kernel::Kernel;
use crate::kfd::Kfd;
use crate::transport::Transport;
use crate::transport::diag::SockDiag;
use crate::transport::fuse::FuseFiles;
use crate::transport::hangup::Hangups;
use crate::transport::socket::SocketTransport;
use crate::tree::process::SimProcess;
use crate::tree::{self, Tree, device, found, process, system, topology};
use crate::zoo::{FoundMachine, text};

/// A simulated machine with AMD GPUs.
///
/// A handle: clones are the same machine, which goes when the last one does, its files with it.
///
/// ```
/// let machine = gpuev_sim::SimMachine::new()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimMachine {
    inner: Arc<Inner>,
}

struct Inner {
    kernel: Kernel,
    tree: Tree,
    ports: RwLock<Vec<Arc<Port>>>,
    state: Mutex<State>,
    kfd: Mutex<Kfd>,
    diag: Option<Arc<SockDiag>>,
    /// Event files that are as the driver's in all that a reader can see.
    exact: Option<Arc<FuseFiles>>,
    /// Who notices that event files were closed. Without it the next event does.
    hangups: Option<Hangups>,
    files_opened: AtomicU64,
    keeps_lines: bool,
}

struct State {
    /// The GPUs of a machine that was found, as they stay.
    found: Vec<SimGpu>,
    devices: Vec<Device>,
    health: Vec<Health>,
    processes: Vec<SimProcess>,
    generation: u64,
}

/// How a machine is to be; see [`SimMachine::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    found: Option<FoundMachine>,
    visible: Option<Vec<usize>>,
    gpus: usize,
    denied: usize,
    partitions: u32,
    kernel: Option<Kernel>,
    exact_files: bool,
    keeps_lines: bool,
}

impl Builder {
    /// Makes event files by FUSE rather than as sockets: then reads, masks and polls are the
    /// driver's to the byte (what still differs stands in the crate's documentation), at the price
    /// of some microseconds for each of them.
    ///
    /// It needs access to `/dev/fuse`, and root or a user namespace; [`Builder::build`] says what is
    /// missing.
    #[must_use]
    pub fn exact_files(mut self, exact: bool) -> Self {
        self.exact_files = exact;
        self
    }

    /// Keeps what became of every line at every event file, for [`SimMachine::file_lines`]; some
    /// 24 bytes for each.
    #[must_use]
    pub fn keep_lines(mut self, keep: bool) -> Self {
        self.keeps_lines = keep;
        self
    }

    /// Number of physical GPUs that may be used; 1 unless said. 0 is a machine whose driver is
    /// loaded and finds none.
    #[must_use]
    pub fn gpus(mut self, count: usize) -> Self {
        self.gpus = count;
        self
    }

    /// Number of further GPUs whose nodes may not be read, as in a container that the device
    /// cgroup keeps them from.
    #[must_use]
    pub fn denied(mut self, count: usize) -> Self {
        self.denied = count;
        self
    }

    /// Whose driver it imitates; unless said [`Kernel::V7_3`], and for a machine that was found the
    /// one that is the likest to its own.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Partitions of each GPU: so many KFD nodes share one PCI address. 1 unless said; with
    /// more, the GPUs are Instinct MI300X, else Radeon PRO W7900.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Self {
        self.partitions = count.max(1);
        self
    }

    /// A machine as somebody found it, with its GPUs and files; [`Builder::gpus`],
    /// [`Builder::partitions`] and [`Builder::denied`] say nothing then. GPUs neither come nor go on
    /// it, and its sensors stay as they were.
    #[must_use]
    pub fn found(mut self, machine: FoundMachine) -> Self {
        self.found = Some(machine);
        self
    }

    /// Which GPUs of a machine that was found may be used, by their places from 0, as in a container
    /// whose device cgroup keeps it from the others. All unless said.
    #[must_use]
    pub fn visible(mut self, gpus: impl IntoIterator<Item = usize>) -> Self {
        self.visible = Some(gpus.into_iter().collect());
        self
    }

    /// Makes the machine.
    ///
    /// # Errors
    /// Those of making files in `TMPDIR`, else in `/dev/shm` or `/tmp`; `InvalidInput` for more
    /// than 4096 KFD nodes, and for visible GPUs that there are not.
    pub fn build(self) -> io::Result<SimMachine> {
        if (self.gpus + self.denied).saturating_mul(self.partitions as usize) > MOST_NODES {
            let what = format!("a simulated machine has at most {MOST_NODES} KFD nodes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let exact = if self.exact_files { Some(Arc::new(FuseFiles::start()?)) } else { None };
        let mut built = Err(io::ErrorKind::NotFound.into());
        for parent in tree::parents() {
            built = self.build_in(&parent, exact.clone());
            if built.is_ok() {
                break;
            }
        }
        built
    }

    fn build_in(&self, parent: &Path, exact: Option<Arc<FuseFiles>>) -> io::Result<SimMachine> {
        let tree = Tree::new(parent)?;
        let kernel = self.kernel.or(self.found.map(FoundMachine::kernel)).unwrap_or_default();
        system::write(&tree, kernel)?;
        let hangups = if exact.is_some() { None } else { Hangups::start().ok() };
        let inner = Inner {
            kernel,
            tree,
            ports: RwLock::default(),
            state: Mutex::new(State {
                found: Vec::new(),
                devices: Vec::new(),
                health: Vec::new(),
                processes: Vec::new(),
                generation: FIRST_GENERATION,
            }),
            kfd: Mutex::default(),
            // Where the kernel does not tell, transports find another way.
            diag: SockDiag::open().ok().map(Arc::new),
            exact,
            hangups,
            files_opened: AtomicU64::new(0),
            keeps_lines: self.keeps_lines,
        };
        let machine = SimMachine { inner: Arc::new(inner) };
        match self.found {
            Some(found) => machine.lay(found, self.visible.as_deref())?,
            None => machine.plug_all(self)?,
        }
        Ok(machine)
    }
}

const MOST_NODES: usize = 4096;
/// A driver that has found its GPUs has counted a few changes.
const FIRST_GENERATION: u64 = 2;

impl SimMachine {
    /// A machine with one GPU and the newest kernel.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// A machine to measure.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            found: None,
            visible: None,
            gpus: 1,
            denied: 0,
            partitions: 1,
            kernel: None,
            exact_files: false,
            keeps_lines: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kfd(&self) -> MutexGuard<'_, Kfd> {
        self.inner.kfd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The GPUs that a process learns of when it opens `/dev/kfd` now: KFD's id, and which of its
    /// lives; and the generation of the topology.
    pub(crate) fn known_gpus(&self) -> (Vec<(u32, u64)>, u64) {
        let state = self.state();
        let usable = state.devices.iter().filter(|device| device.present && !device.denied);
        let known = usable
            .flat_map(|device| device.gpus().map(|gpu| (gpu.kfd_gpu_id, device.life)))
            .chain(state.found.iter().map(|gpu| (gpu.kfd_gpu_id, 0)))
            .collect();
        (known, state.generation)
    }

    fn port(&self, index: usize) -> Option<Arc<Port>> {
        self.inner.ports.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    fn ports(&self) -> Vec<Arc<Port>> {
        self.inner.ports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The folder that stands for `/`: give it to whatever reads `sys`, `proc`, `etc`, `dev`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.inner.tree.root()
    }

    /// Whose driver it imitates.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.inner.kernel
    }

    /// What `AMDKFD_IOC_GET_VERSION` answers: major, minor.
    #[must_use]
    pub fn kfd_version(&self) -> (u32, u32) {
        self.inner.kernel.kfd_version()
    }

    /// Every GPU that may be used, in order of index; those taken out are there as not present.
    #[must_use]
    pub fn gpus(&self) -> Vec<SimGpu> {
        let state = self.state();
        let usable = state.devices.iter().filter(|device| !device.denied);
        usable.flat_map(Device::gpus).chain(state.found.iter().cloned()).collect()
    }

    /// KFD's id of the GPU with this index.
    ///
    /// # Errors
    /// `NotFound` if there never was one.
    pub fn kfd_gpu_id(&self, gpu_index: usize) -> io::Result<u32> {
        let found = self.gpus().into_iter().find(|gpu| gpu.index == gpu_index);
        found.map(|gpu| gpu.kfd_gpu_id).ok_or_else(|| no_gpu(gpu_index))
    }

    /// A new event file of a GPU, opened by a process that has just opened `/dev/kfd` for it; one
    /// that opened it before is a [`KfdProcess`](crate::KfdProcess), and knows less.
    ///
    /// # Errors
    /// As [`SimMachine::open_kfd`] and [`KfdProcess::open_events`](crate::KfdProcess::open_events).
    pub fn open_events(&self, kfd_gpu_id: u32, client: &Client) -> io::Result<OwnedFd> {
        self.open_kfd(client)?.open_events(kfd_gpu_id, client)
    }

    /// The event file itself.
    pub(crate) fn new_events(&self, kfd_gpu_id: u32, client: &Client) -> io::Result<OwnedFd> {
        let found = self.gpus().into_iter().find(|gpu| gpu.present && gpu.kfd_gpu_id == kfd_gpu_id);
        let port = found.and_then(|gpu| self.port(gpu.index));
        let port = port.ok_or_else(|| io::Error::from(rustix::io::Errno::INVAL))?;
        let (transport, client_end) = self.new_file(client)?;
        if let (Some(socket), Some(hangups)) = (transport.socket(), &self.inner.hangups) {
            // Where it cannot be watched the next event notices.
            let _ = hangups.add(socket, &port);
        }
        let number = self.inner.files_opened.fetch_add(1, Ordering::Relaxed);
        port.attach(number, *client, transport);
        Ok(client_end)
    }

    /// The driver's end and the client's.
    fn new_file(&self, client: &Client) -> io::Result<(Box<dyn Transport>, OwnedFd)> {
        let Inner { kernel, exact, diag, .. } = &*self.inner;
        Ok(match exact {
            Some(files) => {
                let (transport, client_end) = files.open(*kernel, client.pid.host)?;
                (Box::new(transport), client_end)
            }
            None => {
                let (transport, client_end) =
                    SocketTransport::open(kernel.fifo_bytes(), diag.clone())?;
                (Box::new(transport), client_end)
            }
        })
    }

    /// Raises an event on a GPU: every event file of it that is to get it gets a line, stamped
    /// now. One that is not there is silent.
    pub fn emit(&self, gpu_index: usize, event: &DriverEvent) {
        // The driver, too, takes the time before it takes the lock.
        self.emit_batch_at(gpu_index, [(boot_ns(), event)]);
    }

    /// Raises several events, one after the other, that become readable together: a reader
    /// wakes up once.
    pub fn emit_batch<'e>(
        &self,
        gpu_index: usize,
        events: impl IntoIterator<Item = &'e DriverEvent>,
    ) {
        // Taken lazily: each event is stamped when its turn comes.
        self.emit_batch_at(gpu_index, events.into_iter().map(|event| (boot_ns(), event)));
    }

    /// As [`SimMachine::emit_batch`], with the stamps given: nanoseconds of `CLOCK_BOOTTIME`.
    pub fn emit_batch_at<'e>(
        &self,
        gpu_index: usize,
        events: impl IntoIterator<Item = (u64, &'e DriverEvent)>,
    ) {
        if let Some(port) = self.port(gpu_index) {
            port.emit(events);
        }
    }

    /// Puts bytes through mask, filter and FIFO as one message about event `id` and process
    /// `pid`, as they are: for what no driver writes.
    pub fn emit_raw(&self, gpu_index: usize, id: u32, pid: Option<Pid>, bytes: &[u8]) {
        if let Some(port) = self.port(gpu_index) {
            port.emit_raw(id, pid, bytes);
        }
    }

    /// As [`SimMachine::emit_raw`], if every file that is to get it has room; whether it was so.
    #[must_use]
    pub fn emit_raw_if_room(
        &self,
        gpu_index: usize,
        id: u32,
        pid: Option<Pid>,
        bytes: &[u8],
    ) -> bool {
        self.port(gpu_index).is_none_or(|port| port.emit_raw_if_room(id, pid, bytes))
    }

    /// What became of every line, by event file, in order of opening; files that were closed
    /// included.
    #[must_use]
    pub fn event_files(&self) -> Vec<EventFileStats> {
        let mut files: Vec<_> = self.ports().iter().flat_map(|port| port.stats()).collect();
        files.sort_unstable_by_key(|file| file.number);
        files
    }

    /// What became of every line that was raised while the event file with this number was open, in
    /// order, with the mask in force; nothing unless [`Builder::keep_lines`] asks for it.
    #[must_use]
    pub fn file_lines(&self, number: u64) -> Vec<FileLine> {
        self.ports().iter().find_map(|port| port.lines(number)).unwrap_or_default()
    }

    /// Has the next `read()` of each open event file of this GPU fail with this errno, as the
    /// driver's does with `ENOMEM` when the machine is short of memory. What is held stays.
    ///
    /// # Errors
    /// `InvalidInput` for 0 and what is no errno; `Unsupported` where event files are sockets:
    /// it takes [`Builder::exact_files`].
    pub fn fail_next_read(&self, gpu_index: usize, errno: i32) -> io::Result<()> {
        if !(1..4096).contains(&errno) {
            let what = format!("{errno} is no errno");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let errno = Errno::from_raw_os_error(errno);
        self.port(gpu_index).map_or(Ok(()), |port| port.fail_next_read(errno))
    }

    /// Most bytes that lie unread in any event file of this GPU.
    #[must_use]
    pub fn held_bytes(&self, gpu_index: usize) -> usize {
        self.port(gpu_index).map_or(0, |port| port.held())
    }

    /// Writes a file of the machine, at once: readers see the old content or the new.
    ///
    /// # Errors
    /// Those of the file system; `InvalidInput` for a path that leads out of the machine.
    pub fn write_file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
        self.inner.tree.write(path, content)
    }

    /// Removes a file of the machine, or a folder with all in it; no error if there is none.
    ///
    /// # Errors
    /// As [`SimMachine::write_file`].
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.inner.tree.remove(path)
    }

    /// Makes a file give `EPERM` or `EACCES` to everybody, root included.
    ///
    /// # Errors
    /// As [`SimMachine::write_file`].
    pub fn deny_file(&self, path: &str) -> io::Result<()> {
        self.inner.tree.deny(path)
    }

    /// Starts a process: `/proc` and KFD's list show it. No event is raised.
    ///
    /// # Errors
    /// As [`SimMachine::write_file`].
    pub fn add_process(&self, new: &SimProcess) -> io::Result<()> {
        let gpus = self.gpus();
        let mut state = self.state();
        state.processes.retain(|process| process.pid != new.pid);
        process::remove(&self.inner.tree, new.pid)?;
        process::add(&self.inner.tree, new, &gpus)?;
        state.processes.push(new.clone());
        Ok(())
    }

    /// Ends a process. No event is raised.
    ///
    /// # Errors
    /// As [`SimMachine::write_file`].
    pub fn remove_process(&self, pid: u32) -> io::Result<()> {
        self.state().processes.retain(|process| process.pid != pid);
        process::remove(&self.inner.tree, pid)
    }

    /// Plugs in all GPUs of a machine that is made up.
    fn plug_all(&self, builder: &Builder) -> io::Result<()> {
        system::write_module(&self.inner.tree, self.kernel())?;
        system::write_kfd(&self.inner.tree)?;
        let mut state = self.state();
        for number in 0..builder.gpus + builder.denied {
            self.plug(&mut state, builder.partitions, number >= builder.gpus)?;
        }
        self.write_topology(&state)
    }

    fn add_ports(&self, kfd_ids: impl Iterator<Item = u32>) {
        let Inner { kernel, keeps_lines, .. } = *self.inner;
        let ports = kfd_ids.map(|id| Arc::new(Port::new(kernel, id, keeps_lines)));
        self.inner.ports.write().unwrap_or_else(PoisonError::into_inner).extend(ports);
    }

    /// Lays the files of a machine that was found.
    fn lay(&self, found: FoundMachine, visible: Option<&[usize]>) -> io::Result<()> {
        let is_seen = |place: usize| visible.is_none_or(|visible| visible.contains(&place));
        let (seen, hidden): (Vec<_>, Vec<_>) =
            found.gpus()?.into_iter().enumerate().partition(|(place, _)| is_seen(*place));
        if visible.is_some_and(|visible| visible.len() != seen.len()) {
            let (name, count) = (found.name(), seen.len() + hidden.len());
            let what = format!("{name} has {count} GPUs: those to be seen are not among them");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let hidden: Vec<text::Gpu> = hidden.into_iter().map(|(_, gpu)| gpu).collect();
        let entries = found.entries()?;
        if entries.iter().any(|entry| entry.path.starts_with("sys/module/amdgpu")) {
            system::write_module(&self.inner.tree, self.kernel())?;
        }
        found::lay(&self.inner.tree, &entries, &hidden)?;
        let gpus = crate::gpu::found(seen.into_iter().map(|(_, gpu)| gpu));
        self.add_ports(gpus.iter().map(|gpu| gpu.kfd_gpu_id));
        self.state().found = gpus;
        Ok(())
    }

    fn write_topology(&self, state: &State) -> io::Result<()> {
        topology::write(&self.inner.tree, self.inner.kernel, &state.devices, state.generation)
    }

    /// Changes what the sensors of a GPU say, and its files.
    pub(crate) fn change_health(
        &self,
        gpu_index: usize,
        change: impl FnOnce(&mut Health),
    ) -> io::Result<()> {
        let mut state = self.state();
        state.must_be_made()?;
        let State { devices, health, .. } = &mut *state;
        let number = number_of(devices, gpu_index)?;
        change(&mut health[number]);
        if !devices[number].present {
            return Ok(());
        }
        device::write_health(&self.inner.tree, &devices[number], &health[number])
    }
}

impl State {
    /// # Errors
    /// `Unsupported` on a machine that was found, which stays as it was.
    fn must_be_made(&self) -> io::Result<()> {
        if self.found.is_empty() {
            return Ok(());
        }
        let what = "the GPUs and sensors of a machine that was found stay as they were";
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
}

fn number_of(devices: &[Device], gpu_index: usize) -> io::Result<usize> {
    let has = |device: &Device| {
        (device.first_index..device.first_index + device.partitions as usize).contains(&gpu_index)
    };
    devices.iter().position(has).ok_or_else(|| no_gpu(gpu_index))
}

fn no_gpu(index: usize) -> io::Error {
    let what = format!("the simulated machine has no GPU {index}");
    io::Error::new(io::ErrorKind::NotFound, what)
}

impl fmt::Debug for SimMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimMachine")
            .field("root", &self.root())
            .field("kernel", &self.inner.kernel)
            .finish_non_exhaustive()
    }
}
