//! [`poller`](super::poller) as `shuttle` can try it: what the kernel promises of an epoll file that is watched for
//! edges. Each edge is given to one wait; a wait gives all edges that are there; which thread is woken is open.

#![cfg(all(test, gpuev_shuttle))]

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::fork::Descriptor;
use crate::sync::{Condvar, Mutex};

/// Room for what one wait gives.
pub(super) struct Room;

#[derive(Debug, Default)]
struct Edges {
    tokens: Vec<(RawFd, u64)>,
    ready: BTreeSet<u64>,
    woken: bool,
}

/// Event files and a way to wake whoever waits for them.
#[derive(Debug)]
pub(crate) struct Poller(WakeUp);

/// Wakes one of the threads that wait, or the next that will.
#[derive(Debug, Clone)]
pub(crate) struct WakeUp(Arc<(Mutex<Edges>, Condvar)>);

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
        Self
    }
}

impl WakeUp {
    pub(crate) fn wake(&self) {
        self.0.0.lock().unwrap().woken = true;
        self.0.1.notify_one();
    }
}

impl Poller {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(WakeUp(Arc::new((Mutex::new(Edges::default()), Condvar::new())))))
    }

    pub(super) fn add(&self, file: impl AsFd, token: u64) -> Result<()> {
        let number = file.as_fd().as_raw_fd();
        self.0.0.0.lock().unwrap().tokens.push((number, token));
        self.edge(token);
        Ok(())
    }

    pub(super) fn remove(&self, file: impl AsFd) {
        let number = file.as_fd().as_raw_fd();
        self.0.0.0.lock().unwrap().tokens.retain(|(other, _)| *other != number);
    }

    /// The driver has queued something.
    pub(super) fn edge(&self, token: u64) {
        self.0.0.0.lock().unwrap().ready.insert(token);
        self.0.0.1.notify_one();
    }

    pub(super) fn wait(
        &self,
        _room: &mut Room,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + use<>> {
        let mut edges = self.0.0.0.lock().unwrap();
        while timeout.is_none() && edges.ready.is_empty() && !edges.woken {
            edges = self.0.0.1.wait(edges).unwrap();
        }
        let files = std::mem::take(&mut edges.ready)
            .into_iter()
            .map(|token| Ready::File { token, has_ended: false });
        let woken = std::mem::take(&mut edges.woken).then_some(Ready::Woken);
        Ok(files.chain(woken))
    }

    pub(super) fn wake(&self) {
        self.0.wake();
    }

    pub(super) fn wake_up(&self) -> &WakeUp {
        &self.0
    }
}

/// Adds to an eventfd.
pub(crate) fn raise(eventfd: &Descriptor) {
    let _already_raised = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}

/// Whether nothing more will come. Only readers outside of the model ask.
pub(crate) fn has_ended(event: &rustix::event::epoll::Event) -> bool {
    let flags = event.flags;
    flags.contains(rustix::event::epoll::EventFlags::HUP)
}
