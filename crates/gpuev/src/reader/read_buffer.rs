//! What was read from a driver and not yet handed out, read by read.
//!
//! Reading and handing out go their own ways: the driver's FIFO must be emptied while a name is looked up. Each
//! read keeps its moments, its size and the masks behind it, so that what is handed out later is the same as at once.
//!
//! A read has two times. The driver copies the FIFO somewhere between them, and this thread may stand still on either
//! side: what is received was there *before* the later one, and what is missing happened *after* the earlier one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gpuev_kfd::{EventFile, EventMask, framing};

use crate::loss::FifoWatch;
use crate::seam::{self, Moment};
use crate::time::{Anchor, boot_now_ns};

/// Bytes after which a driver that has more and more is left for a moment, so that memory stays bounded.
const MOST_AT_ONCE: usize = 256 * 1024;
/// Reads in a row that may fail before the file counts as broken: a second, as the draining thread retries.
const MOST_FAILURES: u32 = 100;

/// An event file and what was read from it.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    file: EventFile,
    fifo: FifoWatch,
    reads_eight_bytes: bool,
    /// What messages are taken from now.
    current: Read,
    /// Bytes of the file's buffer up to the end of `current`.
    window: usize,
    /// Bytes at the window's front that are handed out: they stay in place until the next is asked for.
    handed_out: usize,
    /// What was read after it.
    later: VecDeque<Read>,
    /// Nothing that was handed out so far is missing anything later than this: the FIFO was empty then, or a gap
    /// ends there.
    covered_boot_ns: u64,
    /// The FIFO was last empty at this moment or later, as far as it was read.
    emptied_boot_ns: u64,
    /// Nothing more will come, and the file has not said so in a read yet.
    ends: bool,
    /// Nothing more will be read: what is left is a message, whole or not.
    ended: bool,
    /// How many reads in a row have failed.
    failures: u32,
    /// What the driver is asked for.
    mask: EventMask,
    /// Every mask that was in force since the FIFO was last seen empty.
    possible: EventMask,
}

/// One read of the driver, or several in a row.
#[derive(Debug, Clone, Copy)]
struct Read {
    bytes: usize,
    /// Bytes of the largest single read.
    largest: usize,
    /// After the last read returned.
    received: Anchor,
    /// The last read took all that the driver held: a moment before that read.
    emptied_boot_ns: Option<u64>,
    /// Every mask under which the driver may have queued these bytes.
    possible: EventMask,
}

/// The next message, where it lies. Nothing is taken before [`take`](Self::take).
pub(super) struct Front<'a> {
    /// What may be handed out: the message is its front.
    window: &'a [u8],
    /// The message's length as far as newlines tell, its newline included.
    length: usize,
    /// When it was read.
    pub(super) received: Anchor,
    /// Every mask under which the driver may have queued it.
    pub(super) possible: EventMask,
    fifo: &'a mut FifoWatch,
    handed_out: &'a mut usize,
    covered_boot_ns: &'a mut u64,
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

    /// Everything before this moment was handed out or is covered by a gap.
    pub(super) fn covered_boot_ns(&self) -> u64 {
        *self.covered_boot_ns
    }

    /// Takes the message. Where it is the first of its read behind which one may be missing: the moment from which on.
    pub(super) fn take(self) -> Option<u64> {
        *self.handed_out = self.length;
        let covered = *self.covered_boot_ns;
        let may_miss = self.fifo.may_miss_next(self.length);
        if may_miss {
            // The gap that the caller makes of this ends at receipt.
            *self.covered_boot_ns = self.received.boot_ns;
        }
        may_miss.then_some(covered)
    }
}

impl ReadBuffer {
    /// Takes an event file. `possible` are the masks that it had before.
    pub(super) fn new(
        fd: OwnedFd,
        fifo: FifoWatch,
        reads_eight_bytes: bool,
        possible: EventMask,
    ) -> std::io::Result<Self> {
        let received = Anchor::now();
        let now = received.boot_ns;
        Ok(Self {
            file: EventFile::new(fd)?,
            fifo,
            reads_eight_bytes,
            current: Read { bytes: 0, largest: 0, received, emptied_boot_ns: Some(now), possible },
            window: 0,
            handed_out: 0,
            later: VecDeque::new(),
            covered_boot_ns: now,
            emptied_boot_ns: now,
            ends: false,
            ended: false,
            failures: 0,
            mask: EventMask::NONE,
            possible,
        })
    }

    /// What the driver is asked for.
    pub(super) fn mask(&self) -> EventMask {
        self.mask
    }

    /// Asks the driver for `mask` from now on, and for its count of what it dropped where it has one.
    pub(super) fn set_mask(&mut self, mask: EventMask) -> std::io::Result<()> {
        let asked = match mask {
            EventMask::NONE => mask,
            _ => mask.union(EventMask::DROPPED_EVENTS).of_all_processes(),
        };
        self.file.set_mask(asked)?;
        self.mask = mask;
        // What is queued under the mask before still comes.
        self.possible = self.possible.union(mask);
        Ok(())
    }

    /// The size in bytes of the driver's FIFO, as far as known.
    pub(super) fn fifo_capacity(&self) -> usize {
        self.fifo.capacity()
    }

