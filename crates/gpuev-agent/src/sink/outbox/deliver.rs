//! The thread that gives messages to a sink: in order, again after a failure, never the same one twice after
//! it was taken.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gpuev::json::Object;
use gpuev::time::{Anchor, Rfc3339};

use super::queue::lock;
use super::{Notice, Shared, add};
use crate::sink::backoff::Backoff;
use crate::sink::message::{Kind, Message};
use crate::sink::rotate::RotatingFile;
use crate::sink::{Failure, Sink};

/// What is kept of dead letters: this much, and as much again of older ones.
const DEAD_LETTER_BYTES: u64 = 4 << 20;

pub(super) struct Deliverer {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    backoff: Backoff,
    failures: u64,
    /// What was told last of receivers that do not get what others get.
    missed: BTreeSet<String>,
    /// Since when the first message that waits has failed.
    stuck_since: Option<Instant>,
    /// So many messages go one by one: one of them spoiled a batch.
    one_by_one: usize,
    next_upkeep: Option<Instant>,
    dead_letters: Option<RotatingFile>,
}

impl Deliverer {
    pub(super) fn new(shared: Arc<Shared>, sink: Box<dyn Sink>) -> Self {
        let settings = &shared.settings;
        let backoff = Backoff::new(settings.retry_first.0, settings.retry_most.0);
        Self {
            shared,
            sink,
            backoff,
            failures: 0,
            missed: BTreeSet::new(),
            stuck_since: None,
            one_by_one: 0,
            next_upkeep: None,
            dead_letters: None,
        }
    }

    pub(super) fn run(&mut self) {
        while self.step() {}
        self.shared.ended.store(true, Ordering::Release);
        self.shared.bell.ring();
    }

    /// One delivery, or one wait. `false`: it is over.
    fn step(&mut self) -> bool {
        let heard = self.shared.bell.heard();
        let closed = self.shared.is_closed();
        if closed && self.is_too_late() {
            return false;
        }
        self.upkeep();
        let most = if self.one_by_one > 0 { 1 } else { self.sink.batch() };
        let batch = match self.shared.peek(most) {
            Ok(batch) => batch,
            Err(error) => {
                self.failed(&unreadable(&error));
                return self.rest(None);
            }
        };
        if !batch.is_empty() {
            return match self.deliver(&batch) {
                Ok(()) => true,
                Err(wait) => self.rest(wait),
            };
        }
        if closed && (!self.shared.is_spooled() || self.shared.written.load(Ordering::Acquire)) {
            return false;
        }
        self.shared.bell.wait(heard, self.next_upkeep);
        true
    }

