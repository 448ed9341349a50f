//! The thread that empties every FIFO the moment it fills.
//!
//! It sleeps until a FIFO fills and does nothing else than read, decode and queue: the driver's 8 KiB last for
//! some 170 events, less than two milliseconds at 100,000 a second. It never waits for a subscriber, and not for
//! the names of processes that it has not met: a second thread looks them up, while what was read behind the
//! event in question stays in its reader. A subscriber that waits runs the same loop meanwhile ([`inline`]).

#[cfg(all(test, not(gpuev_shuttle)))]
mod conservation;
#[cfg(all(test, not(gpuev_shuttle)))]
mod delays;
mod inline;
#[cfg(all(test, gpuev_shuttle))]
mod interleavings;
#[cfg_attr(gpuev_shuttle, path = "drain/poller_model.rs")]
mod poller;
mod source;
mod subscribers;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::event::{Gap, GapCause};
use crate::pace::Pace;
use crate::queue::{Queue, Waited};
use crate::reader::{Answer, BETWEEN_FAILURES, PendingLookup};
use crate::subscription::Subscriber;
use crate::sync::mpsc::{self, Receiver, Sender};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Anchor;
use crate::{Error, EventMask, EventReader, GpuId, Result};
use poller::{Poller, Ready, Room};
pub(crate) use poller::{WakeUp, has_ended, raise};
pub(crate) use source::{Closed, Left};
use source::{OnRemoved, Progress, Source};
use subscribers::Wakers;
pub(crate) use subscribers::{Feed, Subscribers};

/// The thread and what it drains.
#[derive(Debug)]
pub(crate) struct Drain {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    poller: Poller,
    sources: Mutex<Sources>,
    /// No subscriber drains any more, or all is to end.
    inline_over: Condvar,
    /// To the thread that looks names up.
    slow_work: Sender<SlowWork>,
}

#[derive(Debug, Default)]
struct Sources {
    by_token: BTreeMap<u64, Source>,
    next_token: u64,
    /// Those that can go on: their name was looked up, or they have more than is handed out at a time. A thread that
    /// looks here before it sleeps does not sleep.
    unfinished: Vec<u64>,
    /// Those whose read has failed.
    to_retry: Vec<u64>,
    pace: Pace,
    /// A subscriber drains in the place of the draining thread.
    inline: bool,
    /// The draining thread waits until no subscriber drains. To notify nobody would be a system call an event, too.
    awaits_inline: bool,
    stopped: bool,
}

impl Sources {
    /// Whether something is to be done without any edge: a thread that leaves it must wake another.
    fn has_work(&self) -> bool {
        !self.unfinished.is_empty() || !self.to_retry.is_empty()
    }
}

/// What the draining thread has no time for.
#[derive(Debug)]
enum SlowWork {
    LookUp {
        token: u64,
        lookup: PendingLookup,
    },
    /// The GPU is gone: hand out what is left and tell.
    End(Box<Source>),
}

/// A reader that is being drained. Dropping this closes it.
#[derive(Debug)]
pub(crate) struct Drained {
    shared: Weak<Shared>,
    token: u64,
}

