//! The kernel's side of supervision: taking a notified call and answering it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `SECCOMP_IOCTL_NOTIF_ID_VALID` as fixed in 5.17; the older number had the direction wrong.
const ID_VALID: libc::Ioctl = 0x4008_2102;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, as wide as the field it goes to. Linux 5.5.
const CONTINUE: u32 = 1;

/// One system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    id: u64,
    /// The calling thread, as this process numbers it; 0 if it cannot be seen from here.
    pub(super) thread: u32,
    pub(super) what: What,
}

/// Which system call it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Ioctl(Ioctl),
    /// The address of the path in the caller's memory, and the descriptor that it starts at.
    Open {
        directory: i32,
        path: u64,
    },
}

/// An ioctl.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ioctl {
    /// The descriptor, in the caller's table.
    pub(super) fd: i32,
    /// The number.
    pub(super) request: u32,
    /// The argument: an address in the caller's memory.
    pub(super) argument: u64,
}

impl What {
    /// The kernel takes descriptors and numbers as 32 bits.
    #[allow(clippy::cast_possible_truncation)]
    fn of(data: &libc::seccomp_data) -> Self {
        let [first, second, third, ..] = data.args;
        match libc::c_long::from(data.nr) {
            libc::SYS_ioctl => {
                What::Ioctl(Ioctl { fd: first as i32, request: second as u32, argument: third })
            }
            libc::SYS_openat | libc::SYS_openat2 => {
                What::Open { directory: first as i32, path: second }
            }
            // `open`, where there is one.
            _ => What::Open { directory: libc::AT_FDCWD, path: first },
        }
    }
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It returns this.
    Return(i64),
    /// It fails with this errno.
    Fail(i32),
    /// The kernel runs it as if nobody had looked.
    Continue,
}

/// The supervisor's end of a filter.
pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Listener(fd)
    }

    /// The next call, if it still waits.
    ///
    /// # Errors
    /// What `SECCOMP_IOCTL_NOTIF_RECV` gives; a caller that was killed in between is `None`.
    pub(super) fn receive(&self) -> io::Result<Option<Notice>> {
        // SAFETY: plain integers; the kernel wants them zeroed.
        let mut raw: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the request's number names the size of `raw`, which the kernel fills.
        let done = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw)
        };
        if done < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => Ok(None),
                _ => Err(error),
            };
        }
        Ok(Some(Notice { id: raw.id, thread: raw.pid, what: What::of(&raw.data) }))
    }

    /// Whether the call still waits, so that what was found under its thread's number was its.
    pub(super) fn still_waits(&self, notice: &Notice) -> bool {
        // SAFETY: the kernel reads 8 bytes from `id`.
        unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID, &raw const notice.id) == 0 }
    }

    /// Puts a copy of `file` into the caller's descriptors, without `FD_CLOEXEC`; its number there.
    ///
    /// # Errors
    /// What the caller's own `open` would give, such as `EMFILE`.
    pub(super) fn inject(&self, notice: &Notice, file: BorrowedFd<'_>) -> io::Result<u32> {
        let wish = libc::seccomp_notif_addfd {
            id: notice.id,
            flags: 0,
            srcfd: file.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: 0,
        };
        // SAFETY: the request's number names the size of `wish`, which the kernel only reads;
        // `file` stays open for the call.
        let number = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const wish)
        };
        u32::try_from(number).map_err(|_| io::Error::last_os_error())
    }

    /// Ends the call. A caller that is gone by now needs no answer.
    pub(super) fn answer(&self, notice: &Notice, answer: Answer) {
        let mut response = libc::seccomp_notif_resp { id: notice.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Return(value) => response.val = value,
            Answer::Fail(errno) => response.error = -errno,
            Answer::Continue => response.flags = CONTINUE,
        }
        // SAFETY: the request's number names the size of `response`, which the kernel only reads.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
