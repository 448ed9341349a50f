//! Reading one GPU.

mod edges;
mod forgery;
mod owners;
mod read_buffer;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use gpuev_kfd::{EventMask, KfdVersion, Record, framing};

use crate::event::{Clock, EventFacts, EventTime, Gap, GapCause};
use crate::fork::{self, Registration};
use crate::keeper::Keeper;
use crate::loss::{FifoWatch, smallest_fifo};
use crate::source::{no_answer, require_events};
use crate::time::Anchor;
use crate::view::EventView;
use crate::{Error, ErrorKind, Gpu, GpuId, Item, Machine, Result};
use edges::Edges;
pub(crate) use owners::{Answer, PendingLookup};
use owners::{Owners, Settled};
use read_buffer::{ReadBuffer, is_end};

/// Lines of two CPUs may stand in the wrong order by some milliseconds: the driver takes the time before the
/// FIFO's lock.
const DISORDER_NS: u64 = 10_000_000;

/// How long a file whose read has failed is left alone.
pub(crate) const BETWEEN_FAILURES: Duration = Duration::from_millis(10);

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
    /// Before the file, so that it goes first; `None` once the file is closed.
    registration: Option<Registration>,
    buffer: ReadBuffer,
    owners: Owners,
    /// What `wait` waits on: made by the first.
    edges: Option<Edges>,
    /// A loss that was noticed and not yet handed out.
    gap: Option<Gap>,
    /// The process that opened the file, if it was another. Behind the file, which is closed first.
    keeper: Option<Keeper>,
}

/// What a reader hands out, borrowed from its buffer.
pub(crate) enum NextItem<'a> {
    Event {
        facts: EventFacts<'a>,
        record: Record<'a>,
        /// To be asked beside: the name that the event bears will soon be too old for the next.
        renewal: Option<PendingLookup>,
    },
    Gap(Gap),
    /// What comes next cannot be told before this is looked up.
    PendingLookup(PendingLookup),
}

impl EventReader {
    /// Opens an event file of `gpu` and subscribes to `mask`. The subscription is live when this returns.
    ///
    /// # Errors
    /// Where the device is missing, may not be opened or does not know the GPU; the error says what to do.
    pub fn open(machine: &Machine, gpu: &Gpu, mask: EventMask) -> Result<Self> {
        let _opening = fork::opening();
        let opened = machine.event_source().open_all(std::slice::from_ref(gpu), &|_, _| {})?;
        require_events(opened.version)?;
        let file = opened.files.into_iter().next().unwrap_or_else(|| Err(no_answer()))?;
        Self::opened(machine, gpu, file, opened.version, mask)
            .map(|reader| reader.kept_by(opened.keeper))
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
        let _opening = fork::opening();
        Self::of_file(machine, gpu, (fd, EventMask::ALL), version, mask)
    }

    /// As [`from_fd`](Self::from_fd), on a file that was just opened: it had no other mask. A fork must not come in between.
    pub(crate) fn opened(
        machine: &Machine,
        gpu: &Gpu,
        fd: OwnedFd,
        version: KfdVersion,
        mask: EventMask,
    ) -> Result<Self> {
        Self::of_file(machine, gpu, (fd, mask), version, mask)
    }

    /// As [`from_fd`](Self::from_fd), on a file that had the masks `possible` before.
    fn of_file(
        machine: &Machine,
        gpu: &Gpu,
        (fd, possible): (OwnedFd, EventMask),
        version: KfdVersion,
        mask: EventMask,
    ) -> Result<Self> {
        let failed = |error| Error::io(format!("event file of GPU {}", gpu.id.bdf), error);
        let fifo = FifoWatch::new(smallest_fifo(machine, version));
        let buffer =
            ReadBuffer::new(fd, fifo, version.may_read_eight_bytes(), possible).map_err(failed)?;
        let open = Open {
            registration: Some(Registration::of(&buffer)),
            buffer,
            owners: Owners::new(machine),
            edges: None,
            gap: None,
            keeper: None,
        };
        let mut reader = Self { gpu: gpu.id, open: Some(open), seq: 0 };
        reader.set_mask(mask)?;
        Ok(reader)
    }

