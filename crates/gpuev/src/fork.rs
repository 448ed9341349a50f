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

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::buffered;
use crate::drain::Drain;

/// Every descriptor that this library keeps open.
static DESCRIPTORS: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Read while a descriptor is opened and not yet in [`DESCRIPTORS`], written by a fork.
static OPENING: RwLock<()> = RwLock::new(());

thread_local! {
    /// This thread has [`OPENING`]. To take it again could wait for a fork that waits for this thread.
    static HAS_OPENING: Cell<bool> = const { Cell::new(false) };
}

/// While it is held, no fork begins: what is opened meanwhile must be registered, or closed again, before it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Opening(Option<RwLockReadGuard<'static, ()>>);

pub(crate) fn opening() -> Opening {
    let is_first = !HAS_OPENING.replace(true);
    Opening(is_first.then(|| OPENING.read().unwrap_or_else(PoisonError::into_inner)))
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.0.is_some() {
            HAS_OPENING.set(false);
        }
    }
}

fn descriptors() -> MutexGuard<'static, BTreeSet<RawFd>> {
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Taken before the fork, on the thread that forks. While it is held, no descriptor of this library is
/// opened or closed: other threads wait. Never wait for another thread in the meantime.
#[derive(Debug)]
pub struct Forking {
    // The order of locking, too: starting the shared thread opens descriptors.
    shared_drain: MutexGuard<'static, Weak<Drain>>,
    _no_opening: RwLockWriteGuard<'static, ()>,
    descriptors: MutexGuard<'static, BTreeSet<RawFd>>,
}

/// To be called right before the fork.
#[must_use]
pub fn prepare() -> Forking {
    Forking {
        shared_drain: buffered::lock_shared(),
        _no_opening: OPENING.write().unwrap_or_else(PoisonError::into_inner),
        descriptors: descriptors(),
    }
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

impl Descriptor {
    /// What `open` opens; no fork comes in between.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        let _opening = opening();
        let fd = open()?;
        Ok(Self { _registration: Registration::of(&fd), fd })
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// Not under shuttle, whose channels live in a run of its own only.
#[cfg(all(test, not(gpuev_shuttle)))]
mod tests {
    use gpuev_sim::{Client, SimMachine};

    use super::*;
    use crate::{EventMask, EventReader, KfdVersion, Machine, Monitor, OpenWith, Scope};

    /// Whether a fork must wait until this thread has registered what it opens.
    fn no_fork_begins() -> bool {
        HAS_OPENING.get()
    }

    #[test]
    fn a_descriptor_is_registered_before_a_fork_can_copy_it() {
        let before = no_fork_begins();
        let descriptor = Descriptor::open(|| {
            assert!(no_fork_begins() && OPENING.try_write().is_err());
            rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
        });
        let descriptor = descriptor.unwrap();
        assert!(!before && !no_fork_begins());
        assert!(descriptors().contains(&descriptor.as_fd().as_raw_fd()));
    }

    #[test]
    fn an_event_file_is_registered_before_a_fork_can_copy_it() {
        let sim = SimMachine::builder().gpus(3).build().unwrap();
        let (major, minor) = sim.kfd_version();
        let opener = sim.clone();
        let open = move |gpu: &crate::Gpu| {
            assert!(no_fork_begins(), "of GPU {}", gpu.id.index);
            opener.open_events(gpu.id.kfd_id, &Client::root())
        };
        let source = OpenWith::new(KfdVersion { major, minor }, Scope::everything("a test"), open);
        let machine = Machine::at(sim.root()).with_event_source(source);
        let gpu = machine.gpus().unwrap().remove(0);
        let reader = EventReader::open(&machine, &gpu, EventMask::ALL).unwrap();
        assert!(descriptors().contains(&reader.as_fd().as_raw_fd()));
        let monitor = Monitor::start(&machine).unwrap();
        assert!(monitor.gpus().len() == 3 && !no_fork_begins());
    }
}
