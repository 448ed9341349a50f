//! The process that a keeper is, and the connection to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::Reach;
use crate::fork::{self, Descriptor};

/// A keeper that does not answer for so long never will. The open of `/dev/kfd` waits for the clean-up of compute
/// processes that have ended, and that for resets in progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a keeper that has not been asked anything yet.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<Descriptor>,
    /// Ours to reap, if we started it.
    child: Option<OwnChild>,
}

/// A keeper that may still run.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: u64,
    pub(super) socket: Arc<Descriptor>,
    /// Known once it has answered.
    pidfd: Option<Descriptor>,
    child: Option<OwnChild>,
    hung_up: bool,
}

/// Killed and reaped when it is dropped.
#[derive(Debug)]
struct OwnChild(Child);

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Both fail only for one that is gone already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Connection {
    /// # Errors
    /// Where nobody listens, or the program cannot be started.
    pub(super) fn new(reach: &Reach) -> io::Result<Self> {
        let (socket, child) = match reach {
            Reach::Socket(path) => (Descriptor::open(|| connect(path))?, None),
            Reach::Program(program, arguments) => {
                let (socket, child) = spawn(program, arguments)?;
                (socket, Some(child))
            }
        };
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
        }
        Ok(Self { socket: Arc::new(socket), child })
    }
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// In a process group of its own: what the terminal sends to ours, such as Ctrl-C, does not end it before the files are
/// closed.
fn spawn(program: &Path, arguments: &[String]) -> io::Result<(Descriptor, OwnChild)> {
    let _no_fork = fork::opening();
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (socket, keepers) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(keepers))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok((Descriptor::open(|| Ok::<_, io::Error>(socket))?, OwnChild(child)))
}

impl Process {
    pub(super) fn new(number: u64, connection: Connection) -> Self {
        let Connection { socket, child } = connection;
        Self { number, socket, pidfd: None, child, hung_up: false }
    }

    /// It has answered as a keeper does.
    pub(super) fn is_proven(&mut self, pidfd: OwnedFd) {
        self.pidfd = Descriptor::open(|| Ok::<_, io::Error>(pidfd)).ok();
    }

    /// Whether files that it opened may be open.
    pub(super) fn is_needed(&self) -> bool {
        !self.hung_up
    }

    /// Has it end.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        // Only this direction: that the keeper has closed its own is how its end is seen where there is no pidfd. It
        // fails only where the keeper has hung up first.
        let _over = rustix::net::shutdown(&*self.socket, Shutdown::Write);
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.hung_up && self.ends_by(Instant::now())
    }

    /// Waits for its end; tells whether it came in time. Dropped then, it is reaped.
    pub(super) fn ends_by(&mut self, until: Instant) -> bool {
        match &self.pidfd {
            Some(pidfd) => is_ready_by(pidfd, PollFlags::IN, until),
            // It closes its end when it ends, if not before.
            None => is_ready_by(&*self.socket, PollFlags::HUP, until),
        }
    }

    /// Its number; `None` once it is reaped, or where it has none here.
    pub(super) fn pid(&self) -> Option<u32> {
        use std::os::fd::AsRawFd;
        let Some(pidfd) = &self.pidfd else {
            return self.child.as_ref().map(|child| child.0.id());
        };
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()));
        let info = info.ok()?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        pid.trim().parse().ok().filter(|pid| *pid != 0)
    }
}

/// Whether something, be it the end, can be read without waiting.
pub(super) fn is_readable(socket: &impl AsFd) -> bool {
    is_ready_by(socket, PollFlags::IN, Instant::now())
}

fn is_ready_by(fd: &impl AsFd, events: PollFlags, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut [PollFd::new(fd, events)], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            polled => return polled.is_ok_and(|ready| ready > 0),
        }
    }
}
