//! Letting go of the GPUs for a while, and taking them back.
//!
//! Who unloads the driver or changes partitions needs every KFD handle closed and no KFD process left. A
//! [`Yielder`] gives such a one a [`Lease`]: while one runs, this machine's event files are closed and the
//! keeper has ended. When the last lease ends, all is opened again, GPUs and partitions as they are then, and
//! each GPU's stream has a gap (`yielded`) for the blind time.
//!
//! Every lease ends: when it is given back, or at its time limit, so that a forgotten one does not leave the
//! machine unwatched.

mod hold;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gpuev::{Error, ErrorKind, Result};

pub use hold::Hold;

/// Longer leases are not given.
pub const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// GPUs that could not be opened when they were taken back are tried again: waits at first and at most, and
/// for how long at all. Later, the driver announces what comes.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const RETRY_FOR: Duration = Duration::from_secs(300);

/// What there is to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// All is let go.
    LetGo {
        /// Who asked.
        who: String,
        /// How long closing took.
        took: Duration,
    },
    /// A lease met its time limit. The GPUs are taken back, unless another lease runs.
    RanOut {
        /// Who had it.
        who: String,
        /// Its length.
        after: Duration,
    },
    /// The GPUs are watched again.
    TakenBack {
        /// How many.
        gpus: usize,
        /// How long nobody watched.
        blind: Duration,
    },
    /// A GPU could not be opened again, or the driver is gone; it is tried on.
    NotYet {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LetGo { who, took } => write!(f, "the GPUs are let go for {who} (in {took:.1?})"),
            Self::RanOut { who, after } => {
                write!(f, "the lease of {who} ran out after {after:.0?}")
            }
            Self::TakenBack { gpus, blind } => {
                write!(f, "{gpus} GPUs are watched again, after {blind:.1?} of blind time")
            }
            Self::NotYet { why } => write!(f, "not all GPUs could be taken back yet: {why}"),
        }
    }
}

/// What keeps the driver from being unloaded or reconfigured, and can let go of it.
pub trait Grip: Send + Sync {
    /// Closes every event file, then has the keeper end. When this returns, no KFD process is left.
    ///
    /// # Errors
    /// Where the keeper does not end; then nothing is watched until [`take_back`](Self::take_back).
    fn let_go(&self) -> Result<()>;

    /// Opens the event files of the GPUs that there are now, and gives how many. May be called again.
    ///
    /// # Errors
    /// Where some could not be opened, or the driver is not there (yet).
    fn take_back(&self) -> Result<usize>;
}

/// Lets go of what a [`Grip`] holds, and takes it back.
#[derive(Debug)]
pub struct Yielder {
    shared: Arc<Shared>,
    clock: Option<JoinHandle<()>>,
}

/// That the GPUs are let go. They are taken back when the last lease ends: by [`Yielder::end`], or in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(u64);

