//! All GPUs of a machine, or chosen ones, to any number of subscribers.

mod state;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::drain::{Drain, Left, Subscribers, removed_gap};
use crate::event::GapCause;
use crate::fork;
use crate::hotplug::{Heard, Hotplug};
use crate::keeper::Keeper;
use crate::source::require_events;
use crate::subscription::{DEFAULT_LIMIT, Subscriber};
use crate::{
    Error, ErrorKind, EventReader, Filter, Gpu, GpuSelector, Inventory, Machine, OpenedFiles,
    Result, Scope, Subscription, advice,
};
use state::{Changes, Key, State, Watched, is_same_card, key};

/// The driver needs some milliseconds to list its GPUs anew.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// A second of looks: then what is found is believed.
const MOST_LOOKS: u32 = 50;
/// Pauses before what may pass by itself, such as that KFD is locked, is tried again: at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

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
    /// Held while GPUs are listed and opened, which may wait for the driver: one look at a time. Locked before `state`.
    opening: Mutex<()>,
    /// Never locked during a call that may wait.
    state: Mutex<State>,
    /// All that was closed is handed out.
    has_left: Condvar,
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
    /// could, [`Monitor::failures`] tells of the others. That KFD is locked ([`ErrorKind::Locked`]) is no error: it
    /// passes, and the monitor tries again until then.
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
            opening: Mutex::new(()),
            state: Mutex::default(),
            has_left: Condvar::new(),
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

    /// What the last look at the machine left out, and why: GPUs that may not be used, do not say which they are, or are
    /// not listed. They are not watched.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        self.watch.lock().left_out.clone()
    }

    /// Has those that [`failures`](Self::failures) names tried again, in another thread. Without this they are when
    /// the machine next announces a change, and where the reason may pass by itself ([`ErrorKind::Locked`],
    /// [`ErrorKind::Io`], [`ErrorKind::OutOfResources`]) after pauses that grow. A GPU that is then open begins with a
    /// [`Gap`](crate::Gap) from the first failure on.
    pub fn try_again(&self) {
        self.watch.hotplug.nudge();
    }

    /// Whose events are seen: what was true when event files were last opened.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let known = self.watch.lock().scope.clone();
        known.unwrap_or_else(|| Scope {
            all_processes: false,
            faults_of_all_processes: false,
            reason: "no event file has been opened yet".to_owned(),
        })
    }

    /// Lets go of every event file, so that nothing of this monitor keeps the driver's owner from
    /// reconfiguring. What the driver held is read first. A file that is just being opened is closed as soon as it is
    /// open: see [`settle`](Self::settle).
    pub fn release(&self) {
        let mut state = self.watch.lock();
        state.released = true;
        state.releases += 1;
        let keys: Vec<_> = state.watched.keys().copied().collect();
        drop(self.watch.close(state, &keys, GapCause::Yielded));
    }

    /// Waits until nothing is being opened: after [`release`](Self::release), and after a
    /// [`KeeperSource`](crate::keeper::KeeperSource) has let go, no file is open when this returns.
    pub fn settle(&self) {
        drop(self.watch.opening());
    }

    /// Takes the GPUs back that [`release`](Self::release) let go, and finds those that are new. The blind
    /// time is a [`Gap`](crate::Gap) of each.
    ///
    /// # Errors
    /// Where the GPUs cannot be listed.
    pub fn resume(&self) -> Result<()> {
        self.watch.lock().released = false;
        let looked = self.watch.look();
        self.watch.hotplug.wait_anew();
        looked
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.watch.stopping.store(true, Ordering::Release);
        self.watch.hotplug.nudge();
        // Closed without the lock: what was read is handed out, and that may wait for `/proc`.
        let watched = std::mem::take(&mut self.watch.lock().watched);
        drop(watched);
        self.watch.subscribers.close();
        // A thread that waits for the driver ends by itself: it closes what it is given.
        let is_opening = self.watch.opening.try_lock().is_err();
        if let Some(thread) = self.hotplug_thread.take().filter(|_| !is_opening) {
            let _panicked = thread.join();
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_look(self: &Arc<Self>, may_be_empty: bool) -> Result<()> {
        match self.look() {
            Err(error) if may_be_empty && error.kind() == ErrorKind::NoGpu => return Ok(()),
            looked => looked?,
        }
        let mut state = self.lock();
        let passes = |(_, error): &(Gpu, Error)| error.kind() == ErrorKind::Locked;
        if !state.watched.is_empty() || may_be_empty || state.failures.iter().any(passes) {
            return Ok(());
        }
        Err(match state.failures.pop() {
            Some((_, error)) => error,
            None => Error::new(ErrorKind::NoGpu, "there is no AMD GPU to watch")
                .with_hint("gpuev doctor tells what is missing"),
        })
    }

    fn follow_changes(self: &Arc<Self>) {
        let (mut pause, longest) = RETRY;
        loop {
            let (keepers, retry) = {
                let state = self.lock();
                (state.keepers(), state.may_pass().then_some(pause))
            };
            let sockets: Vec<_> = keepers.iter().map(Keeper::socket).collect();
            // The keepers themselves must not be held meanwhile: they end with their files.
            drop(keepers);
            match self.hotplug.wait(&sockets, retry) {
                Heard::Announced => pause = RETRY.0,
                Heard::TimedOut => pause = (pause * 2).min(longest),
                Heard::Readable => self.replace_keepers(),
                Heard::WaitAnew => continue,
            }
            if !self.follow_change() {
                return;
            }
        }
    }

    /// Looks until the machine stays what it was when it was looked at; `false` when it is time to end.
    fn follow_change(self: &Arc<Self>) -> bool {
        // Without a topology there is nothing to open; what was open tells of its end by itself.
        while let Some(Ok(inventory)) = self.settled_look() {
            let _one_at_a_time = self.opening();
            if self.is_stopping() {
                return false;
            }
            // Somebody else may have looked meanwhile.
            if self.machine.generation().is_ok_and(|now| now != inventory.generation) {
                continue;
            }
            self.apply(&inventory);
            break;
        }
        !self.is_stopping()
    }

    /// Puts other keepers in the place of those that have ended. Where that cannot be, or the driver ends them, the
    /// files that they opened are closed: the next look opens them again.
    fn replace_keepers(&self) {
        let keepers = self.lock().keepers();
        for keeper in keepers.iter().filter(|keeper| keeper.is_over()) {
            let generation = self.lock().generation;
            let renewed = keeper.renew();
            let is_as_before = self.machine.generation().is_ok_and(|now| now == generation);
            if renewed.is_err() || !is_as_before {
                let state = self.lock();
                let its = state.those_of(keeper);
                drop(self.close(state, &its, GapCause::Reopened));
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

    /// Closes the GPUs' event files at once, then hands out what was read: that may wait for `/proc`, and is done without
    /// the lock. Gives what is left of each.
    fn close<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        keys: &[Key],
        cause: GapCause,
    ) -> (MutexGuard<'a, State>, Vec<Left>) {
        let leaving = state.close(keys);
        drop(state);
        let finished = leaving.into_iter().map(|gpu| (gpu.key, gpu.closed.finish()));
        let finished: Vec<_> = finished.collect();
        let mut state = self.lock();
        finished.iter().for_each(|(key, left)| state.left(*key, *left, cause));
        self.has_left.notify_all();
        (state, finished.into_iter().map(|(_, left)| left).collect())
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
        let _one_at_a_time = self.opening();
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

    /// Only called with `opening` held.
    fn apply(self: &Arc<Self>, inventory: &Inventory) {
        let wanted = self.wanted(inventory);
        let Some((new, releases)) = self.close_what_is_gone(&wanted, inventory) else {
            return;
        };
        if new.is_empty() {
            return;
        }
        let _no_fork = fork::opening();
        let subscribe = |gpu: &Gpu, file: &OwnedFd| {
            let mask = self.subscribers.mask_for(gpu.id).of_all_processes().bits().to_ne_bytes();
            // It is set again when the file is taken in, and then a refusal is told.
            let _refused = rustix::io::write(file, &mask);
        };
        let opened = self.machine.event_source().open_all(&new, &subscribe).and_then(|opened| {
            require_events(opened.version)?;
            Ok(opened)
        });
        self.take_in(new, opened, releases);
    }

    /// Gives what is to be opened, and how often all was let go before; `None` while all is.
    fn close_what_is_gone(
        &self,
        wanted: &HashMap<Key, Gpu>,
        inventory: &Inventory,
    ) -> Option<(Vec<Gpu>, u64)> {
        let left_out = advice::missing(inventory);
        let mut state = self.lock();
        if state.released {
            return None;
        }
        state.generation = inventory.generation;
        state.left_out = left_out;
        let Changes { gone, new } = state.changes(wanted);
        let (mut state, left) = self.close(state, &gone, GapCause::Reopened);
        if state.released {
            return None;
        }
        for Left { gpu: was, since_boot_ns, .. } in left {
            // The topology may tell before the event file ends: then nobody has heard of it yet.
            let now = wanted.get(&key(was)).map(|gpu| gpu.id);
            if now.is_none_or(|now| !is_same_card(was.unique_id, now.unique_id)) {
                self.subscribers.tell(&removed_gap(was, since_boot_ns));
            }
        }
        for gap in state.left_unseen(wanted) {
            self.subscribers.tell(&gap);
        }
        let new = new.into_iter().filter(|(key, _)| !state.watched.contains_key(key));
        let new: Vec<_> = new.map(|(_, gpu)| gpu).collect();
        if new.is_empty() {
            state.failures.clear();
        }
        Some((new, state.releases))
    }

    /// Watches what was opened, and tells what could not be.
    fn take_in(self: &Arc<Self>, gpus: Vec<Gpu>, opened: Result<OpenedFiles>, releases: u64) {
        let mut state = self.lock();
        // At which number a GPU's events go on is known once all that was read is handed out.
        while state.leaving > 0 {
            state = self.has_left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.released || state.releases != releases || self.is_stopping() {
            // Closed without the lock: a keeper is told to end with its last file.
            drop(state);
            return;
        }
        state.failures.clear();
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                gpus.into_iter().for_each(|gpu| self.fail(&mut state, gpu, error.again()));
                return;
            }
        };
        state.scope = Some(opened.scope);
        for (mut gpu, file) in gpus.into_iter().zip(opened.files) {
            gpu.id.index = state.index_of(&gpu);
            let reader = file.and_then(|file| {
                let mask = self.subscribers.mask_for(gpu.id);
                EventReader::opened(&self.machine, &gpu, file, opened.version, mask)
            });
            match reader {
                Ok(reader) => self.drain(&mut state, gpu, reader, opened.keeper.clone()),
                Err(error) => self.fail(&mut state, gpu, error),
            }
        }
    }

    fn drain(
        self: &Arc<Self>,
        state: &mut State,
        gpu: Gpu,
        reader: EventReader,
        keeper: Option<Keeper>,
    ) {
        let key = key(gpu.id);
        let mut reader = reader.kept_by(keeper.clone());
        if let Some(gap) = state.comes_back(&gpu, &mut reader) {
            self.subscribers.tell(&gap);
        }
        let watch = Arc::downgrade(self);
        let on_removed = Box::new(move |left: Left| note_removed(&watch, key, left));
        match self.drain.add(reader, self.subscribers.clone(), Some(on_removed)) {
            Ok(drained) => {
                state.watched.insert(key, Watched { gpu, drained, keeper });
            }
            Err(error) => self.fail(state, gpu, error),
        }
    }

    fn fail(&self, state: &mut State, mut gpu: Gpu, error: Error) {
        gpu.id.index = state.index_of(&gpu);
        if let Some(gap) = state.fail(gpu, error) {
            self.subscribers.tell(&gap);
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
