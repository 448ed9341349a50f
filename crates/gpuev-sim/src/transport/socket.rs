//! Event files as Unix sockets: works everywhere, without privileges.
//!
//! The client gets one end of a non-blocking stream socket pair, so an empty file gives
//! `EAGAIN` and a read takes what is held, cut anywhere. Masks travel the other way and are
//! fetched before each event. What a socket cannot imitate stands in the crate's documentation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::diag::SockDiag;
use super::{Control, Transport};

/// One send costs the sender's buffer up to 1 KiB of the kernel's book-keeping, however short.
const SEND_BUFFER_PER_LINE: usize = 1024;
/// The shortest line a driver writes: `3 1\n`.
const SHORTEST_LINE: usize = 4;
/// How long a `read()` that is under way is waited for; a reader that the scheduler took off
/// the processor in the middle of one comes back within this.
const PATIENCE: Duration = Duration::from_millis(4);

/// How the unread bytes of the client's end are counted.
enum Gauge {
    /// By inode, holding nothing.
    Diag { diag: Arc<SockDiag>, inode: u64 },
    /// Where the kernel cannot tell: through a descriptor of our own, at the price of not
    /// noticing that the client closed its end.
    Duplicate(OwnedFd),
}

impl Gauge {
    fn unread(&self) -> io::Result<usize> {
        match self {
            Gauge::Diag { diag, inode } => diag.unread(*inode),
            Gauge::Duplicate(end) => {
                let unread = rustix::io::ioctl_fionread(end)?;
                usize::try_from(unread).map_err(|_| io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// The driver's end of a socket pair.
pub(crate) struct SocketTransport {
    driver_end: OwnedFd,
    gauge: Gauge,
    patience: Duration,
    /// What the operating system had no buffer for yet, to be sent before all else.
    backlog: Vec<u8>,
}

impl SocketTransport {
    /// A new pair: the driver's end and the client's.
    pub(crate) fn open(
        capacity: usize,
        diag: Option<Arc<SockDiag>>,
    ) -> io::Result<(Self, OwnedFd)> {
        let (driver_end, client_end) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        grow_send_buffer(driver_end.as_fd(), capacity);
        let inode = rustix::fs::fstat(&client_end)?.st_ino;
        let gauge = match diag.filter(|diag| diag.unread(inode).is_ok()) {
            Some(diag) => Gauge::Diag { diag, inode },
            None => Gauge::Duplicate(rustix::io::fcntl_dupfd_cloexec(&client_end, 3)?),
        };
        // The driver hands out its file without FD_CLOEXEC.
        rustix::io::fcntl_setfd(&client_end, rustix::io::FdFlags::empty())?;
        let transport =
            SocketTransport { driver_end, gauge, patience: PATIENCE, backlog: Vec::new() };
        Ok((transport, client_end))
    }

    /// Counts what is unread once no `read()` is under way.
    ///
    /// The driver's FIFO is locked while it is read; a socket is not, and lines put into the room
    /// that half a read made would come out of that same read, which then returned more than
    /// the FIFO holds. A reader whose buffer is large enough leaves nothing, so what is left is
    /// waited for; a reader that really takes less wears the patience out.
    fn settled(&mut self, at_most: usize) -> io::Result<usize> {
        let mut unread = self.gauge.unread()?;
        if unread == 0 || unread + self.backlog.len() >= at_most {
            return Ok(unread);
        }
        let start = Instant::now();
        loop {
            std::thread::yield_now();
            unread = self.gauge.unread()?;
            if unread == 0 {
                self.patience = PATIENCE;
                return Ok(0);
            }
            if start.elapsed() >= self.patience {
                self.patience /= 2;
                return Ok(unread);
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::io::retry_on_intr(|| rustix::net::send(&self.driver_end, bytes, flags)) {
            // A socket full of short messages: the rest waits here.
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(0),
            result => result,
        }
    }

    fn send_backlog(&mut self) -> Result<(), Errno> {
        if !self.backlog.is_empty() {
            let sent = self.send(&self.backlog)?;
            self.backlog.drain(..sent);
        }
        Ok(())
    }
}

/// Makes room for a FIFO full of the shortest lines, as far as the system lets us.
fn grow_send_buffer(socket: BorrowedFd<'_>, capacity: usize) {
    let bytes = capacity / SHORTEST_LINE * SEND_BUFFER_PER_LINE;
    if rustix::net::sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        // Without CAP_NET_ADMIN the kernel takes what net.core.wmem_max allows.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes);
    }
}

impl Transport for SocketTransport {
    fn control(&mut self) -> Control {
        let mut control = Control { closed: self.send_backlog().is_err(), ..Control::default() };
        let mut buffer = [0u8; 64];
        loop {
            match rustix::net::recv(&self.driver_end, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    control.closed = true;
                    break;
                }
                Ok((taken, _)) => {
                    let newest = buffer[..taken].chunks_exact(8).next_back();
                    control.mask = newest
                        .and_then(|mask| mask.try_into().ok().map(u64::from_ne_bytes))
                        .or(control.mask);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    control.closed = true;
                    break;
                }
            }
        }
        control
    }

    fn held(&mut self, at_most: usize) -> io::Result<usize> {
        self.send_backlog()?;
        Ok(self.settled(at_most)? + self.backlog.len())
    }

    fn push(&mut self, lines: &[u8]) -> io::Result<()> {
        self.send_backlog()?;
        let sent = if self.backlog.is_empty() { self.send(lines)? } else { 0 };
        self.backlog.extend_from_slice(&lines[sent..]);
        Ok(())
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.driver_end.as_fd())
    }

    fn lags(&self) -> bool {
        !self.backlog.is_empty()
    }
}

impl Drop for SocketTransport {
    fn drop(&mut self) {
        // A mask left unread would turn the client's end of file into ECONNRESET.
        self.control();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &OwnedFd, size: usize) -> Vec<u8> {
        let mut buffer = vec![0; size];
        let taken = rustix::io::read(file, &mut buffer).unwrap_or(0);
        buffer.truncate(taken);
        buffer
    }

    #[test]
    fn what_the_system_has_no_buffer_for_waits_and_comes_in_order() {
        let (mut transport, client) = SocketTransport::open(8192, None).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&transport.driver_end, 4096).unwrap();
        let lines: Vec<String> = (1000..1500).map(|number| format!("2 1:{number}\n")).collect();
        for line in &lines {
            transport.push(line.as_bytes()).unwrap();
        }
        assert!(transport.lags());
        assert_eq!(transport.held(usize::MAX).unwrap(), lines.concat().len());
        let mut all = Vec::new();
        while all.len() < lines.concat().len() {
            all.extend(read(&client, 1 << 16));
            transport.control();
        }
        assert_eq!(all, lines.concat().into_bytes());
        assert!(!transport.lags());
    }

    #[test]
    fn without_sock_diag_unread_bytes_are_counted_too() {
        let (mut transport, client) = SocketTransport::open(1024, None).unwrap();
        transport.push(b"2 400:7\n").unwrap();
        assert_eq!(transport.held(8).unwrap(), 8);
        assert_eq!(read(&client, 3), b"2 4");
        assert_eq!(transport.held(8).unwrap(), 5);
        assert_eq!(read(&client, 100), b"00:7\n");
        assert_eq!(transport.held(8).unwrap(), 0);
    }

    #[test]
    fn a_closed_end_is_an_error_where_it_can_be_seen() {
        let diag = SockDiag::open().map(Arc::new).unwrap();
        let (mut transport, client) = SocketTransport::open(1024, Some(diag)).unwrap();
        drop(client);
        assert!(transport.control().closed);
        assert!(transport.held(0).is_err() && transport.push(b"x").is_err());
    }
}
