//! The event file of one GPU.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::EventMask;
use crate::framing;

/// Room for one read: the largest FIFO (8192 bytes since Linux 6.13) twice, so that a read takes all that
/// is held even where a later kernel holds more.
const READ_SIZE: usize = 16 * 1024;
/// The size that the buffer has as a rule: a read behind the tail of another.
const USUAL_SIZE: usize = 2 * READ_SIZE;

/// An open event file and the bytes read from it that are not yet handed out.
///
/// Reading never waits: wait with `poll` or `epoll` on [`AsFd`]. Then [`read`](Self::read) once and take
/// messages with [`next_message`](Self::next_message) until there is none; a torn tail stays for the next
/// read. Dropping it closes the file.
#[derive(Debug)]
pub struct EventFile {
    /// `None` once closed.
    fd: Option<OwnedFd>,
    /// Allocated by the first read: a file that never fires costs nothing.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    drained: bool,
}

impl EventFile {
    /// Takes an event file that the driver handed out, and sees that programs started from here do not
    /// inherit it (`FD_CLOEXEC`).
    ///
    /// # Errors
    /// That of `fcntl`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { fd: Some(fd), buffer: Vec::new(), start: 0, end: 0, drained: false })
    }

    /// Sets which events the driver queues from now on; those already queued stay.
    ///
    /// # Errors
    /// That of `write`; `WriteZero` where the driver did not take the mask whole. Exactly eight bytes are
    /// written in one call: the driver would take a rest as another mask.
    pub fn set_mask(&self, mask: EventMask) -> io::Result<()> {
        let bytes = mask.bits().to_ne_bytes();
        let fd = self.open()?;
        match rustix::io::retry_on_intr(|| rustix::io::write(fd, &bytes))? {
            8 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::WriteZero, "the driver took part of the mask")),
        }
    }

    /// Reads once and gives the number of bytes that were new; 0 where the driver holds nothing (`EAGAIN`).
    ///
    /// # Errors
    /// `UnexpectedEof` where the file has ended, which the driver never does: the GPU is gone. Any other
    /// error of `read`, `EINTR` retried.
    pub fn read(&mut self) -> io::Result<usize> {
        self.make_room();
        let fd = self.fd.as_ref().ok_or_else(closed)?;
        let room = &mut self.buffer[self.end..self.end + READ_SIZE];
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *room)) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
                self.drained = false;
                Ok(count)
            }
            Err(rustix::io::Errno::AGAIN) => {
                self.drained = true;
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes the next read can take. A read that returns less took all that the driver held, except
    /// on drivers that read at most eight bytes.
    #[must_use]
    pub fn read_size() -> usize {
        READ_SIZE
    }

    /// Says that the driver holds nothing more: the last read took all. What is left in the buffer and
    /// long enough to be an over-long message is then handed out as one.
    pub fn set_drained(&mut self) {
        self.drained = true;
    }

    /// The next whole message, its newline included; `None` until more is read.
    pub fn next_message(&mut self) -> Option<&[u8]> {
        let length = self.next_length()?;
        Some(self.take(length))
    }

    /// The length in bytes of the next whole message, which is the front of [`pending`](Self::pending).
    #[must_use]
    pub fn next_length(&self) -> Option<usize> {
        framing::message_length(self.pending(), self.drained)
    }

    /// Takes the first `length` bytes of [`pending`](Self::pending), or all where there are fewer: a message,
    /// or several that turned out to be one.
    pub fn take(&mut self, length: usize) -> &[u8] {
        let message = self.start..self.end.min(self.start + length);
        self.start = message.end;
        &self.buffer[message]
    }

    /// The bytes that were read and not yet handed out: after the last message, the torn tail.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Closes the file. What was read stays.
    pub fn close(&mut self) {
        self.fd = None;
    }

    fn open(&self) -> io::Result<&OwnedFd> {
        self.fd.as_ref().ok_or_else(closed)
    }

    /// Makes room for one read. The caller may have taken no message since the last one; the buffer then grows, which
    /// is the caller's choice. What it has grown to beyond [`USUAL_SIZE`] is given back once all is taken.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > USUAL_SIZE {
                self.buffer = Vec::new();
            }
        } else if self.start >= self.buffer.len() / 2 {
            // Each byte is moved once for a byte that was taken.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + READ_SIZE {
            let size = (self.end + READ_SIZE).max(USUAL_SIZE).next_power_of_two();
            self.buffer.resize(size, 0);
        }
    }
}

fn closed() -> io::Error {
    rustix::io::Errno::BADF.into()
}

impl AsFd for EventFile {
    /// The file.
    ///
    /// # Panics
    /// After [`close`](EventFile::close): there is no file any more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("a closed event file should not be polled").as_fd()
    }
}
