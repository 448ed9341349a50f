//! The thread that empties every FIFO the moment it fills.
//!
//! It sleeps in `epoll_wait` and does nothing else than read, decode and queue: the driver's 8 KiB last for
//! some 170 events, less than two milliseconds at 100,000 a second. It never waits for a subscriber, and not for
//! the names of processes that it has not met: a second thread looks them up, while what was read behind the
//! event in question stays in its reader.

mod source;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll};

use crate::event::{Gap, GapCause};
use crate::fork::Descriptor;
use crate::pace::{Pace, Read};
use crate::reader::Question;
use crate::subscription::Subscriber;
use crate::time::Anchor;
use crate::{Comm, Error, EventMask, EventReader, GpuId, Result};
use source::{OnRemoved, Progress, Source};

/// The epoll entry that wakes the thread, to end it or to go on with what was answered.
const WAKE: u64 = u64::MAX;

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
struct Shared {
    epoll: Descriptor,
    wake: Descriptor,
    sources: Mutex<Sources>,
    /// To the thread that looks names up.
    errands: Sender<Errand>,
}

#[derive(Debug, Default)]
struct Sources {
    by_token: HashMap<u64, Source>,
    next_token: u64,
    /// Those whose question was answered.
    answered: Vec<u64>,
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
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(failed("epoll_ctl"))?;
        let (errands, sent) = mpsc::channel();
        let shared = Arc::new(Shared {
            epoll: epoll.into(),
            wake: wake.into(),
            sources: Mutex::default(),
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
        epoll::add(
            &self.shared.epoll,
            &reader,
            epoll::EventData::new_u64(token),
            epoll::EventFlags::IN,
        )
        .map_err(|error| Error::io("epoll_ctl", error.into()))?;
        sources.by_token.insert(token, Source::new(reader, subscribers, on_removed));
        Ok(Drained { shared: Arc::downgrade(&self.shared), token })
    }
}

impl Drop for Drain {
    /// Ends the thread and closes every reader.
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake();
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
        let (_, mut progress) = shared.drain(self.token);
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

    /// Wakes the draining thread. Adding to an eventfd fails only where it is at its maximum, and is readable
    /// then.
    fn wake(&self) {
        let _already_awake = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        // Sources with more to hand out than is done at a time: files are read in between.
        let mut behind: Vec<u64> = Vec::new();
        let mut pace = Pace::new();
        while !self.lock().stopped {
            events.clear();
            let no_wait = (!behind.is_empty()).then_some(&Timespec { tv_sec: 0, tv_nsec: 0 });
            match epoll::wait(&self.epoll, spare_capacity(&mut events), no_wait) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // The epoll file is ours and open; nothing else can fail.
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => behind.append(&mut self.take_answered()),
                    token => {
                        let (read, progress) = self.drain(token);
                        pace.read(read);
                        self.follow(token, progress, &mut behind);
                    }
                }
            }
            for token in std::mem::take(&mut behind) {
                self.follow(token, self.hand_out(token), &mut behind);
            }
            if let Some(pause) = pace.pause().filter(|_| behind.is_empty()) {
                std::thread::sleep(pause);
            }
        }
    }

    /// Sees that what a source needs to go on comes about.
    fn follow(&self, token: u64, progress: Progress, behind: &mut Vec<u64>) {
        match progress {
            Progress::Done => {}
            Progress::More if behind.contains(&token) => {}
            Progress::More => behind.push(token),
            Progress::Asks { anew: false, .. } => {}
            Progress::Asks { question, .. } => self.send(Errand::LookUp { token, question }),
            Progress::Ended(source) => self.send(Errand::End(source)),
        }
    }

    /// The thread behind it ends after this.
    fn send(&self, errand: Errand) {
        let _sent = self.errands.send(errand);
    }

    fn take_answered(&self) -> Vec<u64> {
        let _already_read = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        std::mem::take(&mut self.lock().answered)
    }

    /// One read of one reader, to its subscribers. Tells what was read.
    fn drain(&self, token: u64) -> (Read, Progress) {
        let mut sources = self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else {
            return (Read::default(), Progress::Done);
        };
        if let Ok(read) = source.fill() {
            return (read, self.hand_out_of(source, token));
        }
        let ended = sources.by_token.remove(&token).map_or(Progress::Done, |source| {
            self.unwatch(&source);
            Progress::Ended(Box::new(source))
        });
        (Read::default(), ended)
    }

    /// More of what a reader has read, to its subscribers.
    fn hand_out(&self, token: u64) -> Progress {
        let mut sources = self.lock();
        let source = sources.by_token.get_mut(&token);
        source.map_or(Progress::Done, |source| self.hand_out_of(source, token))
    }

    /// Sends what is to be asked beside on its way, too.
    fn hand_out_of(&self, source: &mut Source, token: u64) -> Progress {
        let progress = source.hand_out();
        source.take_renewals().for_each(|question| self.send(Errand::LookUp { token, question }));
        progress
    }

    /// Answers what a source asked, if it still does.
    fn answer(&self, token: u64, question: &Question, comm: Option<Comm>) {
        let mut sources = self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else { return };
        if source.answer(question, comm) {
            sources.answered.push(token);
            drop(sources);
            self.wake();
        }
    }
}

/// Looks names up and ends what has ended, until the draining thread is gone.
fn run_errands(asked_by: &Weak<Shared>, errands: &Receiver<Errand>) {
    for errand in errands {
        match errand {
            Errand::LookUp { token, question } => {
                let comm = question.look_up();
                if let Some(shared) = asked_by.upgrade() {
                    shared.answer(token, &question, comm);
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