    /// The same reader, whose file `keeper` opened.
    pub(crate) fn kept_by(mut self, keeper: Option<Keeper>) -> Self {
        if let Some(open) = &mut self.open {
            open.keeper = keeper;
        }
        self
    }

    /// Which GPU it reads.
    #[must_use]
    pub fn gpu(&self) -> GpuId {
        self.gpu
    }

    /// What it is subscribed to; nothing after [`stop`](Self::stop).
    #[must_use]
    pub fn mask(&self) -> EventMask {
        self.open.as_ref().map_or(EventMask::NONE, |open| open.buffer.mask())
    }

    /// The size in bytes of the driver's FIFO behind this reader, as far as known.
    #[must_use]
    pub fn fifo_capacity(&self) -> Option<usize> {
        self.open.as_ref().map(|open| open.buffer.fifo_capacity())
    }

    /// Subscribes to `mask` from now on. What the driver has already queued still comes.
    ///
    /// # Errors
    /// After [`stop`](Self::stop), or where the driver refuses.
    pub fn set_mask(&mut self, mask: EventMask) -> Result<()> {
        let buffer = &mut self.open.as_mut().ok_or_else(|| stopped(self.gpu))?.buffer;
        buffer.set_mask(mask).map_err(|error| {
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
            match self.fill() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // An end may leave a line without its newline.
                Err(error) => return self.next_read()?.map_or(Err(error), |item| Ok(Some(item))),
            }
        }
    }

    /// The next of what was read.
    fn next_read(&mut self) -> Result<Option<Item>> {
        loop {
            match self.next_item()? {
                Some(NextItem::Event { facts, record, renewal: _ }) => {
                    return Ok(Some(Item::Event(EventView { facts, record }.into())));
                }
                Some(NextItem::Gap(gap)) => return Ok(Some(Item::Gap(gap))),
                Some(NextItem::PendingLookup(lookup)) => self.answer(&lookup, lookup.look_up()),
                None => return Ok(None),
            }
        }
    }

    /// As [`next`](Self::next), waiting for an event: at most `timeout`, or for ever. `None` where none came.
    /// The first wait opens an epoll file, which the reader keeps.
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
            if self.took_all() || self.must_retry() {
                self.sleep(left)?;
            }
            match self.fill() {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(None),
                Ok(_) => {}
                Err(error) => return self.next_read()?.map_or(Err(error), |item| Ok(Some(item))),
            }
        }
    }

    /// Sleeps until the driver has more than it had at the last read.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(|| stopped(self.gpu))?;
        if open.buffer.ended() {
            // An end is one edge, and the next read tells it again.
            return Ok(());
        }
        let edges = match &open.edges {
            Some(edges) => edges,
            None => open.edges.insert(Edges::of(&open.buffer, self.gpu)?),
        };
        let timeout = if open.buffer.must_retry() {
            Some(timeout.map_or(BETWEEN_FAILURES, |timeout| timeout.min(BETWEEN_FAILURES)))
        } else {
            timeout
        };
        if edges.sleep(timeout)? {
            open.buffer.expect_end();
        }
        Ok(())
    }

    /// Closes the event file. Repeating it does nothing.
    pub fn stop(&mut self) {
        self.open = None;
    }

    /// The file has ended: it is read until it says so.
    pub(crate) fn expect_end(&mut self) {
        if let Some(open) = self.open.as_mut() {
            open.buffer.expect_end();
        }
    }

    /// Reads what the driver holds; gives the number of new bytes.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        let gpu = self.gpu;
        let open = self.open.as_mut().ok_or_else(|| stopped(gpu))?;
        open.buffer.fill().map_err(|error| removed_or_failed(gpu, error))
    }

    /// Whether the driver held no more when it was last read.
    pub(crate) fn took_all(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.buffer.took_all())
    }

    /// Whether the last read failed and is to be tried again: no edge will tell.
    pub(crate) fn must_retry(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.buffer.must_retry())
    }

    /// Whatever the driver queued before this moment was read; later things may be missing once the file is closed.
    pub(crate) fn emptied_boot_ns(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.buffer.emptied_boot_ns())
    }

    /// Closes the event file. What was read can still be taken, an unfinished line too.
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.as_mut() {
            open.registration = None;
            open.edges = None;
            open.buffer.close();
            open.keeper = None;
        }
    }

    /// Bytes that were read and not yet handed out.
    pub(crate) fn held(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.buffer.held())
    }

    /// Takes in what [`next_item`](Self::next_item) waits for.
    pub(crate) fn answer(&mut self, lookup: &PendingLookup, answer: Answer) {
        if let Some(open) = self.open.as_mut() {
            open.owners.answer(lookup, answer);
        }
    }

    /// Takes in what an event's `renewal` asked for.
    pub(crate) fn renew(&mut self, lookup: &PendingLookup, answer: Answer) {
        if let Some(open) = self.open.as_mut() {
            open.owners.renew(lookup, answer);
        }
    }

    /// The next of what was read; `None` where a read is due.
    pub(crate) fn next_item(&mut self) -> Result<Option<NextItem<'_>>> {
        let open = self.open.as_mut().ok_or_else(|| stopped(self.gpu))?;
        Ok(open.next_item(self.gpu, &mut self.seq))
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
        self.open.as_ref().expect("a stopped reader should not be polled").buffer.as_fd()
    }
}