    /// Reads until the driver holds nothing more, as far as one read can tell, and until it says so where events may
    /// have been dropped: then the driver may add a line in the read itself. Gives the number of new bytes.
    ///
    /// # Errors
    /// Where the file has ended, or reading fails again and again. Until then a read that fails is to be tried again:
    /// see [`must_retry`](Self::must_retry).
    pub(super) fn fill(&mut self) -> std::io::Result<usize> {
        self.release();
        let mut read = Read {
            bytes: 0,
            largest: 0,
            received: self.current.received,
            emptied_boot_ns: None,
            possible: self.possible,
        };
        let mut asks_until_empty = self.reads_eight_bytes || self.ends || !self.took_all();
        let mut failed = None;
        while read.emptied_boot_ns.is_none() && read.bytes < MOST_AT_ONCE {
            let before = boot_now_ns();
            let count = match seam::pass(Moment::BeforeRead).and_then(|()| self.file.read()) {
                Ok(count) => count,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            read.bytes += count;
            read.largest = read.largest.max(count);
            asks_until_empty |= count == EventFile::read_size() || self.fifo.is_suspicious(count);
            if count == 0 || !asks_until_empty {
                read.emptied_boot_ns = Some(before);
            }
        }
        let _nothing_to_fail = seam::pass(Moment::AfterRead);
        read.received = Anchor::now();
        self.keep(read);
        self.failures = if failed.is_some() { self.failures + 1 } else { 0 };
        match failed {
            Some(error) if is_end(&error) || self.failures > MOST_FAILURES => {
                self.ended = true;
                Err(error)
            }
            _ => Ok(read.bytes),
        }
    }

    /// Whether the last read failed: the driver may hold more, and nothing will tell of it.
    pub(super) fn must_retry(&self) -> bool {
        self.failures > 0 && !self.ended
    }

    /// Keeps what was read.
    fn keep(&mut self, read: Read) {
        if let Some(before) = read.emptied_boot_ns {
            self.possible = self.mask;
            self.emptied_boot_ns = before;
        }
        match self.later.back_mut() {
            // That there is nothing more says that the read before it took all.
            Some(last) if read.bytes == 0 => {
                last.emptied_boot_ns = read.emptied_boot_ns.or(last.emptied_boot_ns);
            }
            _ if read.bytes == 0 && read.emptied_boot_ns.is_none() => {}
            _ => self.later.push_back(read),
        }
    }

    /// Whether the driver held no more at the last read.
    pub(super) fn took_all(&self) -> bool {
        let last = self.later.back().unwrap_or(&self.current);
        last.emptied_boot_ns.is_some() && !self.must_retry()
    }

    /// Whatever the driver queued before this moment was read.
    pub(super) fn emptied_boot_ns(&self) -> u64 {
        self.emptied_boot_ns
    }

    /// The file has ended: from now on it is read until it says so.
    pub(super) fn expect_end(&mut self) {
        self.ends = true;
    }

    /// Whether nothing more will be read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Closes the file. What was read can still be handed out.
    pub(super) fn close(&mut self) {
        self.ended = true;
        self.file.close();
    }

    /// Bytes that are not handed out yet.
    pub(super) fn held(&self) -> usize {
        self.file.pending().len() - self.handed_out
    }

    /// The next message; `None` where a read is due.
    pub(super) fn front(&mut self) -> Option<Front<'_>> {
        self.release();
        let length = self.next_length()?;
        Some(Front {
            window: &self.file.pending()[..self.window],
            length,
            received: self.current.received,
            possible: self.current.possible,
            fifo: &mut self.fifo,
            handed_out: &mut self.handed_out,
            covered_boot_ns: &mut self.covered_boot_ns,
        })
    }

    /// The length of the next message, its newline included.
    fn next_length(&mut self) -> Option<usize> {
        loop {
            let window = &self.file.pending()[..self.window];
            let took_all = self.current.emptied_boot_ns.is_some();
            let length = framing::message_length(window, took_all);
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
        let handed_out = std::mem::take(&mut self.handed_out);
        self.window -= handed_out;
        self.file.take(handed_out);
    }

    /// Goes on to the read behind the current one, of which no message is left.
    fn go_on(&mut self) -> bool {
        if let Some(before) = self.current.emptied_boot_ns {
            // What comes next was queued after that read.
            self.fifo.emptied();
            self.covered_boot_ns = self.covered_boot_ns.max(before);
        }
        let Some(next) = self.later.pop_front() else { return false };
        self.fifo.read(next.bytes, next.largest);
        self.window += next.bytes;
        self.current = next;
        true
    }
}

/// Whether a read that failed so says that nothing more will come. Any other error may pass: the driver allocates
/// memory in each read (`kfd_smi_ev_read`).
pub(super) fn is_end(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    error.kind() == std::io::ErrorKind::UnexpectedEof
        || matches!(errno, Some(Errno::NODEV | Errno::NXIO | Errno::CONNRESET | Errno::BADF))
}

impl AsFd for ReadBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use gpuev_kfd::KfdVersion;

    use super::*;

    #[test]
    fn a_read_of_nothing_tells_that_the_read_before_took_all() {
        let (mut driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        // Doubled by the kernel: room for all of it.
        rustix::net::sockopt::set_socket_send_buffer_size(&driver, MOST_AT_ONCE).unwrap();
        let fifo = FifoWatch::new(KfdVersion { major: 1, minor: 23 }.smallest_fifo());
        let mut buffer = ReadBuffer::new(file.into(), fifo, false, EventMask::ALL).unwrap();
        driver.write_all(&b"2 400:7\n".repeat(MOST_AT_ONCE / 8)).unwrap();
        assert_eq!(buffer.fill().unwrap(), MOST_AT_ONCE);
        assert!(!buffer.took_all(), "there may be more");
        assert_eq!(buffer.fill().unwrap(), 0);
        assert!(buffer.took_all());
    }
}
