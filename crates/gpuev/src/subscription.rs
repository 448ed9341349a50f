//! The taking end of a queue.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use gpuev_kfd::{EventMask, Record};

use crate::drain::Feed;
use crate::event::EventFacts;
use crate::fork::Descriptor;
use crate::queue::{Queue, Taken, Waited};
use crate::{Error, ErrorKind, Filter, Gap, GpuId, Item, ItemView, Result};

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
    /// Set once, before the first event.
    feed: OnceLock<Feed>,
}

impl Subscriber {
    pub(crate) fn new(filter: Filter, limit: usize) -> Arc<Self> {
        Arc::new(Self { queue: Queue::new(limit), filter, feed: OnceLock::new() })
    }

    /// Says what fills the queue. Only the first time counts.
    pub(crate) fn fed_by(&self, feed: Feed) {
        let _known = self.feed.set(feed);
    }

    /// What the driver must queue of this GPU so that the subscriber gets what it wants.
    pub(crate) fn mask_for(&self, gpu: GpuId) -> EventMask {
        if self.filter.passes_gpu(gpu) { self.filter.mask() } else { EventMask::NONE }
    }

    /// Waits until something is there, at most until `deadline`.
    fn wait(&self, deadline: Option<Instant>) -> Waited {
        let drain = self.feed.get().and_then(Feed::drain);
        let waited = drain.and_then(|drain| drain.drain_inline(&self.queue, deadline));
        waited.unwrap_or_else(|| self.queue.wait(deadline))
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

    /// Lets the subscriber know; see [`Queue::wake`].
    pub(crate) fn wake(&self) -> Option<Waker> {
        self.queue.wake()
    }

    pub(crate) fn close(&self) {
        self.queue.close();
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
    pub(crate) fn register(&self, waker: &Waker) -> bool {
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
        self.subscriber.queue.abandon();
        if let Some(feed) = self.subscriber.feed.get() {
            feed.leave(&self.subscriber);
        }
    }
}
