//! Reading one GPU.

mod forgery;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use gpuev_kfd::{EventFile, EventMask, Fields, KfdVersion, Record, framing};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::event::{Clock, EventFacts, EventTime, Gap, GapCause};
use crate::fork::Registration;
use crate::loss::FifoWatch;
use crate::process::NameCache;
use crate::source::require_events;
use crate::time::Anchor;
use crate::{Comm, Error, ErrorKind, Event, Gpu, GpuId, Item, Machine, Result};
use forgery::{Forgery, Verdict};

/// Lines of two CPUs may stand in the wrong order by some milliseconds: the driver takes the time before the
/// FIFO's lock.
const DISORDER_NS: u64 = 10_000_000;

/// Bytes after which a driver that gives little at a time is left for a moment, so that memory stays bounded.
const MOST_AT_ONCE: usize = 256 * 1024;

/// Reads the events of one GPU: its own event file, its own mask. No thread, nothing shared: any number of
/// readers of one GPU are independent.
///
/// Reading never waits: [`next`](Self::next) gives what is there. To wait, put [`AsFd`] into your own `poll`
/// or `epoll` (level-triggered), or call [`wait`](Self::wait). The driver holds at most 8 KiB (1 KiB up to
/// Linux 6.12), some 170 events: who reads seldom loses events and is told so by a [`Gap`]. A
/// [`Monitor`](crate::Monitor) reads at once, in a thread.
///
/// Dropping it closes the file.
#[derive(Debug)]
pub struct EventReader {
    gpu: GpuId,
    open: Option<Open>,
    seq: u64,
}

#[derive(Debug)]
struct Open {
    /// Before the file, so that it goes first.
    _registration: Registration,
    file: EventFile,
    fifo: FifoWatch,
    reads_eight_bytes: bool,
    names: NameCache,
    forgery: Forgery,
    /// When the last read was.
    received: Anchor,
    /// When the FIFO was last known to be empty.
    empty_boot_ns: u64,
    /// Since when the FIFO may have been full, until the driver tells how many it dropped.
    full_since: Option<u64>,
    /// The driver counts what it drops and has said so before: no gap needs to be inferred.
    driver_counts: bool,
    /// The last read took all that the driver held.
    took_all: bool,
    /// A loss that was noticed and not yet handed out.
    gap: Option<Gap>,
}

/// What a reader hands out, borrowed from its buffer.
pub(crate) enum Drawn<'a> {
    Event(EventFacts<'a>, Record<'a>),
    Gap(Gap),
}

impl EventReader {
    /// Opens an event file of `gpu` and subscribes to `mask`. The subscription is live when this returns.
    ///
    /// # Errors
    /// Where the device is missing, may not be opened or does not know the GPU; the error says what to do.
    pub fn open(machine: &Machine, gpu: &Gpu, mask: EventMask) -> Result<Self> {
        let source = machine.event_source();
        let version = source.version()?;
        require_events(version)?;
        Self::from_fd(machine, gpu, source.open(gpu)?, version, mask)
    }

    /// As [`open`](Self::open), on an event file that was opened elsewhere, by a driver of `version`.
    ///
    /// # Errors
    /// Where the file does not take a mask.
    pub fn from_fd(
        machine: &Machine,
        gpu: &Gpu,
        fd: OwnedFd,
        version: KfdVersion,
        mask: EventMask,
    ) -> Result<Self> {
        let failed = |error| Error::io(format!("event file of GPU {}", gpu.id.bdf), error);
        let file = EventFile::new(fd).map_err(failed)?;
        let received = Anchor::now();
        let open = Open {
            _registration: Registration::of(&file),
            file,
            fifo: FifoWatch::new(version),
            reads_eight_bytes: version.may_read_eight_bytes(),
            names: NameCache::new(machine),
            forgery: Forgery::default(),
            received,
            empty_boot_ns: received.boot_ns,
            full_since: None,
            driver_counts: false,
            took_all: true,
            gap: None,
        };
        let reader = Self { gpu: gpu.id, open: Some(open), seq: 0 };
        reader.set_mask(mask)?;
        Ok(reader)
    }

