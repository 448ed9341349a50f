//! Event files by FUSE: the reads and writes of a program arrive here as requests, and get the
//! driver's own answers.
//!
//! A thread serves the requests from `/dev/fuse`. It has a table of descriptors of its own, in
//! which `/dev/fuse` is all there is: whatever ends this process ends that thread, with it goes
//! the last reference to `/dev/fuse`, and the kernel fails what still waits. With the descriptor in
//! the common table a thread killed in a read would keep it open while waiting for an answer
//! that nobody is left to give.
//!
//! The mount is never attached to any directory. It exists by its descriptor alone.

mod mount;
mod protocol;
mod server;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::thread::UnshareFlags;

use self::mount::Failure;
use self::server::{Server, Shared};
use super::{Control, Transport};
use crate::kernel::Kernel;

/// The event files of one machine.
pub(crate) struct FuseFiles {
    shared: Arc<Shared>,
    /// The root of the file system.
    mount: OwnedFd,
    /// Wakes the server; when it is closed the server ends.
    wake: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
}

impl FuseFiles {
    /// Mounts the file system and starts to serve it.
    ///
    /// # Errors
    /// There is no FUSE for this user; the error says what is missing and what to do.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (wake, wakened) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let number = wakened.as_raw_fd();
        let (tell, told) = mpsc::channel();
        let server = thread::Builder::new().name("gpuev-sim-fuse".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || serve(&shared, number, &tell)
        })?;
        // Only when the thread has its own table may its end be closed in this one.
        let isolated = told.recv();
        drop(wakened);
        isolated.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        let mount = receive_mount(&wake)?;
        Ok(FuseFiles { shared, mount, wake: Some(wake), server: Some(server) })
    }

    /// A new event file of a driver's, opened by `pid`: the driver's end and the client's.
    pub(crate) fn open(
        self: &Arc<Self>,
        kernel: Kernel,
        pid: u32,
    ) -> io::Result<(FuseTransport, OwnedFd)> {
        let number = self.shared.add(kernel.read_bytes(), kernel.fifo_bytes(), pid);
        let transport = FuseTransport { files: Arc::clone(self), number };
        let name = protocol::file_name(number);
        // The driver hands out its file without FD_CLOEXEC.
        let file = rustix::fs::openat(&self.mount, name, OFlags::RDWR, Mode::empty())?;
        Ok((transport, file))
    }

    /// Waits until the server has woken all who are to be woken and answered all who wait.
    fn catch_up(&self) {
        let ticket = self.shared.ask_to_catch_up();
        self.wake();
        self.shared.wait_until_caught_up(ticket);
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // A full socket wakes it, too; a server that is gone needs no waking.
            let _ = rustix::net::send(wake, b"w", flags);
        }
    }
}

impl Drop for FuseFiles {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// The driver's end of one event file.
pub(crate) struct FuseTransport {
    files: Arc<FuseFiles>,
    number: u64,
}

impl Transport for FuseTransport {
    fn control(&mut self) -> Control {
        self.files.shared.control(self.number)
    }

    fn catch_up(&mut self) {
        self.files.catch_up();
    }

    fn held(&mut self, _at_most: usize) -> io::Result<usize> {
        Ok(self.files.shared.held(self.number))
    }

    fn drop_if_full(&mut self, len: usize) -> Option<bool> {
        Some(self.files.shared.drop_if_full(self.number, len))
    }

    fn fail_next_read(&mut self, errno: Errno) -> io::Result<()> {
        self.files.shared.fail_next_read(self.number, errno);
        Ok(())
    }

    fn push(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.files.shared.push(self.number, lines) {
            // The driver returns when the pollers are awake.
            self.files.catch_up();
        }
        Ok(())
    }
}

impl Drop for FuseTransport {
    fn drop(&mut self) {
        if self.files.shared.end(self.number) {
            self.files.wake();
        }
    }
}

/// The thread's life.
fn serve(shared: &Shared, number: RawFd, tell: &mpsc::Sender<io::Result<()>>) {
    let outcome = isolate(number);
    let isolated = outcome.is_ok();
    let _ = tell.send(outcome.map_err(io::Error::from));
    if !isolated {
        return;
    }
    // SAFETY: in this thread's table the number is this thread's alone.
    let wakened = unsafe { OwnedFd::from_raw_fd(number) };
    match mount::mount() {
        Ok((fuse, mount)) => {
            if tell_of_mount(&wakened, Ok(mount.as_fd())).is_ok() {
                drop(mount);
                Server::new(shared, fuse, wakened).serve();
            }
        }
        Err(failure) => {
            let _ = tell_of_mount(&wakened, Err(failure));
        }
    }
    shared.close();
}

/// Gives the calling thread a table of descriptors in which there are only the standard ones
/// and `kept`.
fn isolate(kept: RawFd) -> rustix::io::Result<()> {
    // SAFETY: from here on the thread uses no descriptor but `kept` and those it makes, and owns
    // no object that holds one.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    let kept = kept.unsigned_abs();
    let first = 3;
    if kept > first {
        close_range(first, kept - 1)?;
    }
    close_range(kept.max(first - 1) + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> rustix::io::Result<()> {
    // SAFETY: closes descriptors in the table of a thread that has no use for them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        return Ok(());
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(rustix::io::Errno::from_raw_os_error(errno))
}

fn tell_of_mount(
    socket: &OwnedFd,
    outcome: Result<BorrowedFd<'_>, Failure>,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let mounts = [outcome.unwrap_or(socket.as_fd())];
    if outcome.is_ok() {
        ancillary.push(SendAncillaryMessage::ScmRights(&mounts));
    }
    let report = outcome.err().map_or([0; Failure::BYTES], Failure::to_bytes);
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(&report)], &mut ancillary, flags)?;
    Ok(())
}

fn receive_mount(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut report = [0; Failure::BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut report)];
        rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mount = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    mount.ok_or_else(|| Failure::from_bytes(report).into())
}
