//! The seccomp filter: which system calls of the program the supervisor gets to see.
//!
//! Some instructions of classic BPF, written by hand. Everything passes at full speed but ioctls of
//! the KFD and DRM kind and opens of files for reading and writing, which is how
//! `/dev/kfd` is opened. An ioctl is told by its number alone and an open by its flags, so the
//! supervisor checks whose device it is meant for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Type byte of every KFD ioctl (`AMDKFD_IOCTL_BASE`).
pub(super) const KFD_TYPE: u8 = b'K';
/// Type byte of every DRM ioctl (`DRM_IOCTL_BASE`).
pub(super) const DRM_TYPE: u8 = b'd';

#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 0xC000_00B7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("gpuev-sim's seccomp filter is written for x86_64 and aarch64");

/// Offsets into `struct seccomp_data`.
const DATA_NR: u32 = 0;
const DATA_ARCH: u32 = 4;
/// Low half of the second argument; the kernel takes an ioctl's number as 32 bits. The flags of
/// `open`.
const DATA_SECOND: u32 = 24;
/// Low half of the third argument: the flags of `openat`.
const DATA_THIRD: u32 = 32;

/// How a file is opened: for reading and writing, and it may have been there before.
#[allow(clippy::cast_sign_loss)] // bits
const OPEN_MODE: u32 = (libc::O_ACCMODE | libc::O_EXCL | libc::O_DIRECTORY | libc::O_PATH) as u32;
#[allow(clippy::cast_sign_loss)]
const READ_WRITE: u32 = libc::O_RDWR as u32;

/// The size field of an ioctl number. Console ioctls share the letter K but have no size.
const IOCTL_SIZE: u32 = 0x3FFF_0000;
const IOCTL_TYPE: u32 = 0x0000_FF00;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

const fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// `seccomp_data` holds the number as an `int`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const SYS_IOCTL: u32 = libc::SYS_ioctl as u32;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const SYS_OPENAT: u32 = libc::SYS_openat as u32;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const SYS_OPENAT2: u32 = libc::SYS_openat2 as u32;
/// Newer architectures have no `open`; the number is none's.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const SYS_OPEN: u32 = libc::SYS_open as u32;
#[cfg(not(target_arch = "x86_64"))]
const SYS_OPEN: u32 = u32::MAX;

/// The filter. Jumps count the instructions to skip.
const FILTER: [libc::sock_filter; 19] = [
    op(LOAD, DATA_ARCH),
    jump(JUMP_IF_EQUAL, NATIVE_ARCH, 0, 15),
    op(LOAD, DATA_NR),
    jump(JUMP_IF_EQUAL, SYS_OPENAT, 8, 0),
    jump(JUMP_IF_EQUAL, SYS_OPEN, 9, 0),
    jump(JUMP_IF_EQUAL, SYS_OPENAT2, 12, 0),
    jump(JUMP_IF_EQUAL, SYS_IOCTL, 0, 10),
    // An ioctl.
    op(LOAD, DATA_SECOND),
    jump(JUMP_IF_ANY_BIT, IOCTL_SIZE, 0, 8),
    op(AND, IOCTL_TYPE),
    jump(JUMP_IF_EQUAL, (KFD_TYPE as u32) << 8, 7, 0),
    jump(JUMP_IF_EQUAL, (DRM_TYPE as u32) << 8, 6, 5),
    // An open.
    op(LOAD, DATA_THIRD),
    op(JUMP, 1),
    op(LOAD, DATA_SECOND),
    op(AND, OPEN_MODE),
    jump(JUMP_IF_EQUAL, READ_WRITE, 1, 0),
    op(RETURN, ALLOW),
    op(RETURN, NOTIFY),
];

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: once the supervisor has taken a call, only a
/// deadly signal interrupts it, so that no event file is injected twice. Linux 5.19.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// Puts the filter on the calling thread and all it will start; the supervisor's end.
///
/// Async-signal-safe.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` in the own user namespace and without `no_new_privs`,
/// `EBUSY` when a filter with a supervisor is in place already.
pub(super) fn install() -> io::Result<OwnedFd> {
    match install_with(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            install_with(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
        }
        answer => answer,
    }
}

fn install_with(flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        #[allow(clippy::cast_possible_truncation)] // a dozen
        len: FILTER.len() as libc::c_ushort,
        filter: FILTER.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes `FILTER`, which lives for the whole program; the kernel only
    // reads it.
    let fd = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match i32::try_from(fd) {
        // SAFETY: with NEW_LISTENER a result that is not negative is a new descriptor that
        // nobody else knows.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