impl Lease {
    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A lease that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Running {
    /// Which.
    pub lease: Lease,
    /// Who has it.
    pub who: String,
    /// Whether it is somebody's who still waits, rather than one that was left to run.
    pub held: bool,
    /// When it ends by itself.
    pub left: Duration,
}

struct Shared {
    grip: Box<dyn Grip>,
    tell: Box<dyn Fn(&Told) + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    leases: BTreeMap<Lease, Given>,
    given: u64,
    let_go_at: Option<Instant>,
    retry: Option<Retry>,
    stopping: bool,
}

#[derive(Debug)]
struct Given {
    who: String,
    held: bool,
    length: Duration,
    until: Instant,
}

/// Some GPUs are still to be taken back.
#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
    until: Instant,
    blind: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Yielder {
    /// For what `grip` holds; `tell` is called with what there is to log.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        grip: impl Grip + 'static,
        tell: impl Fn(&Told) + Send + Sync + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            grip: Box::new(grip),
            tell: Box::new(tell),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let clock = std::thread::Builder::new()
            .name("gpuev-yield".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.keep_time()
            })
            .map_err(|error| Error::io("start a thread", error))?;
        Ok(Self { shared, clock: Some(clock) })
    }

    /// Lets go of every GPU for `who`, at most for `length`: see [`Grip::let_go`]. `held` says that the caller ends it himself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a length of nothing or above [`LONGEST_LEASE`]; where the keeper does
    /// not end, and then the GPUs are watched on.
    pub fn yield_to(&self, who: &str, length: Duration, held: bool) -> Result<(Lease, Duration)> {
        if length.is_zero() || length > LONGEST_LEASE {
            let what = format!("a lease of {length:?}");
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .with_hint("it is longer than nothing and at most a day"));
        }
        let mut state = self.shared.lock();
        let begun = Instant::now();
        if state.let_go_at.is_none() {
            self.shared.let_go(&mut state)?;
        }
        let took = begun.elapsed();
        (self.shared.tell)(&Told::LetGo { who: who.to_owned(), took });
        state.given += 1;
        let lease = Lease(state.given);
        let given = Given { who: who.to_owned(), held, length, until: Instant::now() + length };
        state.leases.insert(lease, given);
        self.shared.changed.notify_all();
        Ok((lease, took))
    }

    /// Ends a lease; with the last one the GPUs are taken back. One that has ended already stays ended.
    pub fn end(&self, lease: Lease) {
        let mut state = self.shared.lock();
        if state.leases.remove(&lease).is_some() {
            self.shared.take_back_if_last(&mut state);
        }
    }

    /// Ends the leases that nobody holds; gives how many, and those that still run.
    pub fn resume(&self) -> (usize, Vec<Running>) {
        let mut state = self.shared.lock();
        let before = state.leases.len();
        state.leases.retain(|_, given| given.held);
        let ended = before - state.leases.len();
        if ended > 0 {
            self.shared.take_back_if_last(&mut state);
        }
        (ended, running(&state))
    }

    /// The leases that run now.
    #[must_use]
    pub fn running(&self) -> Vec<Running> {
        running(&self.shared.lock())
    }
}

impl Drop for Yielder {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(clock) = self.clock.take() {
            let _panicked = clock.join();
        }
    }
}

fn running(state: &State) -> Vec<Running> {
    let now = Instant::now();
    let all = state.leases.iter();
    all.map(|(lease, given)| Running {
        lease: *lease,
        who: given.who.clone(),
        held: given.held,
        left: given.until.saturating_duration_since(now),
    })
    .collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go(&self, state: &mut State) -> Result<()> {
        let since = Instant::now();
        if let Err(error) = self.grip.let_go() {
            self.take_back(state, since.elapsed());
            return Err(error);
        }
        state.retry = None;
        state.let_go_at = Some(since);
        Ok(())
    }

    fn take_back_if_last(&self, state: &mut State) {
        if !state.leases.is_empty() {
            return;
        }
        if let Some(since) = state.let_go_at.take() {
            self.take_back(state, since.elapsed());
        }
    }

    fn take_back(&self, state: &mut State, blind: Duration) {
        let now = Instant::now();
        let retry = Retry { at: now + RETRY.0, pause: RETRY.0, until: now + RETRY_FOR, blind };
        self.try_to_open(state, retry);
        self.changed.notify_all();
    }

    /// Opens what can be opened, tells how it went, and says when to try again.
    fn try_to_open(&self, state: &mut State, retry: Retry) {
        let first = state.retry.is_none();
        state.retry = None;
        match self.grip.take_back() {
            Ok(gpus) => (self.tell)(&Told::TakenBack { gpus, blind: retry.blind }),
            Err(error) => {
                if first {
                    (self.tell)(&Told::NotYet { why: error.to_string() });
                }
                state.retry = Some(retry).filter(|retry| retry.at < retry.until);
            }
        }
    }

    /// Ends leases in time, and tries again to open what could not be opened.
    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let now = Instant::now();
            self.end_what_ran_out(&mut state, now);
            self.try_again(&mut state, now);
            let leases = state.leases.values().map(|given| given.until);
            let next = leases.chain(state.retry.as_ref().map(|retry| retry.at)).min();
            state = match next {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn end_what_ran_out(&self, state: &mut State, now: Instant) {
        let before = state.leases.len();
        state.leases.retain(|_, given| {
            let runs = given.until > now;
            if !runs {
                (self.tell)(&Told::RanOut { who: given.who.clone(), after: given.length });
            }
            runs
        });
        if state.leases.len() < before {
            self.take_back_if_last(state);
        }
    }

    fn try_again(&self, state: &mut State, now: Instant) {
        let Some(due) = state.retry.as_ref().filter(|retry| retry.at <= now) else { return };
        let pause = (due.pause * 2).min(RETRY.1);
        let retry = Retry { at: now + pause, pause, until: due.until, blind: due.blind };
        self.try_to_open(state, retry);
    }
}