    fn is_too_late(&self) -> bool {
        lock(&self.shared.deadline).is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Tries once; `Err` has what the server asked for as the wait.
    fn deliver(&mut self, batch: &[Message]) -> Result<(), Option<Duration>> {
        match self.sink.deliver(batch) {
            Ok(refused) => {
                self.worked();
                self.tell_misses();
                let refused = refused.min(batch.len());
                self.count_delivered(&batch[refused..]);
                add(&self.shared.counts.dead_letters, refused as u64);
                self.finish(batch.len());
                Ok(())
            }
            Err(Failure::Refused(_)) if batch.len() > 1 => {
                self.one_by_one = batch.len();
                self.shared.keep();
                Ok(())
            }
            Err(Failure::Refused(error)) => {
                self.worked();
                self.put_aside(&batch[0], &error);
                self.finish(1);
                Ok(())
            }
            Err(Failure::Later { error, after }) => {
                self.failed(&error);
                let give_up = self.shared.settings.give_up.0;
                let since = *self.stuck_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= give_up {
                    self.put_aside(&batch[0], &error);
                    self.finish(1);
                } else {
                    self.shared.keep();
                }
                Err(after)
            }
        }
    }

    /// The first `count` messages are done with.
    fn finish(&mut self, count: usize) {
        self.stuck_since = None;
        self.one_by_one = self.one_by_one.saturating_sub(count);
        self.shared.done(count);
    }

    fn count_delivered(&self, messages: &[Message]) {
        let own = messages.iter().filter(|message| message.kind == Kind::Lost).count();
        add(&self.shared.counts.delivered, (messages.len() - own) as u64);
    }

    fn worked(&mut self) {
        self.backoff.reset();
        let failures = std::mem::take(&mut self.failures);
        if lock(&self.shared.failing).take().is_some() {
            (self.shared.report)(&self.shared.name, &Notice::Recovered { failures });
        }
    }

    /// The same again is counted, and no news.
    fn tell_misses(&mut self) {
        let misses = self.sink.take_misses();
        add(&self.shared.counts.missed, misses.len() as u64);
        let misses = BTreeSet::from_iter(misses);
        for error in misses.difference(&self.missed) {
            (self.shared.report)(&self.shared.name, &Notice::Missed { error: error.clone() });
        }
        self.missed = misses;
    }

    fn failed(&mut self, error: &str) {
        self.failures += 1;
        add(&self.shared.counts.failures, 1);
        let before = lock(&self.shared.failing).replace(error.to_owned());
        // The same again is no news.
        if before.is_none_or(|before| before != error) {
            let notice = Notice::Failing { error: error.to_owned() };
            (self.shared.report)(&self.shared.name, &notice);
        }
    }

    /// Waits before the next try, as long as the server asks for where it asks for more. While stopping, waits
    /// are short: the deadline is near.
    fn rest(&mut self, asked: Option<Duration>) -> bool {
        let most = self.shared.settings.retry_most.0;
        let wait = self.backoff.next().max(asked.unwrap_or_default().min(most));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let heard = self.shared.bell.heard();
            if self.shared.is_closed() {
                let deadline = *lock(&self.shared.deadline);
                let short = Instant::now() + wait.min(Duration::from_millis(100));
                self.shared.bell.wait(heard, Some(deadline.map_or(short, |end| end.min(short))));
                return !self.is_too_late();
            }
            self.shared.bell.wait(heard, Some(until));
        }
        true
    }

    /// Looks after the sink where that is due.
    fn upkeep(&mut self) {
        let Some(every) = self.sink.upkeep_every() else {
            self.next_upkeep = None;
            return;
        };
        let now = Instant::now();
        if now < *self.next_upkeep.get_or_insert(now + every) {
            return;
        }
        // Also when nothing else comes: without a time the wait for messages has no end.
        self.next_upkeep = Some(now + every);
        match self.sink.upkeep() {
            Ok(()) => self.worked(),
            Err(Failure::Refused(error) | Failure::Later { error, .. }) => {
                self.failed(&error);
                self.next_upkeep = Some(now + self.backoff.next());
            }
        }
    }

    /// A message that will never be taken: counted, told, and kept where there is a spool.
    fn put_aside(&mut self, message: &Message, error: &str) {
        let shared = &self.shared;
        add(&shared.counts.dead_letters, 1);
        let notice = Notice::DeadLetter { id: message.id.clone(), error: error.to_owned() };
        (shared.report)(&shared.name, &notice);
        let Some(folder) = &shared.folder else { return };
        let line = dead_letter(&shared.name, message, error);
        if let Err(error) = write_dead_letter(&mut self.dead_letters, folder, &line) {
            let error = format!("dead-letters.ndjson: {error}");
            (shared.report)(&shared.name, &Notice::Spool { error });
        }
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("its spool cannot be read: {error}")
}

fn dead_letter(sink: &str, message: &Message, error: &str) -> String {
    let mut line = String::new();
    let mut object = Object::begin(&mut line, "dead_letter");
    object.text("sink", sink);
    object.text("id", &message.id);
    object.text("time", Rfc3339(Anchor::now().unix_ns));
    object.text("error", error);
    object.raw("message", &message.json);
    object.end();
    line.push('\n');
    line
}

fn write_dead_letter(file: &mut Option<RotatingFile>, folder: &Path, line: &str) -> io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => {
            let path = folder.join("dead-letters.ndjson");
            file.insert(RotatingFile::open(&path, DEAD_LETTER_BYTES, 1)?)
        }
    };
    file.write(line.as_bytes())
}
