//! Any unmodified program on the simulated machine.
//!
//! The program gets its own `/sys` and `/dev`, in which the machine's GPUs are laid over what
//! the host has, and its ioctls on `/dev/kfd` and `/dev/dri/*` are answered by a thread of this
//! process, which puts event files straight into the program's descriptor table. `/proc`, the
//! terminal, the network and all other files are the host's. What the program starts is on the
//! machine too.
//!
//! Root needs nothing more; everybody else needs a user namespace, which most systems allow.
//! Nothing outside the program's namespaces changes, and nothing of it is left when this
//! process ends, in whatever way.
//!
//! # What differs from a real machine
//! - An open of `/dev/kfd` is seen if it is for reading and writing. One that only reads always
//!   works, and makes a KFD process at its first ioctl. None of them waits for processes that end.
//! - A process that outlives this one gets `ENOSYS` when it opens a file for reading and writing, or
//!   asks a GPU.
//! - KFD's list of processes in `/sys` is that of the story, without the program's own.
//! - Device nodes are no DRM or KFD character devices (major 226 and KFD's): as root they have
//!   the numbers of `/dev/null`, in a user namespace they are plain files. `mmap` of them fails.
//! - The ioctls are those for finding GPUs and for events; queues and buffers give `EINVAL`.
//! - A GPU that is plugged in while the program runs has its files in `/sys` and its events, but
//!   no nodes in `/dev/dri`.
//! - 32-bit programs on a 64-bit kernel get `ENOTTY`, where the driver gives `EPERM` on open.
//! - The program has no second supervisor: one simulated machine inside another gives `EBUSY`.

mod caller;
mod drm;
mod error;
mod filter;
mod kfd;
mod layout;
mod namespace;
mod notice;
mod process;
mod signals;
mod supervisor;
mod sysfs;

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

pub use self::error::Error;

use self::caller::Identity;
use self::layout::Layout;
use self::namespace::{Entry, Report, Stage};
use self::notice::Listener;
use self::supervisor::{Driver, Supervisor};
use crate::client::Client;
use crate::machine::SimMachine;

/// Whom the driver takes the program for when it opens an event file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privilege {
    /// A client with `CAP_SYS_ADMIN`, whoever runs it.
    #[default]
    AsRoot,
    /// A client without capabilities, whoever runs it.
    Unprivileged,
    /// What it really has: root of the host is privileged, root of a user namespace is not.
    Real,
}

impl Privilege {
    fn client(self, identity: Identity) -> Client {
        let cap_sys_admin = match self {
            Privilege::AsRoot => true,
            Privilege::Unprivileged => false,
            Privilege::Real => identity.cap_sys_admin,
        };
        Client { pid: identity.pid, cap_sys_admin }
    }
}

/// How to put a program on a machine.
#[derive(Debug)]
pub struct Run {
    machine: SimMachine,
    privilege: Privilege,
    user_namespace: bool,
}

impl Run {
    /// On this machine, which lives at least as long as the program.
    #[must_use]
    pub fn new(machine: &SimMachine) -> Self {
        Run { machine: machine.clone(), privilege: Privilege::default(), user_namespace: false }
    }

    /// Whom the driver takes the program for; root unless told otherwise.
    #[must_use]
    pub fn privilege(mut self, privilege: Privilege) -> Self {
        self.privilege = privilege;
        self
    }

    /// Uses a user namespace even where root could do without.
    #[must_use]
    pub fn user_namespace(mut self, always: bool) -> Self {
        self.user_namespace = always;
        self
    }

    /// Starts the program. It is killed when the result is dropped before its end.
    ///
    /// # Errors
    /// Namespaces, mounts or the filter are not to be had here, or the program cannot be
    /// executed; the error says which and what to do.
    pub fn spawn(self, command: Command) -> Result<Running, Error> {
        let layout = Layout::plan(&self.machine.root())
            .map_err(|error| Error::new("plan /sys and /dev", error))?;
        let start = Start { command, layout: Arc::new(layout), run: self };
        let (stop, stopped) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::new("pipe", error.into()))?;
        let (tell, told) = mpsc::sync_channel(1);
        // The program is killed with the thread that started it, so that thread is the one
        // without which the program would be lost.
        let supervisor = thread::Builder::new()
            .name("gpuev-sim-run".to_owned())
            .spawn(move || start.supervise(&tell, &stop))
            .map_err(|error| Error::new("start a thread", error))?;
        let gone = || Error::new("start the program", io::ErrorKind::BrokenPipe.into());
        let child = told.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(Running { child, stop: Some(stopped), supervisor: Some(supervisor) })
    }

    /// Runs the program to its end and gives what it wrote.
    ///
    /// # Errors
    /// As [`Run::spawn`], or its output cannot be read.
    pub fn output(self, mut command: Command) -> Result<Output, Error> {
        use std::process::Stdio;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn(command)?.output()
    }

    /// Runs the program to its end as a shell would in the foreground: it has the terminal,
    /// Ctrl-C is for it to heed, and `INT`, `QUIT`, `TERM`, `HUP`, `USR1` and `USR2` sent to this
    /// process reach it. Those signals' handlers are replaced for the time, so only one
    /// program runs this way at once.
    ///
    /// # Errors
    /// As [`Run::spawn`].
    pub fn foreground(self, command: Command) -> Result<ExitStatus, Error> {
        let mut signals =
            signals::Forwarding::start().map_err(|error| Error::new("sigaction", error))?;
        let mut running = self.spawn(command)?;
        // Where there are no process descriptors (before 5.3) Ctrl-C still reaches the program.
        let _ = signals.to(running.id());
        running.wait()
    }
}