impl Open {
    fn next_item<'a>(&'a mut self, gpu: GpuId, seq: &mut u64) -> Option<NextItem<'a>> {
        if let Some(gap) = self.gap.take() {
            return Some(NextItem::Gap(gap));
        }
        let mut front = self.buffer.front()?;
        let (received, covered_boot_ns) = (front.received, front.covered_boot_ns());
        let mut line = framing::line(front.message());
        let mut record = gpuev_kfd::decode(line);
        let settled = match self.owners.settle(&record, &front) {
            Ok(settled) => settled,
            Err(lookup) => return Some(NextItem::PendingLookup(lookup)),
        };
        if settled.more > 0 {
            front.goes_on(settled.more);
            line = framing::line(front.message());
            record = gpuev_kfd::decode(line);
        }
        let stamp = record.stamp();
        if let Some(covered) = front.take() {
            // What is missing found the FIFO full of this message, which the driver has stamped before.
            let from = covered.max(stamp.map_or(0, |at| at.boot_ns.saturating_sub(DISORDER_NS)));
            self.gap = Some(fifo_gap(gpu, from.min(received.boot_ns), received));
        } else if tells_of_drops(&record) {
            self.gap = Some(fifo_gap(gpu, covered_boot_ns.min(received.boot_ns), received));
        }
        self.owners.note(&record);
        let boot_ns = stamp.map_or(received.boot_ns, |at| at.boot_ns);
        let time = EventTime {
            boot_ns,
            clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
            received_boot_ns: received.boot_ns,
            unix_ns: received.unix_ns_of(boot_ns),
        };
        let Settled { doubtful, pid, comm, renewal, .. } = settled;
        let facts = EventFacts { gpu, seq: *seq, time, doubtful, pid, comm, raw: line };
        *seq += 1;
        Some(NextItem::Event { facts, record, renewal })
    }
}

/// Whether a line of no known type has the shape in which drivers have counted what they dropped: a time, a process, a
/// number. Number 14 may be another event in the same shape; where it counts drops, the full FIFO tells of them.
fn tells_of_drops(record: &Record<'_>) -> bool {
    record.drop_count().is_some_and(|count| count.id != EventMask::DROPPED_EVENTS_ID)
}

/// Events up to receipt may be missing.
fn fifo_gap(gpu: GpuId, from_boot_ns: u64, received: Anchor) -> Gap {
    Gap {
        gpu,
        cause: GapCause::DriverFifoFull,
        count: None,
        from_boot_ns,
        to_boot_ns: received.boot_ns,
        unix_ns: received.unix_ns,
    }
}

fn stopped(gpu: GpuId) -> Error {
    Error::new(ErrorKind::Stopped, format!("the reader of GPU {} has been stopped", gpu.bdf))
}

fn removed_or_failed(gpu: GpuId, error: std::io::Error) -> Error {
    let gone = is_end(&error);
    let failed = Error::io(format!("read the events of GPU {}", gpu.bdf), error);
    if gone {
        failed
            .with_kind(ErrorKind::GpuRemoved)
            .with_hint("the GPU was removed or its partitions changed: list the GPUs again")
    } else {
        failed
    }
}
