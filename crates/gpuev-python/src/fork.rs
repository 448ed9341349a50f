//! fork(): what the parent made goes on in the parent and is gone in the child.
//!
//! Python calls three functions around a fork. In the child every descriptor of before is closed by number,
//! and what Rust made before is never touched again, not even to drop it: [`Local`] sees to that.
//!
//! Between the first and the others, other hooks may run Python code, and so other threads with the
//! interpreter's lock. None of them may then wait for the locks that are held here with that lock in hand:
//! everything that opens or closes does so detached ([`quietly`]).

use std::cell::RefCell;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use gpuev::fork::Forking;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Counts the forks that led to this process.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Held shared by who is opening something: a fork waits for him.
static OPENING: RwLock<()> = RwLock::new(());

struct Held {
    // Dropped in this order.
    forking: Forking,
    _opening: RwLockWriteGuard<'static, ()>,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

fn shared() -> RwLockReadGuard<'static, ()> {
    OPENING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `open`, which may open descriptors, without the interpreter's lock and not during a fork.
pub(crate) fn quietly<T: Send>(py: Python<'_>, open: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        let _no_fork = shared();
        open()
    })
}

#[pyfunction]
fn before_fork(py: Python<'_>) {
    let opening = loop {
        match OPENING.try_write() {
            Ok(guard) => break guard,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            // Someone opens something, or another thread is forking: wait without the interpreter's lock.
            Err(TryLockError::WouldBlock) => py.detach(|| drop(shared())),
        }
    };
    let held = Held { forking: gpuev::fork::prepare(), _opening: opening };
    HELD.with_borrow_mut(|place| *place = Some(held));
}

#[pyfunction]
fn after_fork_in_parent() {
    if let Some(held) = HELD.take() {
        held.forking.in_parent();
    }
}

#[pyfunction]
fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let Some(held) = HELD.take() else { return };
    for number in held.forking.in_child() {
        // SAFETY: the library had it open when the fork happened and gave it up; its owners in this process
        // are forgotten, see `Local`.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// Has Python call the functions above.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, py)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork_in_parent, py)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, py)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks))?;
    Ok(())
}

/// A value that only the process which made it has. A child sees none, and never drops it.
///
/// Dropping it closes descriptors and may end threads, which happens without the interpreter's lock.
pub(crate) struct Local<T: Send> {
    value: Option<T>,
    generation: u64,
}

impl<T: Send> Local<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), generation: generation() }
    }

    /// The value itself, in the process that made it.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        if self.generation == generation() { self.value.take() } else { None }
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.generation == generation())
    }
}

impl<T: Send> Drop for Local<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        if self.generation != generation() {
            std::mem::forget(value);
            return;
        }
        let mut value = Some(value);
        // At the interpreter's end there is no lock to let go of.
        let _finalizing = Python::try_attach(|py| py.detach(|| drop(value.take())));
        drop(value);
    }
}
