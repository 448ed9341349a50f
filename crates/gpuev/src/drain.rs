//! The thread that empties every FIFO the moment it fills.
//!
//! It sleeps in `epoll_wait` and does nothing else than read, decode and queue: the driver's 8 KiB last for
//! some 170 events, less than two milliseconds at 100,000 a second. It never waits for a subscriber, and not for
//! the names of processes that it has not met: a second thread looks them up, while what was read behind the
//! event in question stays in its reader. A subscriber who waits does this work himself meanwhile ([`lead`]).
//!
//! Files are watched for edges, so that an event wakes one thread: whoever is woken reads until the driver holds no
//! more, or leaves the file in `Sources::ready`.

mod lead;
mod source;

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};

use crate::event::{Gap, GapCause};
use crate::fork::Descriptor;
use crate::pace::Pace;
use crate::reader::{Answer, Question};
use crate::subscription::Subscriber;
use crate::time::Anchor;
use crate::{Error, EventMask, EventReader, GpuId, Result};
use source::{OnRemoved, Progress, Source};

/// The epoll entry that wakes a thread: to go on with what is ready, to look at its queue, or to end.
const WAKE: u64 = u64::MAX;
/// Files that one turn looks at. More wait for the next, or for another thread.
const MOST_FILES: usize = 64;
/// Room for what is to be done in a turn.
type Room = [MaybeUninit<epoll::Event>; MOST_FILES];
const FREE_ROOM: Room = [const { MaybeUninit::uninit() }; MOST_FILES];
const EDGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// Subscribers of one or several readers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Subscribers(Arc<Mutex<Vec<Arc<Subscriber>>>>);

impl Subscribers {
    pub(crate) fn of(subscriber: Arc<Subscriber>) -> Self {
        Self(Arc::new(Mutex::new(vec![subscriber])))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, subscriber: Arc<Subscriber>) {
        self.lock().push(subscriber);
    }

    pub(crate) fn filled_by(&self, drain: &Drain) {
        self.lock().iter().for_each(|subscriber| subscriber.filled_by(drain.shared()));
    }

    pub(crate) fn close(&self) {
        self.lock().drain(..).for_each(|subscriber| subscriber.close());
    }

    /// Tells all of a gap, at once.
    pub(crate) fn tell(&self, gap: &Gap) {
        for subscriber in self.lock().iter() {
            subscriber.offer_gap(gap);
            subscriber.wake();
        }
    }
}

/// The thread and what it drains.
#[derive(Debug)]
pub(crate) struct Drain {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    epoll: Descriptor,
    wake: Arc<Descriptor>,
    sources: Mutex<Sources>,
    /// Nobody leads any more, or all is to end.
    left: Condvar,
    /// To the thread that looks names up.
    errands: Sender<Errand>,
}

#[derive(Debug, Default)]
struct Sources {
    by_token: HashMap<u64, Source>,
    next_token: u64,
    /// Those that can go on: their question was answered, or they have more than is handed out at a time.
    ready: Vec<u64>,
    pace: Pace,
    /// A subscriber waits in the place of the draining thread.
    led: bool,
    /// The draining thread waits until nobody leads. To notify nobody would be a system call an event, too.
    awaits_leave: bool,
    stopped: bool,
}

