//! What a process must know when it forks.
//!
//! The child of a fork has a copy of every descriptor and none of the threads: locks that another thread
//! held stay locked for ever, and dropping a reader or a monitor would change the parent's epoll and wake
//! its threads. So the child must let go of all that was made before without touching it, and close the
//! descriptors by number. This module keeps the numbers.
//!
//! ```
//! let before = gpuev::fork::prepare();
//! // fork() here; then, in the parent:
//! before.in_parent();
//! // and in the child: for fd in before.in_child() { close(fd) }
//! ```
//!
//! Of the readers, monitors and subscriptions of before, the child may only `forget` what it has. New ones
//! it may make as ever.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use crate::buffered;
use crate::drain::Drain;

/// Every descriptor that this library keeps open.
static DESCRIPTORS: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

fn descriptors() -> MutexGuard<'static, BTreeSet<RawFd>> {
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Taken before the fork, on the thread that forks. While it is held, no descriptor of this library is
/// opened or closed: other threads wait. Never wait for another thread in the meantime.
#[derive(Debug)]
pub struct Forking {
    // The order of locking, too: starting the shared thread registers descriptors.
    shared_drain: MutexGuard<'static, Weak<Drain>>,
    descriptors: MutexGuard<'static, BTreeSet<RawFd>>,
}

/// To be called right before the fork.
#[must_use]
pub fn prepare() -> Forking {
    Forking { shared_drain: buffered::lock_shared(), descriptors: descriptors() }
}

impl Forking {
    /// After the fork, in the parent: all goes on.
    pub fn in_parent(self) {}

    /// After the fork, in the child: the descriptors that it must close, by number, before it opens any other.
    #[must_use]
    pub fn in_child(mut self) -> Vec<RawFd> {
        // Its thread is the parent's: the next reader starts another.
        *self.shared_drain = Weak::new();
        std::mem::take(&mut *self.descriptors).into_iter().collect()
    }
}

/// That a descriptor is open. Must be dropped before the descriptor: the number of a closed one may already
/// be somebody else's.
#[derive(Debug)]
pub(crate) struct Registration(RawFd);

impl Registration {
    pub(crate) fn of(fd: &impl AsFd) -> Self {
        let number = fd.as_fd().as_raw_fd();
        descriptors().insert(number);
        Self(number)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        descriptors().remove(&self.0);
    }
}

/// A descriptor with its registration.
#[derive(Debug)]
pub(crate) struct Descriptor {
    _registration: Registration,
    fd: OwnedFd,
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        Self { _registration: Registration::of(&fd), fd }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
