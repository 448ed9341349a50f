//! All GPUs of a machine, or chosen ones, to any number of subscribers.

mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::drain::{Drain, Left, Subscribers, removed_gap};
use crate::event::GapCause;
use crate::hotplug::Hotplug;
use crate::subscription::{DEFAULT_LIMIT, Subscriber};
use crate::{
    Error, ErrorKind, EventReader, Filter, Gpu, GpuSelector, Inventory, Machine, Result, Scope,
    Subscription,
};
use state::{Changes, Key, State, Watched, is_same_card, key};

/// The driver needs some milliseconds to list its GPUs anew.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// A second of looks: then what is found is believed.
const MOST_LOOKS: u32 = 50;

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
    gpus: Option<Vec<GpuSelector>>,
    may_be_empty: bool,
}

#[derive(Debug)]
struct Watch {
    machine: Machine,
    chosen: Option<Vec<GpuSelector>>,
    subscribers: Subscribers,
    hotplug: Hotplug,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Last, so that it outlives the readers in `state`.
    drain: Drain,
}

impl MonitorBuilder {
    /// Only these GPUs, now and after they come back, and partitions of them that a [`GpuSelector`] selects later; else
    /// all GPUs, later ones too.
    #[must_use]
    pub fn gpus(mut self, gpus: impl IntoIterator<Item = impl Into<GpuSelector>>) -> Self {
        self.gpus = Some(gpus.into_iter().map(Into::into).collect());
        self
    }

    /// Starts even where there is no GPU yet, and waits for one.
    #[must_use]
    pub fn may_be_empty(mut self, may_be_empty: bool) -> Self {
        self.may_be_empty = may_be_empty;
        self
    }

    /// Opens the event files and starts the threads. The driver queues what subscribers want, from the moment at which
    /// they subscribe.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] where there is none; the first failure where no GPU could be opened. Where some
    /// could, [`Monitor::failures`] tells of the others.
    pub fn start(self) -> Result<Monitor> {
        self.start_for(None)
    }

