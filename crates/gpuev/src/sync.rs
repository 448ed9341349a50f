//! Threads and locks: the standard library's, or `shuttle`'s, which tries many interleavings of threads
//! (`RUSTFLAGS="--cfg gpuev_shuttle" cargo test -p gpuev interleavings`).

#[cfg(gpuev_shuttle)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, mpsc};
#[cfg(gpuev_shuttle)]
pub(crate) use shuttle::thread;
#[cfg(not(gpuev_shuttle))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, mpsc};
#[cfg(not(gpuev_shuttle))]
pub(crate) use std::thread;
