//! A keeper for each agent that connects, where no service manager starts them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::serve::Allowed;

/// More than the clients of any node need at a time: one keeper for each batch of GPUs that appeared together. Clients
/// beyond wait until one goes.
const MOST_KEEPERS: usize = 32;

/// Listens at `path` and runs `keeper`, whose standard input is the connection, for each agent that `allowed`
/// lets in, until `stop` is readable or closed. This process opens no device, so it is never a KFD process.
///
/// Everybody may connect; who is not let in is told so and costs no process. Keepers that still run when it ends, end with their agents.
///
/// # Errors
/// Where the socket cannot be made.
pub fn listen(
    path: &Path,
    allowed: &Allowed,
    keeper: impl Fn() -> Command,
    stop: &impl AsFd,
    complain: impl Fn(&Error),
) -> Result<()> {
    let listener =
        bind(path).map_err(|error| Error::io(format!("listen at {}", path.display()), error))?;
    let mut keepers: Vec<Child> = Vec::new();
    while wait(&listener, stop, &mut keepers)? {
        let started = accept(&listener, allowed).and_then(|agent| start(agent, keeper()));
        match started {
            Ok(child) => keepers.push(child),
            Err(error) => complain(&error),
        }
    }
    let _gone_already = std::fs::remove_file(path);
    Ok(())
}

/// A socket of a listener that has died is taken over; that of one that lives is not.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let new = || {
        rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
    };
    let listener = new()?;
    if path.exists() {
        if rustix::net::connect(new()?, &address) != Err(rustix::io::Errno::CONNREFUSED) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    rustix::net::bind(&listener, &address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}

/// Waits for the next agent, and for room for one more keeper; `false` when it is time to stop.
fn wait(listener: &OwnedFd, stop: &impl AsFd, keepers: &mut Vec<Child>) -> Result<bool> {
    loop {
        let failed = |error: rustix::io::Errno| Error::io("wait for an agent", error.into());
        keepers.retain_mut(|keeper| matches!(keeper.try_wait(), Ok(None)));
        let pidfds: Vec<_> = keepers.iter().filter_map(pidfd).collect();
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        if keepers.len() < MOST_KEEPERS {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled.map_err(failed)?,
        };
        let stopping = fds.first().is_some_and(|stop| !stop.revents().is_empty());
        let agent = fds.get(pidfds.len() + 1).is_some_and(|agent| !agent.revents().is_empty());
        if stopping || agent {
            return Ok(!stopping);
        }
    }
}

fn pidfd(keeper: &Child) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    pidfd_open(Pid::from_child(keeper), PidfdFlags::empty()).ok()
}

fn accept(listener: &OwnedFd, allowed: &Allowed) -> Result<OwnedFd> {
    let agent = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)
        .map_err(|error| Error::io("accept an agent", error.into()))?;
    allowed.admit(&agent)?;
    Ok(agent)
}

fn start(agent: OwnedFd, mut keeper: Command) -> Result<Child> {
    keeper.stdin(Stdio::from(agent)).stdout(Stdio::null()).spawn().map_err(|error| {
        let what = format!("start {}", keeper.get_program().to_string_lossy());
        Error::io(what, error).with_kind(ErrorKind::Io)
    })
}
