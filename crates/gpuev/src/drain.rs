//! The thread that empties every FIFO the moment it fills.
//!
//! It sleeps in `epoll_wait` and does nothing else than read, decode and queue: the driver's 8 KiB last for
//! some 170 events, less than two milliseconds at 100,000 a second. It never waits for a subscriber.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll};

use crate::event::{Gap, GapCause};
use crate::fork::Descriptor;
use crate::pace::{Pace, Read};
use crate::reader::Drawn;
use crate::subscription::Subscriber;
use crate::time::Anchor;
use crate::{Error, EventMask, EventReader, GpuId, Result};

/// The epoll entry that wakes the thread to end it.
const STOP: u64 = u64::MAX;

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
    stop: Descriptor,
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    by_token: HashMap<u64, Source>,
    next_token: u64,
    stopped: bool,
}

struct Source {
    reader: EventReader,
    subscribers: Subscribers,
    on_removed: Option<Box<dyn FnOnce(EventReader) + Send>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.reader.gpu())
    }
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
        let stop = rustix::event::eventfd(0, flags).map_err(failed("eventfd"))?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)
            .map_err(failed("epoll_ctl"))?;
        let shared =
            Arc::new(Shared { epoll: epoll.into(), stop: stop.into(), sources: Mutex::default() });
        let thread = std::thread::Builder::new()
            .name("gpuev-drain".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|error| Error::io("start the draining thread", error))?;
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
        on_removed: Option<Box<dyn FnOnce(EventReader) + Send>>,
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
        sources.by_token.insert(token, Source { reader, subscribers, on_removed });
        Ok(Drained { shared: Arc::downgrade(&self.shared), token })
    }
}

impl Drop for Drain {
    /// Ends the thread and closes every reader.
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        let _wakes = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        let own = std::thread::current().id();
        // The thread itself may be the last to let go: it ends by itself then.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != own) {
            let _panicked = thread.join();
        }
        let sources = std::mem::take(&mut self.shared.lock().by_token);
        for source in sources.into_values() {
            source.subscribers.close();
        }
    }
}

impl Drained {
    /// Stops draining and gives the reader back, what the driver holds handed out first; `None` where the GPU
    /// was removed.
    pub(crate) fn take(&self) -> Option<EventReader> {
        let shared = self.shared.upgrade()?;
        let mut sources = shared.lock();
        let mut source = sources.by_token.remove(&self.token)?;
        shared.unwatch(&source.reader);
        let _gone_anyway = source.drain();
        Some(source.reader)
    }

    /// Sets the reader's mask.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub(crate) fn set_mask(&self, mask: EventMask) -> Result<()> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let sources = shared.lock();
        sources.by_token.get(&self.token).map_or(Ok(()), |source| source.reader.set_mask(mask))
    }

    /// Reads what the driver holds now, without waiting for the thread.
    pub(crate) fn drain_now(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.drain(self.token);
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
    fn unwatch(&self, reader: &EventReader) {
        let _watched = epoll::delete(&self.epoll, reader.as_fd());
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut pace = Pace::new();
        while !self.lock().stopped {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // The epoll file is ours and open; nothing else can fail.
                Err(_) => return,
            }
            for event in &events {
                let token = event.data.u64();
                if token != STOP {
                    pace.read(self.drain(token));
                }
            }
            if let Some(pause) = pace.pause() {
                std::thread::sleep(pause);
            }
        }
    }

    /// One read of one reader, to its subscribers. Tells what was read.
    fn drain(&self, token: u64) -> Read {
        let mut sources = self.lock();
        let Some(source) = sources.by_token.get_mut(&token) else { return Read::default() };
        if let Ok(read) = source.drain() {
            return read;
        }
        let Some(mut source) = sources.by_token.remove(&token) else { return Read::default() };
        self.unwatch(&source.reader);
        drop(sources);
        source.subscribers.tell(&removed_gap(source.reader.gpu()));
        if let Some(on_removed) = source.on_removed.take() {
            on_removed(source.reader);
        }
        Read::default()
    }
}

impl Source {
    fn drain(&mut self) -> Result<Read> {
        let read = self.reader.fill();
        let mut subscribers = self.subscribers.lock();
        let drawn = hand_out(&mut self.reader, &subscribers);
        subscribers.retain(|subscriber| {
            subscriber.wake();
            !subscriber.is_gone()
        });
        drawn?;
        Ok(Read { bytes: read?, fifo: self.reader.fifo_capacity() })
    }
}

fn hand_out(reader: &mut EventReader, subscribers: &[Arc<Subscriber>]) -> Result<()> {
    while let Some(drawn) = reader.draw()? {
        for subscriber in subscribers {
            match &drawn {
                Drawn::Event(facts, record) => subscriber.offer_event(facts, record),
                Drawn::Gap(gap) => subscriber.offer_gap(gap),
            }
        }
    }
    Ok(())
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
