//! Reading one GPU.

mod edges;
mod forgery;
mod intake;
mod owners;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use gpuev_kfd::{EventMask, Fields, KfdVersion, Record, framing};

use crate::event::{Clock, EventFacts, EventTime, Gap, GapCause};
use crate::fork::Registration;
use crate::source::require_events;
use crate::time::Anchor;
use crate::view::EventView;
use crate::{Error, ErrorKind, Gpu, GpuId, Item, Machine, Result};
use edges::Edges;
use intake::Intake;
pub(crate) use owners::{Answer, Question};
use owners::{Owners, Settled};

/// Lines of two CPUs may stand in the wrong order by some milliseconds: the driver takes the time before the
/// FIFO's lock.
const DISORDER_NS: u64 = 10_000_000;

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
    intake: Intake,
    owners: Owners,
    /// What `wait` waits on: made by the first.
    edges: Option<Edges>,
    /// Since when the FIFO may have been full, until the driver tells how many it dropped.
    full_since: Option<u64>,
    /// The driver counts what it drops and has said so before: no gap needs to be inferred.
    driver_counts: bool,
    /// A loss that was noticed and not yet handed out.
    gap: Option<Gap>,
}

/// What a reader hands out, borrowed from its buffer.
pub(crate) enum Drawn<'a> {
    Event {
        facts: EventFacts<'a>,
        record: Record<'a>,
        /// To be asked beside: the name that the event bears will soon be too old for the next.
        renewal: Option<Question>,
    },
    Gap(Gap),
    /// What comes next cannot be told before this is answered.
    Question(Question),
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
        let intake = Intake::new(fd, version).map_err(failed)?;
        let open = Open {
            _registration: Registration::of(&intake),
            intake,
            owners: Owners::new(machine),
            edges: None,
            full_since: None,
            driver_counts: false,
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
        self.open.as_ref().map(|open| open.intake.fifo_capacity())
    }

    /// Subscribes to `mask` from now on. What the driver has already queued still comes.
    ///
    /// # Errors
    /// After [`stop`](Self::stop), or where the driver refuses.
    pub fn set_mask(&self, mask: EventMask) -> Result<()> {
        let intake = &self.open.as_ref().ok_or_else(|| stopped(self.gpu))?.intake;
        intake.set_mask(mask.of_all_processes()).map_err(|error| {
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
            match self.draw()? {
                Some(Drawn::Event { facts, record, renewal: _ }) => {
                    return Ok(Some(Item::Event(EventView { facts, record }.into())));
                }
                Some(Drawn::Gap(gap)) => return Ok(Some(Item::Gap(gap))),
                Some(Drawn::Question(question)) => self.answer(&question, question.look_up()),
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
            if self.took_all() {
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
        if open.intake.ended() {
            // An end is one edge, and the next read tells it again.
            return Ok(());
        }
        let edges = match &open.edges {
            Some(edges) => edges,
            None => open.edges.insert(Edges::of(&open.intake, self.gpu)?),
        };
        edges.sleep(timeout)
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
        open.intake.fill().map_err(|error| removed_or_failed(gpu, error))
    }

    /// Whether the driver held no more when it was last read.
    pub(crate) fn took_all(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.intake.took_all())
    }

    /// Bytes that were read and not yet drawn.
    pub(crate) fn held(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.intake.held())
    }

    /// Says that nothing more will be read: a line without its newline is drawn too.
    pub(crate) fn end(&mut self) {
        if let Some(open) = self.open.as_mut() {
            open.intake.end();
        }
    }

    /// Answers a question that [`draw`](Self::draw) gave: the process's name, `None` where nobody can tell.
    pub(crate) fn answer(&mut self, question: &Question, answer: Answer) {
        if let Some(open) = self.open.as_mut() {
            open.owners.answer(question, answer);
        }
    }

    /// Takes in the name that an event's `renewal` asked for.
    pub(crate) fn renew(&mut self, question: &Question, answer: Answer) {
        if let Some(open) = self.open.as_mut() {
            open.owners.renew(question, answer);
        }
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
        self.open.as_ref().expect("a stopped reader should not be polled").intake.as_fd()
    }
}

impl Open {
    fn draw<'a>(&'a mut self, gpu: GpuId, seq: &mut u64) -> Option<Drawn<'a>> {
        if let Some(gap) = self.gap.take() {
            return Some(Drawn::Gap(gap));
        }
        let mut front = self.intake.front()?;
        let (received, empty_boot_ns) = (front.received, front.empty_boot_ns);
        let mut line = framing::line(front.message());
        let mut record = gpuev_kfd::decode(line);
        let settled = match self.owners.settle(&record, &front) {
            Ok(settled) => settled,
            Err(question) => return Some(Drawn::Question(question)),
        };
        if settled.more > 0 {
            front.goes_on(settled.more);
            line = framing::line(front.message());
            record = gpuev_kfd::decode(line);
        }
        let may_miss = front.take();
        let stamp = record.stamp();
        if may_miss {
            let not_before = stamp.map_or(0, |at| at.boot_ns.saturating_sub(DISORDER_NS));
            let from = empty_boot_ns.max(not_before).min(received.boot_ns);
            self.full_since.get_or_insert(from);
            if !self.driver_counts {
                self.gap = Some(fifo_gap(gpu, None, from, received.boot_ns, received));
            }
        }
        if let Fields::DroppedEvents { at, count } = record.fields {
            self.driver_counts = true;
            let from = self.full_since.take().unwrap_or(empty_boot_ns).min(at.boot_ns);
            let count = Some(u64::from(count));
            return Some(Drawn::Gap(fifo_gap(gpu, count, from, at.boot_ns, received)));
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
        Some(Drawn::Event { facts, record, renewal })
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
