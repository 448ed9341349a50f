//! A thread that writes the latest of a value to disk, so that nobody waits for a disk that hangs.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the end waits for the last value.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Writes the latest of the values that it is given. Of those that come while it writes, the last is next.
#[derive(Debug)]
pub(crate) struct LatestWriter<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T> {
    slot: Mutex<Slot<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    next: Option<T>,
    /// Values that were given, and how many of them are written, replaced, or failed.
    given: u64,
    done: u64,
    /// Why the last of these was not written.
    failure: Option<String>,
    closed: bool,
}

/// What became of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is on disk, or a later one is.
    Yes,
    /// It could not be written.
    Failed(String),
    /// The disk has not answered yet.
    Late,
}

impl<T: Send + 'static> LatestWriter<T> {
    /// Starts the thread, which calls `write`.
    ///
    /// # Errors
    /// No thread is left.
    pub(crate) fn start(
        name: &str,
        mut write: impl FnMut(T) -> Result<(), String> + Send + 'static,
    ) -> io::Result<Self> {
        let slot = Slot { next: None, given: 0, done: 0, failure: None, closed: false };
        let shared = Arc::new(Shared { slot: Mutex::new(slot), changed: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            while let Some((value, number)) = for_thread.next() {
                let written = write(value);
                let mut slot = for_thread.lock();
                (slot.done, slot.failure) = (number, written.err());
                for_thread.changed.notify_all();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has `value` written; never waits. The number is for [`wait`](Self::wait).
    pub(crate) fn put(&self, value: T) -> u64 {
        let mut slot = self.shared.lock();
        slot.next = Some(value);
        slot.given += 1;
        self.shared.changed.notify_all();
        slot.given
    }

    /// Waits until the value of this number is written, for at most `patience`.
    pub(crate) fn wait(&self, number: u64, patience: Duration) -> Written {
        let until = Instant::now() + patience;
        let mut slot = self.shared.lock();
        while slot.done < number {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Written::Late;
            }
            let waited = self.shared.changed.wait_timeout(slot, left);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        slot.failure.clone().map_or(Written::Yes, Written::Failed)
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next value with its number; `None` at the end.
    fn next(&self) -> Option<(T, u64)> {
        let mut slot = self.lock();
        loop {
            if let Some(value) = slot.next.take() {
                return Some((value, slot.given));
            }
            if slot.closed {
                return None;
            }
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for LatestWriter<T> {
    fn drop(&mut self) {
        let until = Instant::now() + END_PATIENCE;
        let mut slot = self.shared.lock();
        slot.closed = true;
        self.shared.changed.notify_all();
        while slot.done < slot.given && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let waited = self.shared.changed.wait_timeout(slot, left);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let ended = slot.done == slot.given;
        drop(slot);
        if ended && let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_latest_is_written_and_a_hung_disk_delays_nobody() {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (wrote, written) = mpsc::channel();
        let writer = LatestWriter::start("test", move |value: u32| {
            let _ended = may_go_on.recv();
            wrote.send(value).map_err(|error| error.to_string())?;
            if value == 5 { Err("full".to_owned()) } else { Ok(()) }
        })
        .unwrap();
        let first = writer.put(1);
        assert_eq!(writer.wait(first, Duration::ZERO), Written::Late);
        go_on.send(()).unwrap();
        assert_eq!(writer.wait(first, Duration::from_secs(60)), Written::Yes);
        let last = [3, 4, 5].map(|value| writer.put(value))[2];
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        let failed = writer.wait(last, Duration::from_secs(60));
        assert_eq!(failed, Written::Failed("full".to_owned()));
        drop(go_on);
        drop(writer);
        let all: Vec<u32> = written.iter().collect();
        assert!(all.starts_with(&[1]) && all.ends_with(&[5]) && all.len() <= 3, "{all:?}");
    }
}
