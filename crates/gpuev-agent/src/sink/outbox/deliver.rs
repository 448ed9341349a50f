//! The thread that gives messages to a sink.
//!
//! Two kinds of failure, two kinds of waiting. A receiver that cannot be reached stops the line: nothing is tried until
//! its back-off is over. A message that the receiver answers with an error waits alone, and those behind it go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::{Entry, lock};
use super::{Notice, Shared, add};
use crate::backoff::Backoff;
use crate::sink::message::{Kind, Message};
use crate::sink::{Failure, Order, Sink};

/// So many messages in turn may be answered with an error before the next one waits a little.
const ANSWERED_IN_TURN: u32 = 3;
/// The longest of these waits: a receiver that refuses everything is asked once in so long.
const PACE: Duration = Duration::from_secs(1);
/// A `Retry-After` counts up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// The receiver was not reached so often in turn: another message is tried, it may be this one that it dies of.
const SAME_MESSAGE: u32 = 3;

pub(super) struct Deliverer {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    line: Line,
    upkeep: Upkeep,
    /// Messages in one delivery, at most: less than the sink takes while one of them spoils the others.
    most: usize,
    /// Messages that were delivered.
    delivered: u64,
    /// What was told last of receivers that do not get what others get.
    missed: BTreeSet<String>,
}

/// Whether the receiver can be reached.
struct Line {
    backoff: Backoff,
    pace: Backoff,
    /// Tries in turn that did not reach it.
    broken: u32,
    /// Messages in turn that it answered with an error.
    answered: u32,
    /// Nothing is tried before.
    until: Option<Instant>,
}

/// What a sink does from time to time; it has its own health.
struct Upkeep {
    backoff: Backoff,
    next: Option<Instant>,
}

impl Deliverer {
    pub(super) fn new(shared: Arc<Shared>, sink: Box<dyn Sink>) -> Self {
        let settings = &shared.settings;
        let (first, most) = (settings.retry_first.0, settings.retry_most.0);
        let line = Line {
            backoff: Backoff::new(first, most),
            pace: Backoff::new(first.min(PACE), PACE),
            broken: 0,
            answered: 0,
            until: None,
        };
        let upkeep = Upkeep { backoff: Backoff::new(first, most), next: None };
        let most = sink.batch().max(1);
        Self { shared, sink, line, upkeep, most, delivered: 0, missed: BTreeSet::new() }
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
        if closed && self.shared.is_too_late() {
            return false;
        }
        self.upkeep();
        let now = Instant::now();
        if let Some(until) = lock(&self.shared.loads_until).filter(|until| *until > now && !closed)
        {
            self.shared.bell.wait(heard, Some(until));
            return true;
        }
        if let Some(until) = self.line.until.filter(|until| *until > now && !closed) {
            self.shared.bell.wait(heard, earlier(Some(until), self.upkeep.next));
            return true;
        }
        let batch = self.shared.lend(now, self.most, self.probe());
        if batch.is_empty() {
            if closed {
                return false;
            }
            let due = lock(&self.shared.queue).next_due();
            self.shared.bell.wait(heard, earlier(due, self.upkeep.next));
            return true;
        }
        let reached = self.deliver(&batch);
        // One last try for each message, and none where the receiver cannot be reached.
        reached || !self.shared.is_closed()
    }

    /// How many messages to leave out: while the receiver cannot be reached, each in turn is tried.
    fn probe(&self) -> usize {
        if self.line.broken < SAME_MESSAGE || self.shared.order == Order::Lines {
            return 0;
        }
        let ready = lock(&self.shared.queue).ready().max(1);
        usize::try_from(self.line.broken).unwrap_or(0) % ready
    }