    /// Which GPU it reads.
    #[must_use]
    pub fn gpu(&self) -> GpuId {
        self.gpu
    }

    /// The size in bytes of the driver's FIFO behind this reader, as far as known.
    #[must_use]
    pub fn fifo_capacity(&self) -> Option<usize> {
        self.open.as_ref().map(|open| open.fifo.capacity())
    }

    /// Subscribes to `mask` from now on. What the driver has already queued still comes.
    ///
    /// # Errors
    /// After [`stop`](Self::stop), or where the driver refuses.
    pub fn set_mask(&self, mask: EventMask) -> Result<()> {
        let file = &self.open.as_ref().ok_or_else(|| stopped(self.gpu))?.file;
        file.set_mask(mask.of_all_processes()).map_err(|error| {
            Error::io(format!("set the event mask of GPU {}", self.gpu.bdf), error)
        })
    }

    /// The next event or gap, or `None` where there is none now. Never waits.
    ///
    /// # Errors
    /// [`ErrorKind::GpuRemoved`] where the GPU is gone, [`ErrorKind::Stopped`] after [`stop`](Self::stop).
    #[allow(clippy::should_implement_trait)] // an iterator's `None` is an end, this one's is not
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.next_read()? {
                return Ok(Some(item));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next of what was read.
    fn next_read(&mut self) -> Result<Option<Item>> {
        Ok(self.draw()?.map(|drawn| match drawn {
            Drawn::Event(facts, record) => Item::Event(Event::from_decoded(facts, &record)),
            Drawn::Gap(gap) => Item::Gap(gap),
        }))
    }

    /// As [`next`](Self::next), waiting for an event: at most `timeout`, or for ever. `None` where none came.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Item>> {
        let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        loop {
            if let Some(item) = self.next_read()? {
                return Ok(Some(item));
            }
            let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            // A read that is known to find nothing would cost each event a system call.
            if self.open.as_ref().is_some_and(|open| open.took_all) {
                self.poll(left)?;
            }
            if self.fill()? == 0 && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> Result<()> {
        let open = self.open.as_ref().ok_or_else(|| stopped(self.gpu))?;
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(&open.file, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => {
                Err(Error::io(format!("poll the events of GPU {}", self.gpu.bdf), error.into()))
            }
        }
    }

    /// Closes the event file. Repeating it does nothing.
    pub fn stop(&mut self) {
        self.open = None;
    }

    /// Reads once, and on drivers that give eight bytes a read until there is nothing more; gives the number
    /// of new bytes.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        let gpu = self.gpu;
        let open = self.open.as_mut().ok_or_else(|| stopped(gpu))?;
        open.fill().map_err(|error| removed_or_failed(gpu, error))
    }

    /// The next of what was read; `None` where a read is due.
    pub(crate) fn draw(&mut self) -> Result<Option<Drawn<'_>>> {
        let open = self.open.as_mut().ok_or_else(|| stopped(self.gpu))?;
        Ok(open.draw(self.gpu, &mut self.seq))
    }

    /// Continues the numbering of an earlier reader of this GPU.
    pub(crate) fn continue_from(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// The number that the next event gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq
    }
}

impl AsFd for EventReader {
    /// The event file, readable when events wait.
    ///
    /// # Panics
    /// After [`stop`](EventReader::stop): there is no file any more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open.as_ref().expect("a stopped reader should not be polled").file.as_fd()
    }
}

impl Open {
    fn fill(&mut self) -> std::io::Result<usize> {
        let mut total = 0;
        self.took_all = false;
        while !self.took_all && total < MOST_AT_ONCE {
            let count = self.file.read()?;
            self.fifo.read(count);
            total += count;
            let may_hold_more = count == EventFile::read_size() || self.reads_eight_bytes;
            self.took_all = count == 0 || !may_hold_more;
        }
        if self.took_all && total > 0 {
            self.file.set_drained();
        }
        self.received = Anchor::now();
        Ok(total)
    }

