//! Where threads sleep until a FIFO fills or another thread wakes them.
//!
//! Files are watched for edges, so that an event wakes one thread: a thread that is woken reads until the driver holds
//! no more, or leaves the file in `Sources::unfinished`. The kernel wakes the thread that came last.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::fork::Descriptor;
use crate::{Error, Result};

/// The epoll entry of [`Poller::wake`].
const WAKE: u64 = u64::MAX;
/// Files that one wait gives. More come with the next, or to another thread.
const MOST_FILES: usize = 64;
const EDGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);
/// Nothing more will come.
const ENDED: epoll::EventFlags =
    epoll::EventFlags::HUP.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ERR);

/// Whether nothing more will come. The kernel makes one edge of this and of what came before.
pub(crate) fn has_ended(event: &epoll::Event) -> bool {
    // The kernel's struct is packed.
    let flags = event.flags;
    flags.intersects(ENDED)
}

/// Room for what one wait gives.
pub(super) struct Room([MaybeUninit<epoll::Event>; MOST_FILES]);

/// Event files and a way to wake whoever waits for them.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Descriptor,
    wake: WakeUp,
}

/// Wakes one of the threads that wait, or the next that will.
#[derive(Debug, Clone)]
pub(crate) struct WakeUp(Arc<Descriptor>);

impl WakeUp {
    pub(crate) fn wake(&self) {
        raise(&self.0);
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// The file that was added with this token.
    File { token: u64, has_ended: bool },
    /// Somebody woke a thread.
    Woken,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MOST_FILES])
    }
}

impl Poller {
    pub(super) fn new() -> Result<Self> {
        let failed = |what: &'static str| move |error: Errno| Error::io(what, error.into());
        let epoll = Descriptor::open(|| epoll::create(epoll::CreateFlags::CLOEXEC))
            .map_err(failed("epoll_create"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake =
            Descriptor::open(|| rustix::event::eventfd(0, flags)).map_err(failed("eventfd"))?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), EDGES)
            .map_err(failed("epoll_ctl"))?;
        Ok(Self { epoll, wake: WakeUp(Arc::new(wake)) })
    }

    /// Watches `file`. What it holds now is an edge too.
    pub(super) fn add(&self, file: impl AsFd, token: u64) -> Result<()> {
        epoll::add(&self.epoll, file, epoll::EventData::new_u64(token), EDGES)
            .map_err(|error| Error::io("epoll_ctl", error.into()))
    }

    /// The file is open, so this cannot fail.
    pub(super) fn remove(&self, file: impl AsFd) {
        let _watched = epoll::delete(&self.epoll, file);
    }

    /// Waits until something is to be done, at most `timeout`; nothing after a signal.
    ///
    /// # Errors
    /// None while the epoll file is open, which is ours.
    pub(super) fn wait<'a>(
        &self,
        Room(room): &'a mut Room,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + 'a> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let events: &[epoll::Event] = match epoll::wait(&self.epoll, room, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(Error::io("epoll_wait", error.into())),
        };
        Ok(events.iter().map(|event| match event.data.u64() {
            WAKE => Ready::Woken,
            token => Ready::File { token, has_ended: has_ended(event) },
        }))
    }

    /// Wakes one of the threads that wait, or the next that will.
    pub(super) fn wake(&self) {
        self.wake.wake();
    }

    pub(super) fn wake_up(&self) -> &WakeUp {
        &self.wake
    }
}

/// Adds to an eventfd. That fails only where it is at its maximum, and is an edge even then.
pub(crate) fn raise(eventfd: &Descriptor) {
    let _already_raised = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}
