//! All GPUs of a machine, or chosen ones, to any number of subscribers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use gpuev_kfd::{EventMask, EventType};

use crate::drain::{Drain, Drained, Subscribers, removed_gap};
use crate::event::{Gap, GapCause};
use crate::hotplug::Hotplug;
use crate::subscription::{DEFAULT_LIMIT, Subscriber};
use crate::time::{Anchor, boot_now_ns};
use crate::{
    Bdf, Error, ErrorKind, EventReader, Filter, Gpu, GpuId, Machine, Result, Scope, Subscription,
};

/// Watches GPUs: one thread drains the driver, a second sleeps until GPUs come or go.
///
/// Subscribers are independent: each has its own filter and its own bounded queue, and one that does not
/// take its events loses them, counted, without touching the others. Dropping the monitor closes every
/// event file; subscribers can still take what they were given.
#[derive(Debug)]
pub struct Monitor {
    watch: Arc<Watch>,
    hotplug_thread: Option<JoinHandle<()>>,
}

/// How a [`Monitor`] is started.
#[derive(Debug, Clone)]
pub struct MonitorBuilder {
    machine: Machine,
    gpus: Option<Vec<GpuId>>,
    mask: EventMask,
    may_be_empty: bool,
}

/// A GPU over changes of its partitions and of KFD's numbers.
type Key = (Bdf, u32);

#[derive(Debug)]
struct Watch {
    machine: Machine,
    chosen: Option<Vec<Key>>,
    subscribers: Subscribers,
    hotplug: Hotplug,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Last, so that it outlives the readers in `state`.
    drain: Drain,
}

#[derive(Debug)]
struct State {
    mask: EventMask,
    watched: HashMap<Key, Watched>,
    /// GPUs that were read before and are not now.
    away: HashMap<Key, Away>,
    failures: Vec<(Gpu, Error)>,
    released: bool,
}

#[derive(Debug)]
struct Watched {
    gpu: Gpu,
    drained: Drained,
}

#[derive(Debug)]
struct Away {
    index: u32,
    next_seq: u64,
    since_boot_ns: u64,
    cause: GapCause,
}

impl MonitorBuilder {
    /// Only these GPUs, now and after they come back; else all, later ones too.
    #[must_use]
    pub fn gpus(mut self, gpus: impl IntoIterator<Item = GpuId>) -> Self {
        self.gpus = Some(gpus.into_iter().collect());
        self
    }

    /// Asks the driver for these types only; else for all, those of later kernels included.
    #[must_use]
    pub fn types(mut self, types: impl IntoIterator<Item = EventType>) -> Self {
        self.mask = types.into_iter().collect();
        self
    }

    /// Starts even where there is no GPU yet, and waits for one.
    #[must_use]
    pub fn may_be_empty(mut self, may_be_empty: bool) -> Self {
        self.may_be_empty = may_be_empty;
        self
    }

    /// Opens the event files and starts the threads. Subscriptions are live when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] where there is none; the first failure where no GPU could be opened. Where some
    /// could, [`Monitor::failures`] tells of the others.
    pub fn start(self) -> Result<Monitor> {
        self.start_for(Subscribers::default())
    }

    /// As [`start`](Self::start), with a first subscriber that is given what the driver queues from the moment on
    /// at which each event file is open; see [`Monitor::subscribe_with_limit`].
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(self, filter: Filter, limit: usize) -> Result<(Monitor, Subscription)> {
        let subscribers = Subscribers::default();
        let subscriber = Subscriber::new(filter, limit);
        subscribers.add(Arc::clone(&subscriber));
        Ok((self.start_for(subscribers)?, Subscription::new(subscriber)))
    }

    fn start_for(self, subscribers: Subscribers) -> Result<Monitor> {
        let state = State {
            mask: self.mask,
            watched: HashMap::new(),
            away: HashMap::new(),
            failures: Vec::new(),
            released: false,
        };
        let chosen = self.gpus.map(|gpus| gpus.into_iter().map(key).collect());
        let hotplug = Hotplug::listen(&self.machine)?;
        let watch = Arc::new(Watch {
            machine: self.machine,
            chosen,
            subscribers,
            hotplug,
            stopping: AtomicBool::new(false),
            state: Mutex::new(state),
            drain: Drain::start()?,
        });
        watch.first_look(self.may_be_empty)?;
        let hotplug_thread = std::thread::Builder::new()
            .name("gpuev-hotplug".to_owned())
            .spawn({
                let watch = Arc::clone(&watch);
                move || watch.follow_changes()
            })
            .map_err(|error| Error::io("start the hotplug thread", error))?;
        Ok(Monitor { watch, hotplug_thread: Some(hotplug_thread) })
    }
}