    /// Tries once; whether the receiver was reached.
    fn deliver(&mut self, batch: &[Message]) -> bool {
        match self.sink.deliver(batch) {
            Ok(refused) => {
                self.reached();
                self.line.answered = 0;
                self.most = self.most.saturating_mul(2).min(self.sink.batch().max(1));
                self.tell_misses();
                let refused = refused.min(batch.len());
                self.count_delivered(&batch[refused..]);
                add(&self.shared.counts.dead_letters, refused as u64);
                self.shared.delivered();
                true
            }
            Err(Failure::Refused(_) | Failure::Failed { .. }) if batch.len() > 1 => {
                // One of them spoils the others: half of them are tried, until it is alone.
                self.most = batch.len() / 2;
                self.shared.put_back();
                true
            }
            Err(Failure::Refused(error)) => {
                self.reached();
                self.shared.put_to_dead_letters(&error);
                true
            }
            Err(Failure::Failed { error, after }) => {
                self.reached();
                self.failed_alone(&error, after);
                true
            }
            Err(Failure::Unreachable { error, after }) => self.broke(batch.len(), &error, after),
        }
    }

    /// The receiver answered the message that is lent with an error.
    fn failed_alone(&mut self, error: &str, after: Option<Duration>) {
        add(&self.shared.counts.failures, 1);
        self.shared.set_aside(error, after.map(|asked| asked.min(LONGEST_ASKED)));
        self.line.answered = self.line.answered.saturating_add(1);
        if self.line.answered >= ANSWERED_IN_TURN {
            self.line.until = Instant::now().checked_add(self.line.pace.next());
        } else {
            self.line.pace.reset();
        }
    }

    /// The receiver was not reached, or broke the connection. A message that does so again, while others came through
    /// in between, is itself the reason.
    fn broke(&mut self, lent: usize, error: &str, after: Option<Duration>) -> bool {
        let delivered = self.delivered;
        let is_reason = {
            let mut queue = lock(&self.shared.queue);
            let broke_before = queue.lent().first().and_then(|entry| entry.broke_at);
            queue.lent().iter_mut().for_each(|entry| entry.broke_at = Some(delivered));
            broke_before.is_some_and(|before| before < delivered) && self.line.broken == 0
        };
        if is_reason && lent == 1 {
            self.failed_alone(error, after);
            return true;
        }
        if is_reason {
            self.most = lent / 2;
        }
        self.line.broken = self.line.broken.saturating_add(1);
        add(&self.shared.counts.failures, 1);
        let asked = after.unwrap_or_default().min(LONGEST_ASKED);
        self.line.until = Instant::now().checked_add(self.line.backoff.next().max(asked));
        self.shared.put_back();
        self.shared.give_up_old(error);
        self.shared.is_failing(error);
        false
    }

    fn reached(&mut self) {
        self.line.backoff.reset();
        self.line.until = None;
        let failures = u64::from(std::mem::take(&mut self.line.broken));
        if lock(&self.shared.failing).take().is_some() {
            self.shared.tell(&Notice::Recovered { failures });
        }
    }

    fn count_delivered(&mut self, messages: &[Message]) {
        let own = messages.iter().filter(|message| message.kind == Kind::Lost).count();
        self.delivered += messages.len() as u64;
        add(&self.shared.counts.delivered, (messages.len() - own) as u64);
    }

    /// The same again is counted, and no news.
    fn tell_misses(&mut self) {
        let misses = self.sink.take_misses();
        add(&self.shared.counts.missed, misses.len() as u64);
        let misses = BTreeSet::from_iter(misses);
        for error in misses.difference(&self.missed) {
            self.shared.tell(&Notice::Missed { error: error.clone() });
        }
        self.missed = misses;
    }

