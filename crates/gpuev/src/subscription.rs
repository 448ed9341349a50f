//! The taking end of a queue.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use gpuev_kfd::Record;

use crate::drain::Shared;
use crate::event::EventFacts;
use crate::fork::Descriptor;
use crate::queue::{Queue, Taken, Waited};
use crate::{Error, ErrorKind, Filter, Gap, Item, ItemView, Result};

/// The default limit of what waits for one subscriber, in bytes: about 750,000 events.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// What one subscriber is given: events and gaps, in order. Take them blocking, with a timeout, as an
/// iterator, or with the feature `tokio` as a stream.
///
/// Dropping it ends the subscription and frees what waits.
#[derive(Debug)]
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    taken: Taken,
    signal: Option<Arc<Descriptor>>,
}

/// What the draining thread knows of a subscriber.
#[derive(Debug)]
pub(crate) struct Subscriber {
    queue: Queue,
    filter: Filter,
    gone: AtomicBool,
    /// Who fills the queue; whoever waits for it can help.
    drain: OnceLock<Weak<Shared>>,
}

impl Subscriber {
    pub(crate) fn new(filter: Filter, limit: usize) -> Arc<Self> {
        let (queue, gone, drain) = (Queue::new(limit), AtomicBool::new(false), OnceLock::new());
        Arc::new(Self { queue, filter, gone, drain })
    }

    /// Says who fills the queue. Only the first time counts.
    pub(crate) fn filled_by(&self, drain: Weak<Shared>) {
        let _known = self.drain.set(drain);
    }

    /// Waits until something is there, at most until `deadline`.
    fn wait(&self, deadline: Option<Instant>) -> Waited {
        let drain = self.drain.get().and_then(Weak::upgrade);
        let led = drain.and_then(|drain| drain.lead(&self.queue, deadline));
        led.unwrap_or_else(|| self.queue.wait(deadline))
    }

    pub(crate) fn offer_event(&self, facts: &EventFacts<'_>, record: &Record<'_>) {
        if self.filter.passes(facts, record) {
            self.queue.push_event(facts);
        }
    }

    pub(crate) fn offer_gap(&self, gap: &Gap) {
        if self.filter.passes_gpu(gap.gpu) {
            self.queue.push_gap(gap);
        }
    }

    pub(crate) fn wake(&self) {
        self.queue.wake();
    }

    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Whether nobody takes from it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

impl Subscription {
    pub(crate) fn new(subscriber: Arc<Subscriber>) -> Self {
        Self { subscriber, taken: Taken::default(), signal: None }
    }

    /// The next item if there is one. Never waits.
    pub fn try_next(&mut self) -> Option<Item> {
        self.view_next().map(Item::from)
    }

    /// As [`try_next`](Self::try_next), but the item stays where it waits, until the next is asked for.
    pub fn view_next(&mut self) -> Option<ItemView<'_>> {
        if self.has_next() { self.taken.next() } else { None }
    }

    /// Whether there is a next item.
    pub(crate) fn has_next(&mut self) -> bool {
        !self.taken.is_empty() || self.subscriber.queue.take(&mut self.taken)
    }

    /// The next item, waiting at most `timeout`, or for ever. `None` where none came in time, or the stream
    /// has ended; [`is_finished`](Self::is_finished) tells which.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Option<Item> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            if self.subscriber.wait(deadline) != Waited::Ready {
                return None;
            }
        }
    }

    /// Whether the stream has ended and everything was taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.taken.is_empty() && self.subscriber.queue.is_finished()
    }

    /// A descriptor that is readable while something waits, for your own `poll` or event loop. Do not read
    /// from it: take items until there is none.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] where no descriptor is left.
    pub fn ready_fd(&mut self) -> Result<BorrowedFd<'_>> {
        if self.signal.is_none() {
            let signal = self.subscriber.queue.signal().map_err(|error| {
                Error::io("create an eventfd", error)
                    .with_hint("raise the limit of open files (ulimit -n)")
            })?;
            self.signal = Some(signal);
        }
        let signal = self.signal.as_ref();
        signal.map(AsFd::as_fd).ok_or_else(|| Error::new(ErrorKind::Io, "create an eventfd"))
    }

    /// Ends the stream: what is there can still be taken, and who waits is woken.
    pub(crate) fn end(&self) {
        self.subscriber.close();
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn register(&self, waker: &std::task::Waker) -> bool {
        self.subscriber.queue.register(waker)
    }
}

impl Iterator for Subscription {
    type Item = Item;

    /// Waits for the next item; `None` where the stream has ended.
    fn next(&mut self) -> Option<Item> {
        self.wait(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscriber.gone.store(true, Ordering::Relaxed);
        self.subscriber.queue.abandon();
    }
}
