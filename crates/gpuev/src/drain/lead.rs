//! Who waits for events reads them.
//!
//! An event that comes alone would wake two threads: the draining one, and by it the subscriber. So a subscriber who
//! waits does so where the draining thread waits, and drains in its place: he *leads*. `epoll_wait` wakes who came
//! last, which is he; while he is busy with what he took, the draining thread is woken. Nothing depends on who it
//! is, and one of them is always there.
//!
//! At most one leads; the others wait on their queues. In a storm nobody does: events gather then (`crate::pace`).

use std::sync::PoisonError;
use std::time::Instant;

use super::{FREE_ROOM, Shared};
use crate::queue::{Queue, Waited};

/// The right to lead, until dropped.
struct Lead<'a>(&'a Shared);

impl<'a> Lead<'a> {
    /// None where another leads or drains, in a storm, and at the end.
    fn take(shared: &'a Shared) -> Option<Self> {
        let mut sources = shared.sources.try_lock().ok()?;
        if sources.led || sources.stopped || sources.pace.pause().is_some() {
            return None;
        }
        sources.led = true;
        Some(Self(shared))
    }
}

impl Drop for Lead<'_> {
    /// Leaves what is left to do to the draining thread.
    fn drop(&mut self) {
        let mut sources = self.0.lock();
        sources.led = false;
        let awaited = std::mem::take(&mut sources.awaits_leave);
        let unfinished = sources.stopped || !sources.ready.is_empty();
        drop(sources);
        if awaited {
            self.0.left.notify_all();
        }
        if unfinished {
            self.0.wake();
        }
    }
}

impl Shared {
    /// Waits until `queue` holds something, at most until `deadline`, and drains meanwhile. `None` where that is not
    /// for this thread to do now: it waits on the queue.
    pub(crate) fn lead(&self, queue: &Queue, deadline: Option<Instant>) -> Option<Waited> {
        let lead = Lead::take(self)?;
        let mut room = FREE_ROOM;
        loop {
            // From here on, who puts something into the queue wakes this thread.
            if let Some(waited) = queue.attend(&self.wake) {
                return Some(waited);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                queue.turn_away();
                return Some(Waited::TimedOut);
            }
            let waited = self.wait(&mut room, left);
            queue.turn_away();
            self.turn(waited.ok()?);
            if lead.0.lock().stopped {
                return None;
            }
        }
    }

    /// The draining thread was woken. It may have been meant for him who leads: then he is woken, and as nobody else
    /// waits until he has left, it is he who is.
    pub(super) fn pass_wake_on(&self) {
        let mut sources = self.lock();
        if !sources.led {
            return;
        }
        self.wake();
        while sources.led && !sources.stopped {
            sources.awaits_leave = true;
            sources = self.left.wait(sources).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
