//! A subscriber that waits drains.
//!
//! An event that comes alone would wake two threads: the draining one, and by it the subscriber. So a subscriber that
//! waits runs the loop of the draining thread ([`Shared::work`]) until it has something. While the subscriber is busy
//! with what it took, the kernel wakes the draining thread. Nothing depends on which thread it is, and one of them is
//! always there.
//!
//! At most one subscriber drains; the others wait on their queues. In a storm none does: events gather then
//! (`crate::pace`).

use std::time::Instant;

use super::Shared;
use crate::queue::{Queue, Waited};

/// The right to drain inline, until dropped.
struct Inline<'a>(&'a Shared);

impl<'a> Inline<'a> {
    /// None where another subscriber has it or a thread is draining, in a storm, and at the end.
    fn take(shared: &'a Shared) -> Option<Self> {
        let mut sources = shared.sources.try_lock().ok()?;
        if sources.inline || sources.stopped || sources.pace.pause().is_some() {
            return None;
        }
        sources.inline = true;
        Some(Self(shared))
    }
}

impl Drop for Inline<'_> {
    /// Leaves what is unfinished to the draining thread.
    fn drop(&mut self) {
        let mut sources = self.0.lock();
        sources.inline = false;
        let is_awaited = std::mem::take(&mut sources.awaits_inline);
        let must_go_on = sources.stopped || sources.has_work();
        drop(sources);
        if is_awaited {
            self.0.inline_over.notify_all();
        }
        if must_go_on {
            self.0.poller.wake();
        }
    }
}

impl Shared {
    /// Waits until `queue` holds something, at most until `deadline`, and drains meanwhile. `None` where this thread
    /// is not to drain now: it waits on the queue.
    pub(crate) fn drain_inline(&self, queue: &Queue, deadline: Option<Instant>) -> Option<Waited> {
        let _inline = Inline::take(self)?;
        self.work(Some(queue), deadline)
    }

    /// The draining thread took a wake-up that may have been meant for the subscriber that drains. Passes it on and
    /// waits until that subscriber is done: meanwhile no other thread can take it.
    pub(super) fn pass_wake_up_on(&self) {
        let mut sources = self.lock();
        if !sources.inline {
            return;
        }
        self.poller.wake();
        while sources.inline && !sources.stopped {
            sources.awaits_inline = true;
            sources =
                self.inline_over.wait(sources).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}
