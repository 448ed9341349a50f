//! A reader that is being drained, and who gets what it reads.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Subscribers, Wakers, removed_gap};
use crate::pace::Read;
use crate::reader::{Answer, NextItem, PendingLookup};
use crate::seam::{self, Moment};
use crate::time::boot_now_ns;
use crate::{EventMask, EventReader, GpuId, Result};

/// Events handed out at a time, some tens of microseconds: then files are looked at again. In the concurrency tests few,
/// so that short schedules have unfinished work.
const MOST_AT_A_TIME: usize = if cfg!(gpuev_shuttle) { 2 } else { 256 };
/// Bytes that wait to be handed out. More stay in the driver; where a name is awaited, it is given up.
const MOST_HELD: usize = 1 << 20;

/// A reader, its subscribers, and what it waits for.
pub(super) struct Source {
    reader: EventReader,
    subscribers: Subscribers,
    on_removed: Option<OnRemoved>,
    /// What must be looked up before anything more can be handed out.
    awaited: Option<PendingLookup>,
    /// What is to be looked up beside.
    renewals: Vec<PendingLookup>,
    /// The driver may hold more and was not asked, as too much is held here.
    left_unread: bool,
}

/// Is given what was left once a GPU is gone and everything told.
pub(super) type OnRemoved = Box<dyn FnOnce(Left) + Send>;

/// How far handing out has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// All that was read is handed out.
    Done,
    /// As `Done`, and the last read failed.
    Retry,
    /// There is more.
    More,
    /// This must be looked up first.
    Awaits {
        lookup: PendingLookup,
        /// It was not awaited before.
        anew: bool,
    },
    /// The GPU is gone. What was read before is not yet handed out.
    Ended(Box<Source>),
}

/// A source whose file is closed and that may have more to hand out.
#[must_use]
pub(crate) struct Closed(Source);

/// What is kept of a reader that is no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) gpu: GpuId,
    /// The number that the next event gets.
    pub(crate) next_seq: u64,
    /// Nothing that happened before is missing.
    pub(crate) since_boot_ns: u64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.reader.gpu())
    }
}

impl Source {
    pub(super) fn new(
        reader: EventReader,
        subscribers: Subscribers,
        on_removed: Option<OnRemoved>,
    ) -> Self {
        let (awaited, renewals) = (None, Vec::new());
        Self { reader, subscribers, on_removed, awaited, renewals, left_unread: false }
    }

    pub(super) fn set_mask(&mut self, mask: EventMask) -> Result<()> {
        self.reader.set_mask(mask)
    }

    /// Asks the driver for what the subscribers want, where they choose.
    ///
    /// # Errors
    /// Where the driver refuses what it was not asked for before.
    pub(super) fn follow_mask(&mut self) -> Result<()> {
        let asked = self.reader.mask();
        match self.subscribers.chosen_mask(self.reader.gpu()) {
            Some(wanted) if wanted != asked => match self.reader.set_mask(wanted) {
                // Too much comes, and filters take care of that.
                Err(_) if asked.union(wanted) == asked => Ok(()),
                set => set,
            },
            _ => Ok(()),
        }
    }

