//! What waits for a sink: in memory, or in memory and on disk.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::lock;
use super::{Notice, Shared, add};
use crate::sink::message::Message;
use crate::sink::spool::Spool;

/// Messages that one write to disk holds, at most.
const WRITE_BATCH: usize = 1024;
/// How long a disk that fails is left alone.
const DISK_REST: Duration = Duration::from_secs(1);

/// The spool and who takes from where.
pub(super) struct Backlog {
    spool: Spool,
    /// The last write failed: what waits in memory is delivered from there.
    failing: bool,
    /// What is being delivered is still in the memory queue: it must not go to disk meanwhile.
    lent_from_memory: bool,
}

impl Backlog {
    pub(super) const fn new(spool: Spool) -> Self {
        Self { spool, failing: false, lent_from_memory: false }
    }
}

impl Shared {
    /// The first `most` messages that wait; they stay until [`done`](Self::done), or until
    /// [`keep`](Self::keep) says that they were not delivered.
    pub(super) fn peek(&self, most: usize) -> io::Result<Vec<Message>> {
        let mut backlog = lock(&self.backlog);
        let Some(backlog) = &mut *backlog else {
            return Ok(if self.is_spooled() { Vec::new() } else { self.peek_memory(most) });
        };
        let on_disk = backlog.spool.peek(most)?;
        if !on_disk.is_empty() || !backlog.failing {
            return Ok(on_disk);
        }
        backlog.lent_from_memory = true;
        Ok(self.peek_memory(most))
    }

    fn peek_memory(&self, most: usize) -> Vec<Message> {
        let mut queue = lock(&self.queue);
        if queue.size().0 == 0 {
            queue.tell_missing(|missing| self.marker(missing));
        }
        queue.peek(most)
    }

    /// The first `count` of the last [`peek`](Self::peek) are delivered or put aside.
    pub(super) fn done(&self, count: usize) {
        let mut backlog = lock(&self.backlog);
        match &mut *backlog {
            Some(backlog) if !backlog.lent_from_memory => {
                if let Err(error) = backlog.spool.done(count) {
                    self.tell_spool_error(&error);
                }
                self.note_size(&backlog.spool);
            }
            Some(backlog) => {
                backlog.lent_from_memory = false;
                lock(&self.queue).remove(count);
            }
            None if self.is_spooled() => {}
            None => lock(&self.queue).remove(count),
        }
        self.counts.full.store(false, Ordering::Relaxed);
        if self.is_spooled() {
            self.bell.ring();
        }
    }

    /// The last [`peek`](Self::peek) was not delivered.
    pub(super) fn keep(&self) {
        let mut backlog = lock(&self.backlog);
        if let Some(backlog) = &mut *backlog
            && std::mem::take(&mut backlog.lent_from_memory)
        {
            // It may go to disk now, if that works again.
            self.bell.ring();
        }
    }

    /// The ids of what waits on disk.
    pub(super) fn ids_on_disk(&self) -> HashSet<Arc<str>> {
        lock(&self.backlog).as_ref().map(|backlog| backlog.spool.ids()).unwrap_or_default()
    }

    pub(super) fn note_size(&self, spool: &Spool) {
        self.counts.spooled.store(spool.messages(), Ordering::Relaxed);
        self.counts.spool_bytes.store(spool.bytes(), Ordering::Relaxed);
        let damaged = spool.damaged();
        let known = self.counts.damaged.swap(damaged, Ordering::Relaxed);
        if damaged > known {
            add(&self.counts.lost, damaged - known);
            (self.report)(&self.name, &Notice::Damaged { count: damaged - known });
        }
    }

    fn tell_spool_error(&self, error: &io::Error) {
        (self.report)(&self.name, &Notice::Spool { error: error.to_string() });
    }

    /// Moves the first messages from memory to disk and tells how many.
    fn save(&self) -> io::Result<usize> {
        let mut backlog = lock(&self.backlog);
        let Some(backlog) = &mut *backlog else { return Ok(0) };
        if backlog.lent_from_memory {
            return Ok(0);
        }
        let batch = self.peek_memory(WRITE_BATCH);
        let saved = backlog.spool.append(&batch);
        let failed_before = std::mem::replace(&mut backlog.failing, saved.is_err());
        self.note_size(&backlog.spool);
        match saved {
            Ok(count) => {
                lock(&self.queue).remove(count);
                Ok(count)
            }
            Err(error) => {
                if !failed_before {
                    self.tell_spool_error(&error);
                }
                Err(error)
            }
        }
    }
}

/// The thread that brings messages to disk as they come.
pub(super) fn write(shared: &Shared) {
    loop {
        let heard = shared.bell.heard();
        let closed = shared.is_closed();
        match shared.save() {
            Ok(0) if closed => break,
            Ok(0) => shared.bell.wait(heard, None),
            Ok(_) => shared.bell.ring(),
            Err(_) => {
                shared.bell.ring();
                if closed {
                    break;
                }
                let until = Instant::now() + DISK_REST;
                while Instant::now() < until && !shared.is_closed() {
                    shared.bell.wait(shared.bell.heard(), Some(until));
                }
            }
        }
    }
    shared.written.store(true, Ordering::Release);
    shared.bell.ring();
}