    /// As [`start`](Self::start), with a subscriber that is there before the first event file: it is given
    /// whatever the driver queues, from the first event on. It may be behind by `limit` bytes
    /// ([`DEFAULT_LIMIT`]).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(self, filter: Filter, limit: usize) -> Result<(Monitor, Subscription)> {
        let subscriber = Subscriber::new(filter, limit);
        let subscription = Subscription::new(Arc::clone(&subscriber));
        Ok((self.start_for(Some(subscriber))?, subscription))
    }

    fn start_for(self, first: Option<Arc<Subscriber>>) -> Result<Monitor> {
        let hotplug = Hotplug::listen(&self.machine)?;
        let drain = Drain::start()?;
        let subscribers = Subscribers::new();
        if let Some(first) = first {
            drain.subscribe(&subscribers, first);
        }
        let watch = Arc::new(Watch {
            machine: self.machine,
            chosen: self.gpus,
            subscribers,
            hotplug,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
            drain,
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
        MonitorBuilder { machine: machine.clone(), gpus: None, may_be_empty: false }
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
        self.watch.drain.subscribe(&self.watch.subscribers, Arc::clone(&subscriber));
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

    /// Has those that [`failures`](Self::failures) names tried again, in another thread. Without this they are when
    /// the machine next announces a change. A GPU that is then open begins with a [`Gap`](crate::Gap) from the
    /// first failure on.
    pub fn try_again(&self) {
        self.watch.hotplug.nudge();
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
        state.close(&keys, GapCause::Yielded);
    }

    /// Takes the GPUs back that [`release`](Self::release) let go, and finds those that are new. The blind
    /// time is a [`Gap`](crate::Gap) of each.
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
            // Without a topology there is nothing to open; what was open tells of its end by itself.
            if let Some(Ok(inventory)) = self.settled_look() {
                self.apply(&inventory);
            }
            if self.is_stopping() {
                return;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What there is once it has stopped changing; `None` where the monitor ends meanwhile.
    ///
    /// A change is announced before, while and after the driver makes it, and on the way it takes every GPU out
    /// of the list and puts it back: nothing is closed for that. So a look that would change something counts
    /// only when the next finds the same and, to close something, KFD has counted a change; or after a second.
    fn settled_look(&self) -> Option<Result<Inventory>> {
        let mut last = self.machine.inventory();
        for _ in 0..MOST_LOOKS {
            if self.is_stopping() {
                return None;
            }
            if last.as_ref().is_ok_and(|last| self.is_known(last)) {
                return Some(last);
            }
            std::thread::sleep(BETWEEN_LOOKS);
            let now = self.machine.inventory();
            if let (Ok(last), Ok(now)) = (&last, &now)
                && last == now
                && self.is_believed(now)
            {
                break;
            }
            last = now;
        }
        Some(last)
    }

    /// Whether nothing is to be done.
    fn is_known(&self, inventory: &Inventory) -> bool {
        let state = self.lock();
        state.knows(&state.changes(&self.wanted(inventory)))
    }

    /// Whether it is no moment in the middle of a change, as far as one can tell.
    fn is_believed(&self, inventory: &Inventory) -> bool {
        let state = self.lock();
        state.generation != inventory.generation
            || state.changes(&self.wanted(inventory)).gone.is_empty()
    }

    /// Compares the machine with what is watched: opens what is new, closes what is gone.
    fn look(self: &Arc<Self>) -> Result<()> {
        self.apply(&self.machine.inventory()?);
        Ok(())
    }

    fn wanted(&self, inventory: &Inventory) -> HashMap<Key, Gpu> {
        let is_chosen = |gpu: &&Gpu| {
            let chosen = self.chosen.as_ref();
            chosen.is_none_or(|chosen| chosen.iter().any(|one| one.selects(gpu.id)))
        };
        let chosen = inventory.gpus.iter().filter(is_chosen);
        chosen.map(|gpu| (key(gpu.id), gpu.clone())).collect()
    }

    fn apply(self: &Arc<Self>, inventory: &Inventory) {
        let wanted = self.wanted(inventory);
        let mut state = self.lock();
        if state.released {
            return;
        }
        state.generation = inventory.generation;
        let Changes { gone, new } = state.changes(&wanted);
        for Left { gpu: was, since_boot_ns, .. } in state.close(&gone, GapCause::Reopened) {
            // The topology may tell before the event file ends: then nobody has heard of it yet.
            let now = wanted.get(&key(was)).map(|gpu| gpu.id);
            if now.is_none_or(|now| !is_same_card(was.unique_id, now.unique_id)) {
                self.subscribers.tell(&removed_gap(was, since_boot_ns));
            }
        }
        for gap in state.left_unseen(&wanted) {
            self.subscribers.tell(&gap);
        }
        state.failures.clear();
        for (key, gpu) in new {
            if !state.watched.contains_key(&key) {
                self.open(&mut state, key, gpu);
            }
        }
    }

    fn open(self: &Arc<Self>, state: &mut State, key: Key, mut gpu: Gpu) {
        gpu.id.index = state.index_of(&gpu);
        let mask = self.subscribers.mask_for(gpu.id);
        let mut reader = match EventReader::open(&self.machine, &gpu, mask) {
            Ok(reader) => reader,
            Err(error) => return state.fail(gpu, error),
        };
        if let Some(gap) = state.comes_back(&gpu, &mut reader) {
            self.subscribers.tell(&gap);
        }
        let watch = Arc::downgrade(self);
        let on_removed = Box::new(move |left: Left| note_removed(&watch, key, left));
        match self.drain.add(reader, self.subscribers.clone(), Some(on_removed)) {
            Ok(drained) => {
                state.watched.insert(key, Watched { gpu, drained });
            }
            Err(error) => state.fail(gpu, error),
        }
    }
}

/// The draining thread found the end of a GPU's event file.
fn note_removed(watch: &Weak<Watch>, key: Key, left: Left) {
    let Some(watch) = watch.upgrade() else { return };
    let mut state = watch.lock();
    state.watched.remove(&key);
    state.leave(key, left, GapCause::Reopened);
    drop(state);
    watch.hotplug.nudge();
}
