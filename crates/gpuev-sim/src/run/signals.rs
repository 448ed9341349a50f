//! Signals while a program runs in the foreground: the program decides, this process waits.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal};

/// What is passed on to the program.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// A descriptor of the program's process; -1 while there is none.
static PROGRAM: AtomicI32 = AtomicI32::new(-1);
/// A signal that came before the program did; 0 for none.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// While it lives, signals to this process reach the program instead.
///
/// There is one such program at a time; a second guard takes over from the first.
pub(super) struct Forwarding {
    before: Vec<(libc::c_int, libc::sigaction)>,
    program: Option<OwnedFd>,
}

impl Forwarding {
    /// Starts to hold signals back.
    ///
    /// # Errors
    /// `sigaction` fails.
    pub(super) fn start() -> io::Result<Self> {
        EARLY.store(0, Ordering::SeqCst);
        let mut forwarding = Forwarding { before: Vec::new(), program: None };
        for signal in FORWARDED {
            if is_ignored(signal)? {
                continue;
            }
            // SAFETY: all-zero is a valid sigaction.
            let mut action: libc::sigaction = unsafe { mem::zeroed() };
            action.sa_sigaction = pass_on as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: as above.
            let mut before: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: both point to valid structures, and `pass_on` does only what a signal
            // handler may.
            if unsafe { libc::sigaction(signal, &raw const action, &raw mut before) } != 0 {
                return Err(io::Error::last_os_error());
            }
            forwarding.before.push((signal, before));
        }
        Ok(forwarding)
    }

    /// From now on signals go to this process, those held back first.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn to(&mut self, process: u32) -> io::Result<()> {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let program = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        PROGRAM.store(program.as_raw_fd(), Ordering::SeqCst);
        self.program = Some(program);
        let early = EARLY.swap(0, Ordering::SeqCst);
        if early != 0 {
            send(early);
        }
        Ok(())
    }
}

/// Whether whoever started this process had `signal` ignored: then it stays so, here and in the program, which inherits it.
fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: without a new action the call only writes to a valid structure.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: `before` is what sigaction itself gave.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
        PROGRAM.store(-1, Ordering::SeqCst);
    }
}

/// The handler. A key such as Ctrl-C sends its signal to the whole foreground group, the program
/// among it, so only what somebody sent to this process alone is passed on.
extern "C" fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel gives a valid pointer.
    let from_kernel = unsafe { (*info).si_code } == libc::SI_KERNEL;
    if !from_kernel {
        send(signal);
    }
}

/// Async-signal-safe: atomics and one system call that leaves `errno` alone.
fn send(signal: libc::c_int) {
    let program = PROGRAM.load(Ordering::SeqCst);
    if program < 0 {
        EARLY.store(signal, Ordering::SeqCst);
        return;
    }
    if let Some(signal) = Signal::from_named_raw(signal) {
        // SAFETY: the descriptor is closed only after the handlers are gone.
        let program = unsafe { BorrowedFd::borrow_raw(program) };
        let _ = rustix::process::pidfd_send_signal(program, signal);
    }
}
