//! The bounded queue before a sink, and the bell that wakes its threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sink::message::Message;

/// A lock whose holder cannot panic half-way through a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that wait in memory. Those that find it full are not taken, and counted.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Message>,
    bytes: usize,
    most_messages: usize,
    most_bytes: usize,
    /// Not taken since the last one that was.
    missing: u64,
}

/// What became of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits; it is the first that does.
    First,
    /// It waits.
    Taken,
    /// There is no room.
    Full,
}

impl Queue {
    pub(super) fn new(most_messages: usize, most_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, most_messages, most_bytes, missing: 0 }
    }

    /// Puts `message` last. Where others before it found no room, what `marker` makes of their number stands
    /// in their place.
    pub(super) fn offer(
        &mut self,
        message: &Message,
        marker: impl FnOnce(u64) -> Option<Message>,
    ) -> Offered {
        let first = self.waiting.is_empty();
        let room = self.waiting.len() < self.most_messages;
        // One that is larger than the whole queue still passes where nothing waits.
        if !first && (!room || self.bytes + message.bytes() > self.most_bytes) {
            self.missing += 1;
            return Offered::Full;
        }
        self.tell_missing(marker);
        self.push(message.clone());
        if first { Offered::First } else { Offered::Taken }
    }

    /// Puts what `marker` makes of the number of those that found no room in their place.
    pub(super) fn tell_missing(&mut self, marker: impl FnOnce(u64) -> Option<Message>) {
        let missing = std::mem::take(&mut self.missing);
        if missing > 0
            && let Some(marker) = marker(missing)
        {
            self.push(marker);
        }
    }

    fn push(&mut self, message: Message) {
        self.bytes += message.bytes();
        self.waiting.push_back(message);
    }

    /// The first `most` messages; they stay.
    pub(super) fn peek(&self, most: usize) -> Vec<Message> {
        self.waiting.iter().take(most).cloned().collect()
    }

    /// The first `count` messages are done with.
    pub(super) fn remove(&mut self, count: usize) {
        for message in self.waiting.drain(..count.min(self.waiting.len())) {
            self.bytes -= message.bytes();
        }
    }

    /// Everything that waits; nothing stays.
    pub(super) fn take_all(&mut self) -> VecDeque<Message> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }
}

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
