//! Who is at the other end of a Unix socket.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};

/// The process that connected, or made the socket, as it was then (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its effective group.
    pub(crate) gid: u32,
    /// Its number; `None` where it has none in this process's PID namespace.
    pub(crate) pid: Option<u32>,
}

impl Peer {
    /// Who is at the other end of `socket`.
    ///
    /// # Errors
    /// Where it is no Unix socket.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let found = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
        // 0 for a process of another PID namespace, which rustix's type cannot hold.
        let pid = u32::try_from(found.pid()).ok().filter(|pid| *pid != 0);
        Ok(Self { uid: found.uid(), gid: found.gid(), pid })
    }
}