impl Drain {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where no descriptor or thread is left.
    pub(crate) fn start() -> Result<Self> {
        let (slow_work, received) = mpsc::channel();
        let shared = Arc::new(Shared::new(Poller::new()?, slow_work));
        // Nobody waits for its end, as a file may take long; without the other thread it has nothing to do.
        let asked_by = Arc::downgrade(&shared);
        spawn("gpuev-names", move || do_slow_work(&asked_by, &received))?;
        let thread = spawn("gpuev-drain", {
            let shared = Arc::clone(&shared);
            move || {
                shared.work(None, None);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Drains `reader` into `subscribers` until what is returned is dropped, or the GPU is gone: then
    /// `on_removed` is given the reader.
    ///
    /// # Errors
    /// Where the kernel cannot watch another file, or the driver refuses the mask.
    pub(crate) fn add(
        &self,
        reader: EventReader,
        subscribers: Subscribers,
        on_removed: Option<OnRemoved>,
    ) -> Result<Drained> {
        let mut sources = self.shared.lock();
        let token = sources.next_token;
        sources.next_token += 1;
        let mut source = Source::new(reader, subscribers, on_removed);
        source.follow_mask()?;
        self.shared.poller.add(&source, token)?;
        sources.by_token.insert(token, source);
        Ok(Drained { shared: Arc::downgrade(&self.shared), token })
    }

    /// Adds `subscriber` to `subscribers`, whose readers are drained here. When this returns, the driver queues what it
    /// wants.
    pub(crate) fn subscribe(&self, subscribers: &Subscribers, subscriber: Arc<Subscriber>) {
        subscribers.add(Arc::downgrade(&self.shared), subscriber);
        self.shared.follow_masks();
    }
}

impl Drop for Drain {
    /// Ends the thread and closes every reader.
    fn drop(&mut self) {
        self.shared.stop();
        let own = thread::current().id();
        // The thread itself may be the last to let go: it ends by itself then.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != own) {
            let _panicked = thread.join();
        }
        let sources = std::mem::take(&mut self.shared.lock().by_token);
        for source in sources.into_values() {
            source.subscribers().close();
        }
    }
}

impl Drained {
    /// Stops draining and closes the file, what the driver holds read first. Hands nothing out, so it takes no longer
    /// than a read. `None` where the GPU was removed.
    pub(crate) fn close(&self) -> Option<Closed> {
        let shared = self.shared.upgrade()?;
        let source = shared.lock().by_token.remove(&self.token)?;
        shared.poller.remove(&source);
        Some(source.close())
    }

    /// Sets the reader's mask.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub(crate) fn set_mask(&self, mask: EventMask) -> Result<()> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let mut sources = shared.lock();
        sources.by_token.get_mut(&self.token).map_or(Ok(()), |source| source.set_mask(mask))
    }

    /// Reads what the driver holds now and hands it out, without waiting for the threads.
    pub(crate) fn drain_now(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut progress = shared.drain(self.token);
        loop {
            match progress {
                Progress::Done => return,
                Progress::Retry => {
                    shared.follow(self.token, Progress::Retry);
                    // The threads may sleep, and no edge will come.
                    return shared.poller.wake();
                }
                Progress::More => {}
                Progress::Awaits { lookup, .. } => {
                    shared.answer(self.token, &lookup, lookup.look_up());
                }
                Progress::Ended(source) => return source.end(),
            }
            progress = shared.hand_out(self.token);
        }
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some(closed) = self.close() {
            closed.finish();
        }
    }
}

impl Shared {
    fn new(poller: Poller, slow_work: Sender<SlowWork>) -> Self {
        let (sources, inline_over) = (Mutex::default(), Condvar::new());
        Self { poller, sources, inline_over, slow_work }
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every loop.
    fn stop(&self) {
        self.lock().stopped = true;
        self.poller.wake();
        self.inline_over.notify_all();
    }

    /// The loop that empties FIFOs: the draining thread runs it for good, a subscriber that waits runs it until its
    /// `queue` holds something or `deadline` has passed. `None` at the end, and where a subscriber had better wait on
    /// its queue.
    ///
    /// What was read and can be handed out is in [`Sources::unfinished`], and no thread sleeps here while something is.
    fn work(&self, queue: Option<&Queue>, deadline: Option<Instant>) -> Option<Waited> {
        let mut room = Room::new();
        loop {
            // From here on, whoever puts something into the queue wakes this thread.
            if let Some(waited) =
                queue.and_then(|queue| queue.wake_elsewhere(self.poller.wake_up()))
            {
                return Some(waited);
            }
            let ready = match self.may_sleep(queue.is_some(), deadline) {
                Sleep::AtMost(timeout) => self.poller.wait(&mut room, timeout).ok(),
                Sleep::No(waited) => {
                    queue.inspect(|queue| queue.wake_here());
                    return waited;
                }
            };
            queue.inspect(|queue| queue.wake_here());
            let was_woken = self.turn(ready?);
            if queue.is_none() {
                if was_woken {
                    self.pass_wake_up_on();
                }
                self.let_events_gather();
            }
        }
    }

    /// How long a thread may sleep now.
    fn may_sleep(&self, is_subscriber: bool, deadline: Option<Instant>) -> Sleep {
        let mut sources = self.lock();
        if sources.stopped || is_subscriber && sources.pace.pause().is_some() {
            return Sleep::No(None);
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Sleep::No(Some(Waited::TimedOut));
        }
        if !sources.unfinished.is_empty() {
            return Sleep::AtMost(Some(Duration::ZERO));
        }
        if !sources.to_retry.is_empty() {
            return Sleep::AtMost(Some(
                left.map_or(BETWEEN_FAILURES, |left| left.min(BETWEEN_FAILURES)),
            ));
        }
        Sleep::AtMost(left)
    }

    /// In a storm, sleeps for a moment.
    fn let_events_gather(&self) {
        let mut sources = self.lock();
        let pause = if sources.unfinished.is_empty() { sources.pace.pause() } else { None };
        drop(sources);
        if let Some(pause) = pause {
            thread::sleep(pause);
        }
    }

    /// Does what is `ready` and what was unfinished. Tells whether another thread wanted to wake one.
    fn turn(&self, ready: impl Iterator<Item = Ready>) -> bool {
        let (unfinished, to_retry) = {
            let sources = &mut *self.lock();
            (std::mem::take(&mut sources.unfinished), std::mem::take(&mut sources.to_retry))
        };
        let mut was_woken = false;
        for ready in ready {
            match ready {
                Ready::Woken => was_woken = true,
                Ready::File { token, has_ended } => {
                    if has_ended {
                        self.expect_end(token);
                    }
                    self.follow(token, self.drain(token));
                }
            }
        }
        for token in to_retry {
            self.follow(token, self.drain(token));
        }
        for token in unfinished {
            self.follow(token, self.hand_out(token));
        }
        was_woken
    }

    /// Sees that what a source needs to go on comes about.
    fn follow(&self, token: u64, progress: Progress) {
        match progress {
            Progress::Done | Progress::Awaits { anew: false, .. } => {}
            Progress::More => add_once(&mut self.lock().unfinished, token),
            Progress::Retry => add_once(&mut self.lock().to_retry, token),
            Progress::Awaits { lookup, .. } => self.send(SlowWork::LookUp { token, lookup }),
            Progress::Ended(source) => self.send(SlowWork::End(source)),
        }
    }

    /// The thread behind it ends after this.
    fn send(&self, work: SlowWork) {
        let _sent = self.slow_work.send(work);
    }

    /// A file that has ended is read until it says so: no other edge will come.
    fn expect_end(&self, token: u64) {
        if let Some(source) = self.lock().by_token.get_mut(&token) {
            source.expect_end();
        }
    }

    /// What the driver holds for one reader, to its subscribers.
    fn drain(&self, token: u64) -> Progress {
        let mut sources = self.lock();
        let Sources { by_token, pace, .. } = &mut *sources;
        let Some(source) = by_token.get_mut(&token) else { return Progress::Done };
        match source.fill() {
            Ok(read) => {
                pace.read(read);
                self.hand_out_locked(sources, token)
            }
            Err(_) => self.end(&mut sources, token),
        }
    }

    /// The file is broken: it is drained no more.
    fn end(&self, sources: &mut Sources, token: u64) -> Progress {
        let ended = sources.by_token.remove(&token);
        ended.map_or(Progress::Done, |source| {
            self.poller.remove(&source);
            Progress::Ended(Box::new(source))
        })
    }

    /// More of what a reader has read, to its subscribers.
    fn hand_out(&self, token: u64) -> Progress {
        let sources = self.lock();
        match sources.by_token.get(&token) {
            None => Progress::Done,
            Some(source) if source.took_all() => self.hand_out_locked(sources, token),
            Some(_) => {
                drop(sources);
                self.drain(token)
            }
        }
    }

    /// Sends what is to be looked up beside on its way, too.
    fn hand_out_locked(&self, mut sources: MutexGuard<'_, Sources>, token: u64) -> Progress {
        let Some(source) = sources.by_token.get_mut(&token) else { return Progress::Done };
        let mut wakers = Wakers::default();
        let progress = source.hand_out(&mut wakers);
        source.take_renewals().for_each(|lookup| self.send(SlowWork::LookUp { token, lookup }));
        let progress = match progress {
            Progress::Done if source.must_retry() => Progress::Retry,
            // What is left in the driver is no new edge.
            Progress::Done if !source.took_all() => Progress::More,
            progress => progress,
        };
        drop(sources);
        wakers.wake();
        progress
    }

    /// Takes in an answer, and lets its source go on if it waits for it.
    fn answer(&self, token: u64, lookup: &PendingLookup, answer: Answer) {
        let mut sources = self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else { return };
        if source.answer(lookup, answer) {
            add_once(&mut sources.unfinished, token);
            drop(sources);
            self.poller.wake();
        }
    }

    /// Asks the driver for what the subscribers want now.
    pub(crate) fn follow_masks(&self) {
        let mut sources = self.lock();
        let refused = sources.by_token.iter_mut().filter_map(|(token, source)| {
            // A file that does not take a mask does not give what its subscribers want.
            source.follow_mask().err().map(|_| *token)
        });
        let refused: Vec<_> = refused.collect();
        for token in refused {
            let ended = self.end(&mut sources, token);
            self.follow_locked(ended);
        }
    }

    /// As [`follow`](Self::follow), for what has ended.
    fn follow_locked(&self, ended: Progress) {
        if let Progress::Ended(source) = ended {
            self.send(SlowWork::End(source));
        }
    }
}

/// How long a thread may sleep.
enum Sleep {
    /// So long, or until something happens.
    AtMost(Option<Duration>),
    /// It is to go, with this.
    No(Option<Waited>),
}

fn add_once(tokens: &mut Vec<u64>, token: u64) {
    if !tokens.contains(&token) {
        tokens.push(token);
    }
}

/// Looks names up and ends what has ended, until the draining thread is gone.
fn do_slow_work(asked_by: &Weak<Shared>, received: &Receiver<SlowWork>) {
    for work in received {
        match work {
            SlowWork::LookUp { token, lookup } => {
                let answer = lookup.look_up();
                if let Some(shared) = asked_by.upgrade() {
                    shared.answer(token, &lookup, answer);
                }
            }
            SlowWork::End(source) => source.end(),
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Error::io(format!("start the thread {name}"), error))
}

/// That a GPU is gone, of which nothing may have been seen since `since_boot_ns`.
pub(crate) fn removed_gap(gpu: GpuId, since_boot_ns: u64) -> Gap {
    let now = Anchor::now();
    Gap {
        gpu,
        cause: GapCause::GpuRemoved,
        count: None,
        from_boot_ns: since_boot_ns.min(now.boot_ns),
        to_boot_ns: now.boot_ns,
        unix_ns: now.unix_ns,
    }
}
