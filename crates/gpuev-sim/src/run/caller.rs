//! The process behind a notified call: who it is, what its descriptor is, its memory.
//!
//! All of it is looked up by thread number, so it counts only while the call is known to wait:
//! until its answer the thread cannot end but by being killed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::event::Pid;

/// Bit of `CAP_SYS_ADMIN` in a capability set.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Paths are read so many bytes at a time: a page is a multiple of it.
const PIECE: usize = 256;

/// What the kernel knows about the caller's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its thread group, as this process and as itself numbers it.
    pub(super) pid: Pid,
    /// `CAP_SYS_ADMIN` in the user namespace that this process is in.
    pub(super) cap_sys_admin: bool,
}

/// A thread that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(u32);

impl Caller {
    pub(super) fn new(thread: u32) -> Self {
        Caller(thread)
    }

    /// Which process it belongs to.
    ///
    /// # Errors
    /// `/proc/TID/status` cannot be read, or holds no process.
    pub(super) fn identity(self) -> io::Result<Identity> {
        let status = fs::read(format!("/proc/{}/status", self.0))?;
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "no process in /proc/TID/status");
        let host = number(field(&status, b"Tgid:").ok_or_else(odd)?).ok_or_else(odd)?;
        let namespaced = field(&status, b"NStgid:")
            .and_then(|list| list.rsplit(u8::is_ascii_whitespace).find_map(number))
            .unwrap_or(host);
        let effective = field(&status, b"CapEff:")
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .unwrap_or(0);
        let own = fs::read_link("/proc/self/ns/user").ok();
        let same_namespace =
            own.is_some() && fs::read_link(format!("/proc/{}/ns/user", self.0)).ok() == own;
        Ok(Identity {
            pid: Pid::in_namespace(host, namespaced),
            cap_sys_admin: same_namespace && effective & CAP_SYS_ADMIN != 0,
        })
    }

    /// The caller's `/dev/kfd`, by device and inode, if its `/dev` is that of the device `dev`.
    pub(super) fn kfd_node(self, dev: u64) -> Option<(u64, u64)> {
        let found = fs::metadata(format!("/proc/{}/root/dev/kfd", self.0)).ok()?;
        (found.dev() == dev).then(|| (found.dev(), found.ino()))
    }

    /// The file that a path of the caller leads to, by device and inode, if it is there.
    pub(super) fn file_at(self, directory: i32, path: u64) -> Option<(u64, u64)> {
        let path = self.path(path)?;
        let start = match directory {
            libc::AT_FDCWD => "cwd".to_owned(),
            directory => format!("fd/{directory}"),
        };
        let place = match path.strip_prefix("/") {
            Ok(inside) => PathBuf::from(format!("/proc/{}/root", self.0)).join(inside),
            Err(_) => PathBuf::from(format!("/proc/{}/{start}", self.0)).join(path),
        };
        let found = fs::metadata(place).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// A path in the caller's memory, read up to the ends of pages, since what lies behind it need
    /// not be readable.
    fn path(self, address: u64) -> Option<PathBuf> {
        let mut bytes = Vec::new();
        while bytes.len() < libc::PATH_MAX.unsigned_abs() as usize {
            let at = address.checked_add(bytes.len() as u64)?;
            let mut piece = [0; PIECE];
            let room = PIECE - usize::try_from(at % PIECE as u64).ok()?;
            self.read(at, &mut piece[..room]).ok()?;
            let end = piece[..room].iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&piece[..end.unwrap_or(room)]);
            if end.is_some() {
                return Some(PathBuf::from(OsString::from_vec(bytes)));
            }
        }
        None
    }

    /// How a descriptor of the caller was opened (`O_ACCMODE`).
    pub(super) fn access(self, fd: i32) -> Option<i32> {
        let info = fs::read(format!("/proc/{}/fdinfo/{fd}", self.0)).ok()?;
        let flags = std::str::from_utf8(field(&info, b"flags:")?).ok()?;
        Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE)
    }

    /// Where a descriptor of the caller leads to, if it is a file of the device `dev`.
    pub(super) fn path_on(self, fd: i32, dev: u64) -> Option<PathBuf> {
        let link = format!("/proc/{}/fd/{fd}", self.0);
        let found = fs::metadata(&link).ok()?.dev();
        if found == dev { fs::read_link(&link).ok() } else { None }
    }

    /// Copies from the caller's memory.
    ///
    /// # Errors
    /// `EFAULT` where it has no readable memory.
    pub(super) fn read(self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        self.copy(Direction::FromCaller, local, address)
    }

    /// Copies into the caller's memory.
    ///
    /// # Errors
    /// `EFAULT` where it has no writable memory.
    pub(super) fn write(self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let local =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        self.copy(Direction::ToCaller, local, address)
    }

    fn copy(self, direction: Direction, local: libc::iovec, address: u64) -> io::Result<()> {
        let fault = || io::Error::from_raw_os_error(libc::EFAULT);
        let base = usize::try_from(address).map_err(|_| fault())?;
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(base),
            iov_len: local.iov_len,
        };
        let process = libc::pid_t::try_from(self.0).map_err(|_| fault())?;
        // SAFETY: `local` covers a buffer of this function's callers, mutable when it is
        // written to; `remote` is an address in the other process, which the kernel checks.
        let copied = unsafe {
            match direction {
                Direction::FromCaller => {
                    libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0)
                }
                Direction::ToCaller => {
                    libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0)
                }
            }
        };
        match usize::try_from(copied) {
            Ok(copied) if copied == local.iov_len => Ok(()),
            Ok(_) => Err(fault()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    FromCaller,
    ToCaller,
}

fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