/// What the draining thread has no time for.
#[derive(Debug)]
enum Errand {
    LookUp {
        token: u64,
        question: Question,
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
        let failed = |what: &'static str| {
            move |error: rustix::io::Errno| Error::io(what, std::io::Error::from(error))
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(failed("eventfd"))?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), EDGES)
            .map_err(failed("epoll_ctl"))?;
        let (errands, sent) = mpsc::channel();
        let shared = Arc::new(Shared {
            epoll: epoll.into(),
            wake: Arc::new(wake.into()),
            sources: Mutex::default(),
            left: Condvar::new(),
            errands,
        });
        // Nobody waits for its end, as a file may take long; without the other thread it has nothing to do.
        let asked_by = Arc::downgrade(&shared);
        spawn("gpuev-names", move || run_errands(&asked_by, &sent))?;
        let thread = spawn("gpuev-drain", {
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Drains `reader` into `subscribers` until what is returned is dropped, or the GPU is gone: then
    /// `on_removed` is given the reader.
    ///
    /// # Errors
    /// Where the kernel cannot watch another file.
    pub(crate) fn add(
        &self,
        reader: EventReader,
        subscribers: Subscribers,
        on_removed: Option<OnRemoved>,
    ) -> Result<Drained> {
        let mut sources = self.shared.lock();
        let token = sources.next_token;
        sources.next_token += 1;
        epoll::add(&self.shared.epoll, &reader, epoll::EventData::new_u64(token), EDGES)
            .map_err(|error| Error::io("epoll_ctl", error.into()))?;
        sources.by_token.insert(token, Source::new(reader, subscribers, on_removed));
        Ok(Drained { shared: Arc::downgrade(&self.shared), token })
    }

    /// What a subscriber can read with while he waits.
    pub(crate) fn shared(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for Drain {
    /// Ends the thread and closes every reader.
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake();
        self.shared.left.notify_all();
        let own = std::thread::current().id();
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
    /// Stops draining and gives the reader back, what the driver holds handed out first; `None` where the GPU
    /// was removed.
    pub(crate) fn take(&self) -> Option<EventReader> {
        let shared = self.shared.upgrade()?;
        let mut source = shared.lock().by_token.remove(&self.token)?;
        shared.unwatch(&source);
        let _gone_anyway = source.fill();
        source.finish();
        Some(source.into_reader())
    }

    /// Sets the reader's mask.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub(crate) fn set_mask(&self, mask: EventMask) -> Result<()> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let sources = shared.lock();
        sources.by_token.get(&self.token).map_or(Ok(()), |source| source.set_mask(mask))
    }

    /// Reads what the driver holds now and hands it out, without waiting for the threads.
    pub(crate) fn drain_now(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut progress = shared.drain(self.token);
        loop {
            match progress {
                Progress::Done => return,
                Progress::More => {}
                Progress::Asks { question, .. } => {
                    shared.answer(self.token, &question, question.look_up());
                }
                Progress::Ended(source) => return source.end(),
            }
            progress = shared.hand_out(self.token);
        }
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.take();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is open until the reader is dropped, so this cannot fail.
    fn unwatch(&self, source: &Source) {
        let _watched = epoll::delete(&self.epoll, source.as_fd());
    }

    /// Wakes one of those who wait for events. Adding to an eventfd fails only where it is at its maximum, and is
    /// an edge even then.
    fn wake(&self) {
        let _already_awake = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut room = FREE_ROOM;
        loop {
            let timeout = match self.lock() {
                sources if sources.stopped => return,
                sources if sources.ready.is_empty() => None,
                _ => Some(Duration::ZERO),
            };
            let Ok(events) = self.wait(&mut room, timeout) else { return };
            if self.turn(events) {
                self.pass_wake_on();
            }
            let mut sources = self.lock();
            let pause = if sources.ready.is_empty() { sources.pace.pause() } else { None };
            drop(sources);
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
        }
    }

    /// Waits until something is to be done, at most `timeout`.
    ///
    /// # Errors
    /// None while the epoll file is open, which is ours.
    fn wait<'a>(
        &self,
        room: &'a mut Room,
        timeout: Option<Duration>,
    ) -> rustix::io::Result<&'a [epoll::Event]> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok((events, _)) => Ok(events),
            Err(rustix::io::Errno::INTR) => Ok(&[]),
            Err(error) => Err(error),
        }
    }

    /// Does what `events` ask for and what was ready before. Tells whether somebody wanted to wake a thread.
    fn turn(&self, events: &[epoll::Event]) -> bool {
        let before = std::mem::take(&mut self.lock().ready);
        let mut woken = false;
        for event in events {
            match event.data.u64() {
                WAKE => woken = true,
                token => self.follow(token, self.drain(token)),
            }
        }
        for token in before {
            self.follow(token, self.hand_out(token));
        }
        woken
    }

    /// Sees that what a source needs to go on comes about.
    fn follow(&self, token: u64, progress: Progress) {
        match progress {
            Progress::Done | Progress::Asks { anew: false, .. } => {}
            Progress::More => self.lock().is_ready(token),
            Progress::Asks { question, .. } => self.send(Errand::LookUp { token, question }),
            Progress::Ended(source) => self.send(Errand::End(source)),
        }
    }

    /// The thread behind it ends after this.
    fn send(&self, errand: Errand) {
        let _sent = self.errands.send(errand);
    }

    /// What the driver holds for one reader, to its subscribers.
    fn drain(&self, token: u64) -> Progress {
        let sources = &mut *self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else { return Progress::Done };
        if let Ok(read) = source.fill() {
            sources.pace.read(read);
            return self.hand_out_of(source, token);
        }
        sources.by_token.remove(&token).map_or(Progress::Done, |source| {
            self.unwatch(&source);
            Progress::Ended(Box::new(source))
        })
    }

    /// More of what a reader has read, to its subscribers.
    fn hand_out(&self, token: u64) -> Progress {
        let mut sources = self.lock();
        match sources.by_token.get_mut(&token) {
            None => Progress::Done,
            Some(source) if source.took_all() => self.hand_out_of(source, token),
            Some(_) => {
                drop(sources);
                self.drain(token)
            }
        }
    }

    /// Sends what is to be asked beside on its way, too.
    fn hand_out_of(&self, source: &mut Source, token: u64) -> Progress {
        let progress = source.hand_out();
        source.take_renewals().for_each(|question| self.send(Errand::LookUp { token, question }));
        match progress {
            // What is left in the driver is no new edge.
            Progress::Done if !source.took_all() => Progress::More,
            progress => progress,
        }
    }

    /// Answers what a source asked, if it still does.
    fn answer(&self, token: u64, question: &Question, answer: Answer) {
        let mut sources = self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else { return };
        if source.answer(question, answer) {
            sources.is_ready(token);
            drop(sources);
            self.wake();
        }
    }
}

impl Sources {
    fn is_ready(&mut self, token: u64) {
        if !self.ready.contains(&token) {
            self.ready.push(token);
        }
    }
}

/// Looks names up and ends what has ended, until the draining thread is gone.
fn run_errands(asked_by: &Weak<Shared>, errands: &Receiver<Errand>) {
    for errand in errands {
        match errand {
            Errand::LookUp { token, question } => {
                let answer = question.look_up();
                if let Some(shared) = asked_by.upgrade() {
                    shared.answer(token, &question, answer);
                }
            }
            Errand::End(source) => source.end(),
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Error::io(format!("start the thread {name}"), error))
}

/// That a GPU is gone, now.
pub(crate) fn removed_gap(gpu: GpuId) -> Gap {
    let now = Anchor::now();
    Gap {
        gpu,
        cause: GapCause::GpuRemoved,
        count: None,
        from_boot_ns: now.boot_ns,
        to_boot_ns: now.boot_ns,
        unix_ns: now.unix_ns,
    }
}
