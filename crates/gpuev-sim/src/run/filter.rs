//! The seccomp filter: which system calls of the program the supervisor gets to see.
//!
//! A dozen instructions of classic BPF, written by hand. Everything but ioctls of the KFD and
//! DRM kind passes at full speed; an ioctl is told by its number alone, so the supervisor
//! checks whose device it is meant for.

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
/// Low half of the second argument; the kernel takes an ioctl's number as 32 bits.
const DATA_IOCTL: u32 = 24;

/// The size field of an ioctl number. Console ioctls share the letter K but have no size.
const IOCTL_SIZE: u32 = 0x3FFF_0000;
const IOCTL_TYPE: u32 = 0x0000_FF00;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
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
#[allow(clippy::cast_possible_truncation)]
const SYS_IOCTL: u32 = libc::SYS_ioctl as u32;

/// The filter. Jumps count the instructions to skip.
const FILTER: [libc::sock_filter; 11] = [
    op(LOAD, DATA_ARCH),
    jump(JUMP_IF_EQUAL, NATIVE_ARCH, 0, 7),
    op(LOAD, DATA_NR),
    jump(JUMP_IF_EQUAL, SYS_IOCTL, 0, 5),
    op(LOAD, DATA_IOCTL),
    jump(JUMP_IF_ANY_BIT, IOCTL_SIZE, 0, 3),
    op(AND, IOCTL_TYPE),
    jump(JUMP_IF_EQUAL, (KFD_TYPE as u32) << 8, 2, 0),
    jump(JUMP_IF_EQUAL, (DRM_TYPE as u32) << 8, 1, 0),
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