impl Monitor {
    /// Watches all GPUs of `machine`.
    ///
    /// # Errors
    /// As [`MonitorBuilder::start`].
    pub fn start(machine: &Machine) -> Result<Self> {
        Self::builder(machine).start()
    }

    /// To choose what is watched.
    #[must_use]
    pub fn builder(machine: &Machine) -> MonitorBuilder {
        MonitorBuilder {
            machine: machine.clone(),
            gpus: None,
            mask: EventMask::ALL,
            may_be_empty: false,
        }
    }

    /// A new subscriber. It is given what the driver queues from now on and may be behind by
    /// [`DEFAULT_LIMIT`] bytes.
    #[must_use]
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        self.subscribe_with_limit(filter, DEFAULT_LIMIT)
    }

    /// As [`subscribe`](Self::subscribe), with at most `limit` bytes of events waiting.
    #[must_use]
    pub fn subscribe_with_limit(&self, filter: Filter, limit: usize) -> Subscription {
        let subscriber = Subscriber::new(filter, limit);
        self.watch.subscribers.add(Arc::clone(&subscriber));
        Subscription::new(subscriber)
    }

    /// The GPUs that are being watched, by index.
    #[must_use]
    pub fn gpus(&self) -> Vec<Gpu> {
        let state = self.watch.lock();
        let mut gpus: Vec<_> = state.watched.values().map(|watched| watched.gpu.clone()).collect();
        gpus.sort_by_key(|gpu| gpu.id.index);
        gpus
    }

    /// GPUs whose events could not be opened, and why.
    #[must_use]
    pub fn failures(&self) -> Vec<(Gpu, String)> {
        let failures = &self.watch.lock().failures;
        failures.iter().map(|(gpu, error)| (gpu.clone(), error.to_string())).collect()
    }

    /// Whose events are seen.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.watch.machine.event_source().scope()
    }

    /// Lets go of every event file, so that nothing of this monitor keeps the driver's owner from
    /// reconfiguring. What the driver held is read first.
    pub fn release(&self) {
        let mut state = self.watch.lock();
        state.released = true;
        let keys: Vec<_> = state.watched.keys().copied().collect();
        for key in keys {
            state.close(key, GapCause::Yielded);
        }
    }

    /// Takes the GPUs back that [`release`](Self::release) let go, and finds those that are new. The blind
    /// time is a [`Gap`] of each.
    ///
    /// # Errors
    /// Where the GPUs cannot be listed.
    pub fn resume(&self) -> Result<()> {
        self.watch.lock().released = false;
        self.watch.look()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.watch.stopping.store(true, Ordering::Release);
        self.watch.hotplug.nudge();
        if let Some(thread) = self.hotplug_thread.take() {
            let _panicked = thread.join();
        }
        self.watch.lock().watched.clear();
        self.watch.subscribers.close();
    }
}

