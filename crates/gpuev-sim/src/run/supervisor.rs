//! The thread that plays the driver for the program: it takes each notified ioctl, finds out
//! whose device it is meant for, and answers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};

use super::caller::Caller;
use super::notice::{Answer, Ioctl, Listener, Notice, What};
use super::process::{Processes, Program};
use super::sysfs::Device;
use super::{Privilege, drm, filter, kfd};
use crate::client::Client;
use crate::kernel::Kernel;
use crate::kfd::KfdProcess;
use crate::machine::SimMachine;

/// The machine as its device nodes show it.
pub(super) struct Driver {
    machine: SimMachine,
    pub(super) root: PathBuf,
    processes: Processes,
}

impl Driver {
    pub(super) fn of(machine: SimMachine) -> Self {
        let root = machine.root();
        Driver { machine, root, processes: Processes::default() }
    }

    pub(super) fn kfd_version(&self) -> (u32, u32) {
        self.machine.kfd_version()
    }

    /// Minor version of amdgpu's DRM interface (`KMS_DRIVER_MINOR`).
    pub(super) fn drm_minor(&self) -> u32 {
        match self.machine.kernel() {
            Kernel::Oldest => 40,
            Kernel::V6_1 => 49,
            Kernel::V6_12 | Kernel::V6_12Nul => 59,
            _ => 64,
        }
    }

    pub(super) fn device_of(&self, gpu_id: u32) -> Option<Device> {
        Device::of_gpu_id(&self.root, gpu_id)
    }

    /// What opening `/dev/kfd` gives.
    ///
    /// # Errors
    /// The errno that `open` gives.
    fn open_kfd(&self, program: Program, client: &Client) -> Result<KfdProcess, i32> {
        { self.processes.open(&self.machine, program, client) }
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

/// An ioctl on one of the machine's nodes.
pub(super) struct Call<'a> {
    pub(super) notice: Notice,
    pub(super) ioctl: Ioctl,
    pub(super) caller: Caller,
    pub(super) listener: &'a Listener,
    pub(super) driver: &'a Driver,
    pub(super) privilege: Privilege,
}

impl Call<'_> {
    /// Reads from the caller.
    ///
    /// # Errors
    /// `EFAULT`.
    pub(super) fn get<const N: usize>(&self, address: u64) -> Result<[u8; N], i32> {
        let mut bytes = [0; N];
        self.caller.read(address, &mut bytes).map_err(|_| libc::EFAULT)?;
        Ok(bytes)
    }

    /// Writes to the caller.
    ///
    /// # Errors
    /// `EFAULT`; `ESRCH` when the call does not wait any more.
    pub(super) fn put(&self, address: u64, bytes: &[u8]) -> Result<(), i32> {
        if !self.listener.still_waits(&self.notice) {
            return Err(libc::ESRCH);
        }
        self.caller.write(address, bytes).map_err(|_| libc::EFAULT)
    }
}

/// The driver's end of a running program.
pub(super) struct Supervisor {
    pub(super) listener: Listener,
    /// Device number of the program's `/dev`.
    pub(super) dev: u64,
    pub(super) driver: Driver,
    pub(super) privilege: Privilege,
}

impl Supervisor {
    /// Answers until the last process of the program is gone or `stop`'s other end is closed.
    pub(super) fn serve(&self, stop: &OwnedFd) {
        loop {
            match self.wait(stop) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            match self.listener.receive() {
                Ok(Some(notice)) => {
                    let answer = self.decide(notice);
                    self.listener.answer(&notice, answer);
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether there is a call to take, rather than an end.
    fn wait(&self, stop: &OwnedFd) -> io::Result<bool> {
        let listener = self.listener.as_fd();
        let mut fds = [PollFd::new(&listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        let [calls, end] = fds.map(|fd| fd.revents());
        Ok(calls.contains(PollFlags::IN) && end.is_empty())
    }

    fn decide(&self, notice: Notice) -> Answer {
        match notice.what {
            What::Ioctl(ioctl) => self.ioctl(notice, ioctl),
            What::Open { directory, path } => self.open(notice, directory, path),
        }
    }

    /// Every open but that of `/dev/kfd` goes on as if nobody had looked.
    fn open(&self, notice: Notice, directory: i32, path: u64) -> Answer {
        let caller = Caller::new(notice.thread);
        let kfd = caller.kfd_node(self.dev);
        if kfd.is_none() || caller.file_at(directory, path) != kfd {
            return Answer::Continue;
        }
        let opened = self.client(&notice, caller).and_then(|(program, client)| {
            self.driver.open_kfd(program, &client)?;
            Ok(())
        });
        opened.map_or_else(Answer::Fail, |()| Answer::Continue)
    }

    /// The caller as KFD knows it.
    ///
    /// # Errors
    /// `ESRCH` where it is gone.
    fn client(&self, notice: &Notice, caller: Caller) -> Result<(Program, Client), i32> {
        let identity = caller.identity().map_err(|_| libc::ESRCH)?;
        let program = Program::of(identity.pid.host).map_err(|_| libc::ESRCH)?;
        // What was read under the thread's number counts only if the thread is still the same.
        if !self.listener.still_waits(notice) {
            return Err(libc::ESRCH);
        }
        Ok((program, self.privilege.client(identity)))
    }

    /// The KFD process behind an ioctl. Opens that read only are not seen, so that one who did so
    /// is taken in at its first ioctl.
    ///
    /// # Errors
    /// `EBADF` for a descriptor that another process opened; as opening `/dev/kfd`.
    fn process(&self, call: &Call<'_>) -> Result<KfdProcess, i32> {
        let (program, client) = self.client(&call.notice, call.caller)?;
        match self.driver.processes.get(program) {
            Some(process) => Ok(process),
            None if call.caller.access(call.ioctl.fd) == Some(libc::O_RDWR) => Err(libc::EBADF),
            None => self.driver.open_kfd(program, &client),
        }
    }

    fn ioctl(&self, notice: Notice, ioctl: Ioctl) -> Answer {
        let caller = Caller::new(notice.thread);
        let Some(path) = caller.path_on(ioctl.fd, self.dev) else { return Answer::Continue };
        if !self.listener.still_waits(&notice) {
            return Answer::Continue;
        }
        let call = Call {
            notice,
            ioctl,
            caller,
            listener: &self.listener,
            driver: &self.driver,
            privilege: self.privilege,
        };
        #[allow(clippy::cast_possible_truncation)] // the type is the second byte
        let kind = (ioctl.request >> 8) as u8;
        if kind == filter::KFD_TYPE && path == Path::new("/dev/kfd") {
            return self.process(&call).map_or_else(Answer::Fail, |one| kfd::answer(&call, &one));
        }
        let node = path.strip_prefix("/dev/dri").ok().and_then(Path::to_str);
        match node.and_then(|name| Device::of_drm_node(&self.driver.root, name)) {
            Some(device) if kind == filter::DRM_TYPE => drm::answer(&call, &device),
            _ => Answer::Continue,
        }
    }
}
