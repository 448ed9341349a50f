//! One GPU, one mask, and a thread that reads for all such readers of this process.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::drain::{Drain, Drained, Subscribers};
use crate::subscription::Subscriber;
use crate::{
    EventMask, EventReader, Filter, Gpu, GpuId, Item, ItemView, Machine, Result, Subscription,
};

/// As [`EventReader`], but nothing is lost between two calls: a thread, one for all of these in the process,
/// reads the driver's FIFO the moment it fills into a buffer of this reader's own. What exceeds the buffer
/// is a [`Gap`](crate::Gap).
///
/// The thread ends with the last such reader.
#[derive(Debug)]
pub struct BufferedReader {
    gpu: GpuId,
    subscription: Subscription,
    drained: Option<Drained>,
    /// Keeps the thread; dropped after `drained`.
    drain: Option<Arc<Drain>>,
}

/// The thread of this process, while anyone needs it.
static SHARED: Mutex<Weak<Drain>> = Mutex::new(Weak::new());

/// Keeps the thread from starting as long as it is held.
pub(crate) fn lock_shared() -> MutexGuard<'static, Weak<Drain>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared_drain() -> Result<Arc<Drain>> {
    let mut shared = lock_shared();
    if let Some(drain) = shared.upgrade() {
        return Ok(drain);
    }
    let drain = Arc::new(Drain::start()?);
    *shared = Arc::downgrade(&drain);
    Ok(drain)
}

impl BufferedReader {
    /// Subscribes to `mask` on `gpu`, buffering at most `limit` bytes
    /// ([`DEFAULT_LIMIT`](crate::DEFAULT_LIMIT): some 750,000 events). The subscription is live when this
    /// returns.
    ///
    /// # Errors
    /// As [`EventReader::open`].
    pub fn open(machine: &Machine, gpu: &Gpu, mask: EventMask, limit: usize) -> Result<Self> {
        let reader = EventReader::open(machine, gpu, mask)?;
        let drain = shared_drain()?;
        let subscriber = Subscriber::new(Filter::new(), limit);
        let subscribers = Subscribers::with_mask_of_reader();
        drain.subscribe(&subscribers, Arc::clone(&subscriber));
        let drained = drain.add(reader, subscribers, None)?;
        let subscription = Subscription::new(subscriber);
        Ok(Self { gpu: gpu.id, subscription, drained: Some(drained), drain: Some(drain) })
    }

    /// Which GPU it reads.
    #[must_use]
    pub fn gpu(&self) -> GpuId {
        self.gpu
    }

    /// Subscribes to `mask` from now on. What the driver has already queued still comes.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub fn set_mask(&self, mask: EventMask) -> Result<()> {
        self.drained.as_ref().map_or(Ok(()), |drained| drained.set_mask(mask))
    }

    /// The next item if there is one, what the driver still holds included. Never waits.
    pub fn try_next(&mut self) -> Option<Item> {
        self.view_next().map(Item::from)
    }

    /// As [`try_next`](Self::try_next), but the item stays where it waits, until the next is asked for.
    pub fn view_next(&mut self) -> Option<ItemView<'_>> {
        if !self.subscription.has_next() {
            self.drained.as_ref()?.drain_now();
        }
        self.subscription.view_next()
    }

    /// The next item, waiting at most `timeout`, or for ever. `None` where none came, or after
    /// [`stop`](Self::stop).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Option<Item> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let item = self.try_next();
        if item.is_some() || self.drained.is_none() {
            return item;
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        self.subscription.wait(left)
    }

    /// As [`Subscription::ready_fd`].
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn ready_fd(&mut self) -> Result<BorrowedFd<'_>> {
        self.subscription.ready_fd()
    }

    /// Closes the event file; what was read before can still be taken, and whoever polls
    /// [`ready_fd`](Self::ready_fd) is woken. Repeating it does nothing.
    pub fn stop(&mut self) {
        self.drained = None;
        self.drain = None;
        self.subscription.end();
    }
}
