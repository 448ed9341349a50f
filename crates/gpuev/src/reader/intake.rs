//! What was read from a driver and not yet handed out, read by read.
//!
//! Reading and handing out go their own ways: the driver's FIFO must be emptied while a name is looked up. Each
//! read keeps its moment and its size, so that what is handed out later is the same as at once.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gpuev_kfd::{EventFile, EventMask, KfdVersion, framing};

use crate::loss::FifoWatch;
use crate::time::Anchor;

/// Bytes after which a driver that gives little at a time is left for a moment, so that memory stays bounded.
const MOST_AT_ONCE: usize = 256 * 1024;

/// An event file and what was read from it.
#[derive(Debug)]
pub(super) struct Intake {
    file: EventFile,
    fifo: FifoWatch,
    reads_eight_bytes: bool,
    /// What messages are taken from now.
    current: Read,
    /// Bytes of the file's buffer up to the end of `current`.
    window: usize,
    /// Bytes at the window's front that are handed out: they stay in place until the next is asked for.
    drawn: usize,
    /// What was read after it.
    later: VecDeque<Read>,
    /// When the FIFO was last known to be empty.
    empty_boot_ns: u64,
    /// Nothing more will be read: what is left is a message, whole or not.
    ended: bool,
}

/// One read of the driver, or several in a row.
#[derive(Debug, Clone, Copy)]
struct Read {
    bytes: usize,
    /// Bytes of the largest single read.
    largest: usize,
    received: Anchor,
    /// The driver held no more.
    took_all: bool,
}

/// The next message, where it lies. Nothing is taken before [`take`](Self::take).
pub(super) struct Front<'a> {
    /// What may be handed out: the message is its front.
    window: &'a [u8],
    /// The message's length as far as newlines tell, its newline included.
    length: usize,
    /// When it was read.
    pub(super) received: Anchor,
    /// When the FIFO was last known to be empty before it.
    pub(super) empty_boot_ns: u64,
    fifo: &'a mut FifoWatch,
    drawn: &'a mut usize,
}

impl<'a> Front<'a> {
    /// The message.
    pub(super) fn message(&self) -> &'a [u8] {
        &self.window[..self.length]
    }

    /// What was read behind it.
    pub(super) fn following(&self) -> &'a [u8] {
        &self.window[self.length..]
    }

    /// Takes what follows for a part of the message, `more` bytes of it.
    pub(super) fn goes_on(&mut self, more: usize) {
        self.length += more;
    }

    /// Takes the message. Tells, once until the FIFO is next empty, when it is the first behind which one may be
    /// missing.
    pub(super) fn take(self) -> bool {
        *self.drawn = self.length;
        self.fifo.may_miss_next(self.length)
    }
}

impl Intake {
    /// Takes the event file that a driver of `version` opened.
    pub(super) fn new(fd: OwnedFd, version: KfdVersion) -> std::io::Result<Self> {
        let received = Anchor::now();
        Ok(Self {
            file: EventFile::new(fd)?,
            fifo: FifoWatch::new(version),
            reads_eight_bytes: version.may_read_eight_bytes(),
            current: Read { bytes: 0, largest: 0, received, took_all: true },
            window: 0,
            drawn: 0,
            later: VecDeque::new(),
            empty_boot_ns: received.boot_ns,
            ended: false,
        })
    }

    pub(super) fn set_mask(&self, mask: EventMask) -> std::io::Result<()> {
        self.file.set_mask(mask)
    }

    /// The size in bytes of the driver's FIFO, as far as known.
    pub(super) fn fifo_capacity(&self) -> usize {
        self.fifo.capacity()
    }

    /// Reads once, and on drivers that give eight bytes a read until there is nothing more; gives the number
    /// of new bytes.
    pub(super) fn fill(&mut self) -> std::io::Result<usize> {
        self.release();
        let received = self.current.received;
        let mut read = Read { bytes: 0, largest: 0, received, took_all: false };
        let mut ended = None;
        while !read.took_all && read.bytes < MOST_AT_ONCE {
            let count = match self.file.read() {
                Ok(count) => count,
                Err(error) => {
                    self.ended = true;
                    ended = Some(error);
                    break;
                }
            };
            read.bytes += count;
            read.largest = read.largest.max(count);
            let may_hold_more = count == EventFile::read_size() || self.reads_eight_bytes;
            read.took_all = count == 0 || !may_hold_more;
        }
        read.received = Anchor::now();
        match self.later.back_mut() {
            _ if ended.is_some() && read.bytes == 0 => {}
            // That there is nothing more says that the read before it took all.
            Some(before) if read.bytes == 0 => before.took_all = true,
            _ => self.later.push_back(read),
        }
        ended.map_or(Ok(read.bytes), Err)
    }

    /// Whether the driver held no more at the last read.
    pub(super) fn took_all(&self) -> bool {
        self.later.back().unwrap_or(&self.current).took_all
    }

    /// Whether nothing more will be read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Says that nothing more will be read.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes that are not handed out yet.
    pub(super) fn held(&self) -> usize {
        self.file.pending().len() - self.drawn
    }

    /// The next message; `None` where a read is due.
    pub(super) fn front(&mut self) -> Option<Front<'_>> {
        self.release();
        let length = self.next_length()?;
        Some(Front {
            window: &self.file.pending()[..self.window],
            length,
            received: self.current.received,
            empty_boot_ns: self.empty_boot_ns,
            fifo: &mut self.fifo,
            drawn: &mut self.drawn,
        })
    }

    /// The length of the next message, its newline included.
    fn next_length(&mut self) -> Option<usize> {
        loop {
            let window = &self.file.pending()[..self.window];
            let length = framing::message_length(window, self.current.took_all);
            if length.is_some() {
                return length;
            }
            if !self.go_on() {
                return Some(self.window).filter(|left| self.ended && *left > 0);
            }
        }
    }

    /// Lets go of what was handed out.
    fn release(&mut self) {
        let drawn = std::mem::take(&mut self.drawn);
        self.window -= drawn;
        self.file.take(drawn);
    }

    /// Goes on to the read behind the current one, of which no message is left.
    fn go_on(&mut self) -> bool {
        if self.current.took_all {
            // What comes next was queued after that read.
            self.fifo.emptied();
            self.empty_boot_ns = self.current.received.boot_ns;
        }
        let Some(next) = self.later.pop_front() else { return false };
        self.fifo.read(next.bytes, next.largest);
        self.window += next.bytes;
        self.current = next;
        true
    }
}

impl AsFd for Intake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_read_of_nothing_tells_that_the_read_before_took_all() {
        let (mut driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        // Doubled by the kernel: room for all of it.
        rustix::net::sockopt::set_socket_send_buffer_size(&driver, MOST_AT_ONCE).unwrap();
        let mut intake = Intake::new(file.into(), KfdVersion { major: 1, minor: 23 }).unwrap();
        driver.write_all(&b"2 400:7\n".repeat(MOST_AT_ONCE / 8)).unwrap();
        assert_eq!(intake.fill().unwrap(), MOST_AT_ONCE);
        assert!(!intake.took_all(), "there may be more");
        assert_eq!(intake.fill().unwrap(), 0);
        assert!(intake.took_all());
    }
}
