//! The two ioctls of `/dev/kfd` that events need.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::ioctl::{Getter, Updater, opcode};

/// The version of the driver's ioctl interface (`KFD_IOCTL_MAJOR_VERSION`, `..._MINOR_VERSION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KfdVersion {
    /// Grows when the interface breaks; 1 so far.
    pub major: u32,
    /// Grows with each addition.
    pub minor: u32,
}

impl KfdVersion {
    /// The first version with SMI events (Linux 5.8).
    pub const FIRST_WITH_EVENTS: Self = Self { major: 1, minor: 3 };
    /// The first version with page fault, migration and queue events (Linux 6.0).
    pub const FIRST_WITH_SVM_EVENTS: Self = Self { major: 1, minor: 10 };

    /// The smallest size in bytes that the event FIFO of a driver of this version may have. Linux 6.13
    /// raised it from 1024 to 8192 without a new version, so up to 1.17 this is 1024 until a larger read
    /// proves otherwise.
    #[must_use]
    pub fn smallest_fifo(self) -> usize {
        if self > (Self { major: 1, minor: 17 }) { 8192 } else { 1024 }
    }

    /// Whether a driver of this version may return at most 8 bytes a read (a `sizeof` of a pointer in
    /// `kfd_smi_ev_read`, mended in January 2022).
    #[must_use]
    pub fn may_read_eight_bytes(self) -> bool {
        self < Self::FIRST_WITH_SVM_EVENTS
    }
}

impl fmt::Display for KfdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// `struct kfd_ioctl_get_version_args`.
#[repr(C)]
#[derive(Clone, Copy)]
struct GetVersionArgs {
    major_version: u32,
    minor_version: u32,
}

/// `struct kfd_ioctl_smi_events_args`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SmiEventsArgs {
    gpuid: u32,
    anon_fd: u32,
}

/// `AMDKFD_IOC_GET_VERSION`.
pub const GET_VERSION: u32 = opcode::read::<GetVersionArgs>(b'K', 0x01);
/// `AMDKFD_IOC_SMI_EVENTS`.
pub const SMI_EVENTS: u32 = opcode::read_write::<SmiEventsArgs>(b'K', 0x1f);

/// Asks an open `/dev/kfd` for the version of its interface.
///
/// # Errors
/// `ENOTTY` where the file is not a KFD device; `EBADF` in a child that inherited it.
#[allow(unsafe_code)]
pub fn get_version(kfd: impl AsFd) -> io::Result<KfdVersion> {
    // SAFETY: GET_VERSION writes exactly one `kfd_ioctl_get_version_args`, which `GetVersionArgs` mirrors
    // (checked against the C header by a test); every bit pattern is valid for its integers.
    let args =
        unsafe { rustix::ioctl::ioctl(kfd, Getter::<{ GET_VERSION }, GetVersionArgs>::new())? };
    Ok(KfdVersion { major: args.major_version, minor: args.minor_version })
}

/// Opens the event file of the GPU with KFD's number `gpu_id`. The kernel hands it out without
/// `FD_CLOEXEC`; it is set here at once. No event arrives before a mask is written.
///
/// Whoever calls this is the owner of the file for its life: the driver decides by the caller's process
/// and `CAP_SYS_ADMIN`, now, whose events it will show.
///
/// # Errors
/// `EINVAL` for a `gpu_id` that the driver does not know, `EPERM`/`EACCES` where access is refused,
/// `ENOTTY` or `EINVAL` before KFD 1.3, `EMFILE`.
#[allow(unsafe_code)]
pub fn open_event_file(kfd: impl AsFd, gpu_id: u32) -> io::Result<OwnedFd> {
    let mut args = SmiEventsArgs { gpuid: gpu_id, anon_fd: u32::MAX };
    // SAFETY: SMI_EVENTS reads and writes exactly one `kfd_ioctl_smi_events_args`, which `SmiEventsArgs`
    // mirrors; `args` is exclusively borrowed for the call.
    unsafe {
        rustix::ioctl::ioctl(kfd, Updater::<{ SMI_EVENTS }, SmiEventsArgs>::new(&mut args))?;
    }
    let raw = RawFd::try_from(args.anon_fd)
        .map_err(|_| io::Error::other("the driver answered SMI_EVENTS without a file"))?;
    // SAFETY: the call succeeded, so the driver has just created this descriptor for us and nobody else
    // knows its number.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}