fn key(gpu: GpuId) -> Key {
    (gpu.bdf, gpu.partition)
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_look(self: &Arc<Self>, may_be_empty: bool) -> Result<()> {
        match self.look() {
            Err(error) if may_be_empty && error.kind() == ErrorKind::NoGpu => return Ok(()),
            looked => looked?,
        }
        let mut state = self.lock();
        if !state.watched.is_empty() || may_be_empty {
            return Ok(());
        }
        Err(match state.failures.pop() {
            Some((_, error)) => error,
            None => Error::new(ErrorKind::NoGpu, "there is no AMD GPU to watch")
                .with_hint("gpuev doctor tells what is missing"),
        })
    }

    fn follow_changes(self: &Arc<Self>) {
        loop {
            self.hotplug.wait();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // Without a topology there is nothing to open; what was open tells of its end by itself.
            let _no_topology_now = self.look();
        }
    }

    /// Compares the machine with what is watched: opens what is new, closes what is gone.
    fn look(self: &Arc<Self>) -> Result<()> {
        let gpus = self.machine.gpus()?;
        let mut state = self.lock();
        if state.released {
            return Ok(());
        }
        let wanted: HashMap<Key, Gpu> = gpus
            .into_iter()
            .map(|gpu| (key(gpu.id), gpu))
            .filter(|(key, _)| self.chosen.as_ref().is_none_or(|chosen| chosen.contains(key)))
            .collect();
        let gone: Vec<Key> = state
            .watched
            .iter()
            .filter(|(key, watched)| {
                wanted.get(key).is_none_or(|gpu| gpu.id.kfd_id != watched.gpu.id.kfd_id)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            let closed = state.close(key, GapCause::Reopened);
            // The topology may tell before the event file ends: then nobody has heard of it yet.
            if let Some(gpu) = closed.filter(|_| !wanted.contains_key(&key)) {
                self.subscribers.tell(&removed_gap(gpu));
            }
        }
        state.failures.clear();
        let mut new: Vec<_> =
            wanted.into_iter().filter(|(key, _)| !state.watched.contains_key(key)).collect();
        new.sort_by_key(|(key, _)| *key);
        for (key, gpu) in new {
            self.open(&mut state, key, gpu);
        }
        Ok(())
    }

    fn open(self: &Arc<Self>, state: &mut State, key: Key, mut gpu: Gpu) {
        let away = state.away.get(&key);
        gpu.id.index = state.index_for(gpu.id.index, away);
        let mut reader = match EventReader::open(&self.machine, &gpu, state.mask) {
            Ok(reader) => reader,
            Err(error) => return state.failures.push((gpu, error)),
        };
        if let Some(away) = state.away.remove(&key) {
            reader.continue_from(away.next_seq);
            self.subscribers.tell(&blind_gap(gpu.id, &away));
        }
        let watch = Arc::downgrade(self);
        let on_removed = Box::new(move |reader: EventReader| note_removed(&watch, key, &reader));
        match self.drain.add(reader, self.subscribers.clone(), Some(on_removed)) {
            Ok(drained) => {
                state.watched.insert(key, Watched { gpu, drained });
            }
            Err(error) => state.failures.push((gpu, error)),
        }
    }
}

/// The draining thread found the end of a GPU's event file.
fn note_removed(watch: &Weak<Watch>, key: Key, reader: &EventReader) {
    let Some(watch) = watch.upgrade() else { return };
    let mut state = watch.lock();
    state.watched.remove(&key);
    state.leave(key, reader, GapCause::Reopened);
    drop(state);
    watch.hotplug.nudge();
}

impl State {
    /// Closes the GPU's event file, what the driver holds read first. Gives the GPU, if it was still read.
    fn close(&mut self, key: Key, cause: GapCause) -> Option<GpuId> {
        let reader = self.watched.remove(&key)?.drained.take()?;
        self.leave(key, &reader, cause);
        Some(reader.gpu())
    }

    fn leave(&mut self, key: Key, reader: &EventReader, cause: GapCause) {
        let away = Away {
            index: reader.gpu().index,
            next_seq: reader.next_seq(),
            since_boot_ns: boot_now_ns(),
            cause,
        };
        self.away.insert(key, away);
    }

    /// A GPU keeps its index; a new one gets that of its place, or the next that was never used.
    fn index_for(&self, place: u32, away: Option<&Away>) -> u32 {
        if let Some(away) = away {
            return away.index;
        }
        let used = || {
            let watched = self.watched.values().map(|watched| watched.gpu.id.index);
            watched.chain(self.away.values().map(|away| away.index))
        };
        if used().any(|index| index == place) {
            used().max().map_or(0, |highest| highest + 1)
        } else {
            place
        }
    }
}

fn blind_gap(gpu: GpuId, away: &Away) -> Gap {
    let now = Anchor::now();
    Gap {
        gpu,
        cause: away.cause,
        count: None,
        from_boot_ns: away.since_boot_ns.min(now.boot_ns),
        to_boot_ns: now.boot_ns,
        unix_ns: now.unix_ns,
    }
}