/// What the supervising thread is given.
struct Start {
    command: Command,
    layout: Arc<Layout>,
    run: Run,
}

impl Start {
    fn supervise(self, tell: &mpsc::SyncSender<Result<Child, Error>>, stop: &OwnedFd) {
        let Run { machine, privilege, user_namespace } = self.run;
        match start(self.command, &self.layout, user_namespace) {
            Ok((child, listener, dev)) => {
                let supervisor =
                    Supervisor { listener, dev, driver: Driver::of(machine), privilege };
                let _ = tell.send(Ok(child));
                supervisor.serve(stop);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    }
}

/// Forks, builds the child's world, executes the program; the listener and the device number
/// of its `/dev`.
fn start(
    mut command: Command,
    layout: &Arc<Layout>,
    user_namespace: bool,
) -> Result<(Child, Listener, u64), Error> {
    let socket = |error: rustix::io::Errno| Error::new("socketpair", error.into());
    let (ours, childs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(socket)?;
    let entry = Entry::prepare(Arc::clone(layout), user_namespace, childs)
        .map_err(|error| Error::new("prepare the child", error))?;
    // SAFETY: `enter` makes system calls on what `entry` holds ready, and nothing else.
    unsafe { command.pre_exec(move || entry.enter()) };
    let spawned = command.spawn();
    let program = command.get_program().to_string_lossy().into_owned();
    // With the command goes our copy of the child's end: a child that says nothing is noticed.
    drop(command);
    let report = receive(&ours);
    let mut child = match (spawned, &report) {
        (Ok(child), _) => child,
        (Err(_), Ok((report, _))) if report.stage != Stage::Entered => {
            return Err(Error::from_report(report, layout));
        }
        (Err(error), _) => return Err(Error::exec(&program, error)),
    };
    match report {
        Ok((report, Some(listener))) => Ok((child, Listener::new(listener), report.dev)),
        Ok((_, None)) | Err(_) => {
            // It has become the program, but nobody could answer its ioctls.
            let _ = child.kill();
            let _ = child.wait();
            let lost = io::Error::from(io::ErrorKind::UnexpectedEof);
            Err(Error::new("receive the seccomp listener", report.err().unwrap_or(lost)))
        }
    }
}

/// The child's report and, if it got that far, its listener.
fn receive(socket: &OwnedFd) -> io::Result<(Report, Option<OwnedFd>)> {
    let mut bytes = [0u8; Report::BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let listener = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    if received.bytes != Report::BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let report = Report::from_bytes(bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok((report, listener))
}

/// A program that runs on a simulated machine.
pub struct Running {
    child: Child,
    /// The supervisor ends when this is closed.
    stop: Option<OwnedFd>,
    supervisor: Option<JoinHandle<()>>,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process: its pipes, if any were asked for, and the means to kill it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the program's end. What it has left running in the background is served until
    /// this is dropped.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().map_err(|error| Error::new("wait for the program", error))
    }

    /// Waits for the program's end and gives what it wrote to the pipes it was given.
    ///
    /// # Errors
    /// It cannot be waited for, or its pipes cannot be read.
    pub fn output(mut self) -> Result<Output, Error> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let failed = |error| Error::new("read what the program writes", error);
        let errors = thread::Builder::new()
            .spawn(move || read_all(stderr))
            .map_err(|error| Error::new("start a thread", error))?;
        let stdout = read_all(stdout).map_err(failed)?;
        let stderr = errors.join().unwrap_or_else(|_| Ok(Vec::new())).map_err(failed)?;
        Ok(Output { status: self.wait()?, stdout, stderr })
    }
}

fn read_all(pipe: Option<impl io::Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a program that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.stop.take());
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// The exit code that a shell gives for this end: the program's own, or 128 and the signal.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xFF).unwrap_or(u8::MAX)
}
