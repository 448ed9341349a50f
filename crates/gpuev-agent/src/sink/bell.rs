//! The bell that wakes a thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wakes whoever waits. A ring between looking and waiting is not missed.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<u64>,
    wake: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *lock(&self.rung) += 1;
        self.wake.notify_all();
    }

    /// How often it rang. Take this before looking for work.
    pub(super) fn heard(&self) -> u64 {
        *lock(&self.rung)
    }

    /// Sleeps until it has rung more often than `heard`, or until `until`.
    pub(super) fn wait(&self, heard: u64, until: Option<Instant>) {
        let mut rung = lock(&self.rung);
        while *rung == heard {
            rung = match until {
                None => self.wake.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return;
                    }
                    let waited = self.wake.wait_timeout(rung, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn lock(rung: &Mutex<u64>) -> MutexGuard<'_, u64> {
    rung.lock().unwrap_or_else(PoisonError::into_inner)
}
