//! How many bytes lie unread in a socket that belongs to somebody else.
//!
//! `NETLINK_SOCK_DIAG` answers by inode number, so no reference to the client's end is held
//! and its closing stays visible (`net/unix/diag.c`, needs `CONFIG_UNIX_DIAG`).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
/// `nlmsghdr` and `unix_diag_req`.
const REQUEST_BYTES: u32 = 16 + 24;
/// `nlmsghdr` and `unix_diag_msg`.
const ANSWER_HEAD: usize = 16 + 16;

/// An open question line to the kernel.
pub(crate) struct SockDiag {
    /// One question at a time: answers are not told apart.
    socket: Mutex<OwnedFd>,
}

impl SockDiag {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(SockDiag { socket: Mutex::new(socket) })
    }

    /// Bytes waiting to be read in the Unix socket with this inode number.
    ///
    /// # Errors
    /// `ENOENT` when the socket is gone; other errors when the kernel cannot answer.
    pub(crate) fn unread(&self, inode: u64) -> io::Result<usize> {
        let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidInput)?;
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::net::send(&*socket, &request(inode), SendFlags::empty())?;
        let mut answer = [0u8; 256];
        let (received, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&*socket, &mut answer[..], RecvFlags::empty())
        })?;
        unread_in(&answer[..received.min(answer.len())])
    }
}

fn request(inode: u32) -> [u8; REQUEST_BYTES as usize] {
    let mut bytes = [0u8; REQUEST_BYTES as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &REQUEST_BYTES.to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    // AF_UNIX is 1; every state; no cookie.
    put(16, &[1]);
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &inode.to_ne_bytes());
    put(28, &UDIAG_SHOW_RQLEN.to_ne_bytes());
    put(32, &u64::MAX.to_ne_bytes());
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn unread_in(answer: &[u8]) -> io::Result<usize> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag gave an odd answer");
    if u16_at(answer, 4).ok_or_else(odd)? == NLMSG_ERROR {
        let errno = u32_at(answer, 16).ok_or_else(odd)?.wrapping_neg();
        return Err(io::Error::from_raw_os_error(i32::try_from(errno).map_err(|_| odd())?));
    }
    let mut at = ANSWER_HEAD;
    while let (Some(len), Some(kind)) = (u16_at(answer, at), u16_at(answer, at + 2)) {
        if kind == UNIX_DIAG_RQLEN {
            return Ok(u32_at(answer, at + 4).ok_or_else(odd)? as usize);
        }
        if len < 4 {
            break;
        }
        at += usize::from(len).next_multiple_of(4);
    }
    Err(odd())
}