    /// Looks after the sink where that is due.
    fn upkeep(&mut self) {
        let Some(every) = self.sink.upkeep_every() else {
            self.upkeep.next = None;
            return;
        };
        let now = Instant::now();
        if now < *self.upkeep.next.get_or_insert(now + every) {
            return;
        }
        // Also when nothing else comes: without a time the wait for messages has no end.
        self.upkeep.next = Some(now + every);
        match self.sink.upkeep() {
            Ok(()) => {
                self.upkeep.backoff.reset();
                if lock(&self.shared.upkeep_failing).take().is_some() {
                    self.shared.tell(&Notice::UpkeepRecovered);
                }
            }
            Err(failure) => {
                self.upkeep.next = Some(now + self.upkeep.backoff.next());
                let error = failure.into_text();
                let before = lock(&self.shared.upkeep_failing).replace(error.clone());
                // The same again is no news.
                if before.is_none_or(|before| before != error) {
                    self.shared.tell(&Notice::UpkeepFailing { error });
                }
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Shared {
    pub(super) fn is_too_late(&self) -> bool {
        lock(&self.deadline).is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The messages to deliver next. Where nothing waits, a record `lost` for those that found no room is one.
    fn lend(&self, now: Instant, most: usize, skip: usize) -> Vec<Message> {
        let mut queue = lock(&self.queue);
        if queue.len() == 0 {
            queue.tell_missing(|missing| self.marker(missing));
        }
        queue.lend(now, most, skip)
    }

    /// What was lent is delivered.
    fn delivered(&self) {
        let done = lock(&self.queue).done(usize::MAX, true);
        for entry in &done {
            self.mirror(|mirror, sink| mirror.delivered(sink, &entry.message));
        }
        self.counts.full.store(false, Ordering::Relaxed);
    }

    /// What was lent was not delivered.
    fn put_back(&self) {
        let old = lock(&self.queue).put_back();
        self.are_superseded(&old);
    }

    /// A newer state of their alerts waits: they are not to come any more.
    fn are_superseded(&self, old: &[Entry]) {
        self.note_superseded(old.len());
        for entry in old {
            self.mirror(|mirror, sink| mirror.is_gone(sink, &entry.message));
        }
    }

    /// The message that was lent waits alone from here on. While closing, it waits for the next start.
    fn set_aside(&self, error: &str, asked: Option<Duration>) {
        let (first, most) = (self.settings.retry_first.0, self.settings.retry_message_most.0);
        let mut queue = lock(&self.queue);
        let Some((tries, is_old)) = queue
            .lent()
            .first()
            .map(|entry| (entry.tries, entry.since.elapsed() >= self.settings.give_up.0))
        else {
            return;
        };
        if is_old {
            drop(queue);
            return self.put_to_dead_letters(error);
        }
        let wait = Backoff::after(first, most, tries).max(asked.unwrap_or_default());
        let until = Instant::now().checked_add(if self.is_closed() { PAUSE } else { wait });
        let id = queue.lent().first().map(|entry| entry.message.id.clone());
        let old = queue.set_aside(until.unwrap_or_else(Instant::now), error);
        drop(queue);
        self.are_superseded(&old);
        if tries == 0
            && let Some(id) = id
        {
            self.tell(&Notice::SetAside { id, error: error.to_owned() });
        }
    }

    /// The messages that were lent will never be taken.
    fn put_to_dead_letters(&self, error: &str) {
        let done = lock(&self.queue).done(usize::MAX, false);
        done.iter().for_each(|entry| self.bury(entry, error));
    }

    /// Messages that wait for too long are dead letters: nobody wants to be told any more.
    fn give_up_old(&self, error: &str) {
        let give_up = self.settings.give_up.0;
        let old = lock(&self.queue).take_older(give_up);
        old.iter().for_each(|entry| self.bury(entry, error));
    }

    fn bury(&self, entry: &Entry, error: &str) {
        add(&self.counts.dead_letters, 1);
        let id = entry.message.id.clone();
        self.tell(&Notice::DeadLetter { id, error: error.to_owned() });
        self.dead_letters(&entry.message, error);
        self.mirror(|mirror, sink| mirror.dead_letter(sink, &entry.message, error));
    }

    fn is_failing(&self, error: &str) {
        let before = lock(&self.failing).replace(error.to_owned());
        // The same again is no news.
        if before.is_none_or(|before| before != error) {
            self.tell(&Notice::Failing { error: error.to_owned() });
        }
    }
}

/// As good as for ever: until the next start.
const PAUSE: Duration = Duration::from_secs(86_400);