    pub(super) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Reads what the driver holds, unless too much waits to be handed out: then that is done first.
    pub(super) fn fill(&mut self) -> Result<Read> {
        let mut read = Read { bytes: 0, fifo: self.reader.fifo_capacity() };
        loop {
            self.left_unread = self.is_full();
            if self.left_unread {
                return Ok(read);
            }
            read.bytes += self.reader.fill()?;
            if self.is_full()
                && let Some(lookup) = self.awaited.take()
            {
                self.reader.answer(&lookup, lookup.unknown());
            }
            if self.reader.took_all() || self.reader.must_retry() {
                return Ok(read);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.reader.held() > MOST_HELD
    }

    /// The file has ended: it is read until it says so.
    pub(super) fn expect_end(&mut self) {
        self.reader.expect_end();
    }

    /// Whether the driver held no more when it was last read.
    pub(super) fn took_all(&self) -> bool {
        !self.left_unread && self.reader.took_all()
    }

    /// Whether the last read failed.
    pub(super) fn must_retry(&self) -> bool {
        self.reader.must_retry()
    }

    /// Hands out what was read, as far as it goes. `wakers` are to be woken once no lock is held.
    pub(super) fn hand_out(&mut self, wakers: &mut Wakers) -> Progress {
        if let Some(lookup) = self.awaited.clone() {
            return Progress::Awaits { lookup, anew: false };
        }
        let subscribers = self.subscribers.lock();
        let mut progress = Progress::More;
        for _ in 0..MOST_AT_A_TIME {
            match self.reader.next_item() {
                Ok(Some(NextItem::Event { facts, record, renewal })) => {
                    self.renewals.extend(renewal);
                    subscribers.iter().for_each(|one| one.offer_event(&facts, &record));
                }
                Ok(Some(NextItem::Gap(gap))) => {
                    subscribers.iter().for_each(|one| one.offer_gap(&gap));
                }
                Ok(Some(NextItem::PendingLookup(lookup))) => {
                    self.awaited = Some(lookup.clone());
                    progress = Progress::Awaits { lookup, anew: true };
                    break;
                }
                Ok(None) | Err(_) => {
                    progress = Progress::Done;
                    break;
                }
            }
        }
        subscribers.iter().for_each(|subscriber| wakers.add(subscriber.wake()));
        progress
    }

    /// What nothing waits for and should be looked up soon.
    pub(super) fn take_renewals(&mut self) -> impl Iterator<Item = PendingLookup> + '_ {
        self.renewals.drain(..)
    }

    /// Takes in an answer; tells whether it was awaited.
    pub(super) fn answer(&mut self, lookup: &PendingLookup, answer: Answer) -> bool {
        let awaited = self.awaited.take_if(|awaited| awaited.is(lookup)).is_some();
        if awaited {
            self.reader.answer(lookup, answer);
        } else {
            self.reader.renew(lookup, answer);
        }
        awaited
    }

    /// Reads a last time and closes the file.
    pub(super) fn close(mut self) -> Closed {
        let _ended_anyway = self.reader.fill();
        let _nothing_to_fail = seam::pass(Moment::BeforeClose);
        self.reader.close();
        let _nothing_to_fail = seam::pass(Moment::AfterClose);
        Closed(self)
    }

    /// Hands everything out and tells that the GPU is gone.
    pub(super) fn end(mut self) {
        self.reader.close();
        let on_removed = self.on_removed.take();
        let subscribers = self.subscribers.clone();
        let left = Closed(self).finish();
        subscribers.tell(&removed_gap(left.gpu, left.since_boot_ns));
        if let Some(on_removed) = on_removed {
            on_removed(left);
        }
    }
}

impl Closed {
    /// Hands everything out, however long names take.
    pub(crate) fn finish(self) -> Left {
        let Self(mut source) = self;
        loop {
            let mut wakers = Wakers::default();
            let progress = source.hand_out(&mut wakers);
            wakers.wake();
            match progress {
                Progress::Awaits { lookup, .. } => {
                    source.answer(&lookup, lookup.look_up());
                }
                Progress::More => {}
                Progress::Done | Progress::Retry | Progress::Ended(_) => break,
            }
        }
        Left {
            gpu: source.reader.gpu(),
            next_seq: source.reader.next_seq(),
            since_boot_ns: source.reader.emptied_boot_ns().unwrap_or_else(boot_now_ns),
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

// Queues work only inside of shuttle where it takes the place of `std::sync`.
#[cfg(test)]
#[cfg(not(gpuev_shuttle))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use gpuev_kfd::KfdVersion;

    use super::*;
    use crate::subscription::Subscriber;
    use crate::{DEFAULT_LIMIT, Filter, Item, Machine, Subscription};

    const VERSION: KfdVersion = KfdVersion { major: 1, minor: 23 };

    fn source() -> (UnixStream, Source, Subscription) {
        let root = tempfile::TempDir::new().unwrap();
        let nodes = root.path().join("sys/class/kfd/kfd/topology/nodes/1");
        std::fs::create_dir_all(&nodes).unwrap();
        std::fs::write(nodes.join("gpu_id"), "100\n").unwrap();
        std::fs::write(nodes.join("properties"), "location_id 768\n").unwrap();
        let machine = Machine::at(root.path());
        let gpu = machine.gpus().unwrap().remove(0);
        let (driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        let reader =
            EventReader::from_fd(&machine, &gpu, file.into(), VERSION, EventMask::ALL).unwrap();
        let subscriber = Subscriber::new(Filter::new(), DEFAULT_LIMIT);
        let items = Subscription::new(Arc::clone(&subscriber));
        let subscribers = Subscribers::new();
        subscribers.add(std::sync::Weak::new(), subscriber);
        (driver, Source::new(reader, subscribers, None), items)
    }

    #[test]
    fn what_comes_faster_than_it_is_handed_out_stays_in_the_driver() {
        const LINE: &[u8] = b"2 400:7\n";
        let (mut driver, mut source, mut items) = source();
        driver.set_nonblocking(true).unwrap();
        let burst = LINE.repeat(1023);
        let (mut written, mut most) = (0, 0);
        for _ in 0..1000 {
            written += driver.write(&burst).unwrap_or(0);
            source.fill().unwrap();
            most = most.max(source.reader.held());
            let _more = source.hand_out(&mut Wakers::default());
        }
        // What one row of reads takes at most comes on top.
        assert!(most <= MOST_HELD + 256 * 1024, "{most} bytes");
        assert!(!source.took_all(), "it is looked at again");
        while !matches!(source.hand_out(&mut Wakers::default()), Progress::Done) {}
        source.fill().unwrap();
        let _left = source.close().finish();
        let events = std::iter::from_fn(|| items.try_next());
        let came = events.filter(|item| matches!(item, Item::Event(_))).count();
        assert_eq!(came, written.div_ceil(LINE.len()));
    }

    #[test]
    fn a_name_that_never_comes_is_given_up_when_too_much_waits() {
        const LINE: &[u8] = b"7 1 -4242 @7fff00000(64) W\n";
        let (mut driver, mut source, mut items) = source();
        let mut written = 0;
        driver.write_all(LINE).unwrap();
        source.fill().unwrap();
        let hand_out = |source: &mut Source| source.hand_out(&mut Wakers::default());
        let Progress::Awaits { lookup, anew: true } = hand_out(&mut source) else { panic!() };
        while let Progress::Awaits { .. } = hand_out(&mut source) {
            assert!(items.try_next().is_none() && written <= MOST_HELD);
            driver.write_all(&LINE.repeat(300)).unwrap();
            written += 300 * LINE.len();
            source.fill().unwrap();
        }
        assert!(written + LINE.len() > MOST_HELD);
        assert!(
            !source.answer(&lookup, Answer::Process(Some(crate::Comm::new(b"late")))),
            "nobody waits for it"
        );
        let _left = source.close().finish();
        let events = std::iter::from_fn(|| items.try_next());
        let nameless =
            events.filter(|item| matches!(item, Item::Event(e) if e.process().is_none()));
        assert_eq!(nameless.count() * LINE.len(), written + LINE.len());
    }
}