    fn draw<'a>(&'a mut self, gpu: GpuId, seq: &mut u64) -> Option<Drawn<'a>> {
        if let Some(gap) = self.gap.take() {
            return Some(Drawn::Gap(gap));
        }
        let Some(length) = self.file.next_length() else {
            if self.took_all {
                // What comes next was queued after the last read.
                self.fifo.emptied();
                self.empty_boot_ns = self.received.boot_ns;
            }
            return None;
        };
        let (length, doubtful) = self.settle_name(length);
        let may_miss = self.fifo.may_miss_next(length);
        let line = framing::line(self.file.take(length));
        let record = gpuev_kfd::decode(line);
        let stamp = record.stamp();
        if may_miss {
            let not_before = stamp.map_or(0, |at| at.boot_ns.saturating_sub(DISORDER_NS));
            let from = self.empty_boot_ns.max(not_before).min(self.received.boot_ns);
            self.full_since.get_or_insert(from);
            if !self.driver_counts {
                self.gap = Some(fifo_gap(gpu, None, from, self.received.boot_ns, self.received));
            }
        }
        if let Fields::DroppedEvents { at, count } = record.fields {
            self.driver_counts = true;
            let from = self.full_since.take().unwrap_or(self.empty_boot_ns).min(at.boot_ns);
            let count = Some(u64::from(count));
            return Some(Drawn::Gap(fifo_gap(gpu, count, from, at.boot_ns, self.received)));
        }
        self.forgery.note(&record);
        let boot_ns = stamp.map_or(self.received.boot_ns, |at| at.boot_ns);
        let time = EventTime {
            boot_ns,
            clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
            received_boot_ns: self.received.boot_ns,
            unix_ns: self.received.unix_ns_of(boot_ns),
        };
        let comm = stamp.map_or(Comm::NONE, |at| self.names.name(at.pid, self.received.boot_ns));
        let facts = EventFacts { gpu, seq: *seq, time, doubtful, comm, raw: line };
        *seq += 1;
        Some(Drawn::Event(facts, record))
    }

    /// Decides whether what follows a task name belongs to it. Gives the message's length and whether the
    /// message itself may be a forgery.
    fn settle_name(&mut self, length: usize) -> (usize, bool) {
        let held = self.file.pending();
        let record = gpuev_kfd::decode(framing::line(&held[..length]));
        let doubtful = self.forgery.doubts(length);
        let Some(task) = record.task() else { return (length, doubtful) };
        self.names.forget(task.pid);
        let verdict = self.forgery.judge(task, &held[length..], &self.names);
        match verdict {
            Verdict::Genuine => (length, doubtful),
            Verdict::NameGoesOn(more) => (length + more, doubtful),
        }
    }
}

fn fifo_gap(gpu: GpuId, count: Option<u64>, from: u64, to: u64, received: Anchor) -> Gap {
    Gap {
        gpu,
        cause: GapCause::DriverFifoFull,
        count,
        from_boot_ns: from,
        to_boot_ns: to,
        unix_ns: received.unix_ns_of(to),
    }
}

fn stopped(gpu: GpuId) -> Error {
    Error::new(ErrorKind::Stopped, format!("the reader of GPU {} has been stopped", gpu.bdf))
}

fn removed_or_failed(gpu: GpuId, error: std::io::Error) -> Error {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let gone = error.kind() == std::io::ErrorKind::UnexpectedEof
        || matches!(errno, Some(Errno::NODEV | Errno::NXIO | Errno::IO | Errno::CONNRESET));
    let failed = Error::io(format!("read the events of GPU {}", gpu.bdf), error);
    if gone {
        failed
            .with_kind(ErrorKind::GpuRemoved)
            .with_hint("the GPU was removed or its partitions changed: list the GPUs again")
    } else {
        failed
    }
}
