//! Sleeping until more comes than was read.
//!
//! Edge-triggered: the kernel looks at the file once an event and keeps its place among those who wait for it,
//! where `poll` looks twice and takes a new place each time. Who sleeps has read all there was; what has come
//! since is an edge.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::drain::has_ended;
use crate::fork::Descriptor;
use crate::{Error, GpuId, Result};

/// An epoll file that watches one event file.
#[derive(Debug)]
pub(super) struct Edges {
    epoll: Descriptor,
    gpu: GpuId,
}

impl Edges {
    /// Watches the event `file` of `gpu`. What it holds now is an edge too.
    pub(super) fn of(file: &impl AsFd, gpu: GpuId) -> Result<Self> {
        let failed = |error: Errno| Error::io(waiting_for(gpu), error.into());
        let epoll =
            Descriptor::open(|| epoll::create(epoll::CreateFlags::CLOEXEC)).map_err(failed)?;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&epoll, file, epoll::EventData::new_u64(0), edges).map_err(failed)?;
        Ok(Self { epoll, gpu })
    }

    /// Sleeps until there is an edge, at most `timeout`, or until a signal. Tells whether the file has ended: no other
    /// edge will come.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut room = [MaybeUninit::<epoll::Event>::uninit(); 1];
        match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((events, _)) => Ok(events.iter().any(has_ended)),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(Error::io(waiting_for(self.gpu), error.into())),
        }
    }
}

fn waiting_for(gpu: GpuId) -> String {
    format!("epoll the events of GPU {}", gpu.bdf)
}
