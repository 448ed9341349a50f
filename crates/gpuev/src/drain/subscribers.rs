//! The subscribers of one or several readers.

use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;

use super::Shared;
use crate::event::Gap;
use crate::subscription::Subscriber;
use crate::sync::{Mutex, MutexGuard};
use crate::{EventMask, GpuId};

type List = Mutex<Vec<Arc<Subscriber>>>;

/// Subscribers of one or several readers.
#[derive(Debug, Clone)]
pub(crate) struct Subscribers {
    list: Arc<List>,
    /// The driver is asked for what they want; else each reader keeps the mask that it has.
    choose_mask: bool,
}

/// What fills a subscriber's queue.
#[derive(Debug)]
pub(crate) struct Feed {
    drain: Weak<Shared>,
    list: Weak<List>,
}

/// Tasks to wake once no lock is held: a waker may run or drop anything.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Subscribers {
    /// None yet. The driver is asked for what they will want.
    pub(crate) fn new() -> Self {
        Self { list: Arc::default(), choose_mask: true }
    }

    /// None yet, of readers that keep their masks.
    pub(crate) fn with_mask_of_reader() -> Self {
        Self { list: Arc::default(), choose_mask: false }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, drain: Weak<Shared>, subscriber: Arc<Subscriber>) {
        subscriber.fed_by(Feed { drain, list: Arc::downgrade(&self.list) });
        self.lock().push(subscriber);
    }

    /// What the driver must queue of `gpu` so that each gets what it wants.
    pub(crate) fn mask_for(&self, gpu: GpuId) -> EventMask {
        let masks = self.lock();
        masks.iter().fold(EventMask::NONE, |mask, one| mask.union(one.mask_for(gpu)))
    }

    /// As [`mask_for`](Self::mask_for); `None` where the reader keeps the mask that it has.
    pub(super) fn chosen_mask(&self, gpu: GpuId) -> Option<EventMask> {
        self.choose_mask.then(|| self.mask_for(gpu))
    }

    pub(crate) fn close(&self) {
        let closed = std::mem::take(&mut *self.lock());
        closed.iter().for_each(|subscriber| subscriber.close());
    }

    /// Hands a gap to all, at once.
    pub(crate) fn tell(&self, gap: &Gap) {
        let mut wakers = Wakers::default();
        for subscriber in self.lock().iter() {
            subscriber.offer_gap(gap);
            wakers.add(subscriber.wake());
        }
        wakers.wake();
    }
}

impl Feed {
    pub(crate) fn drain(&self) -> Option<Arc<Shared>> {
        self.drain.upgrade()
    }

    /// Nothing more is wanted for `subscriber`: the driver is asked for what the others want.
    pub(crate) fn leave(&self, subscriber: &Arc<Subscriber>) {
        if let Some(list) = self.list.upgrade() {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|other| !Arc::ptr_eq(other, subscriber));
        }
        if let Some(drain) = self.drain() {
            drain.follow_masks();
        }
    }
}

impl Wakers {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    /// Wakes all. The caller holds no lock.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.more).for_each(Waker::wake);
    }
}
