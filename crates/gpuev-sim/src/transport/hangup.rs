//! Noticing that clients closed their ends, without any event.
//!
//! One thread for each machine that has sockets. It holds no descriptor of an event file: the
//! kernel takes a socket off the list when its last descriptor is closed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, epoll};

use crate::engine::Port;

/// The place of no port.
const END: u64 = u64::MAX;

/// Sockets whose other ends are watched, and what is to be told.
pub(crate) struct Hangups {
    watched: Arc<Watched>,
    end: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

struct Watched {
    sockets: OwnedFd,
    /// A socket is known by the place of its port here.
    ports: Mutex<Vec<Weak<Port>>>,
}

impl Hangups {
    /// Starts to watch.
    ///
    /// # Errors
    /// No descriptor or thread is to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let sockets = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&sockets, &end, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let watched = Arc::new(Watched { sockets, ports: Mutex::default() });
        let thread = std::thread::Builder::new().name("gpuev-sim-close".to_owned()).spawn({
            let watched = Arc::clone(&watched);
            move || watched.watch()
        })?;
        Ok(Hangups { watched, end, thread: Some(thread) })
    }

    /// Watches the driver's end of an event file of this port.
    ///
    /// # Errors
    /// As `epoll_ctl`.
    pub(crate) fn add(&self, socket: BorrowedFd<'_>, port: &Arc<Port>) -> io::Result<()> {
        let place = epoll::EventData::new_u64(self.watched.place(port));
        let flags = epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        epoll::add(&self.watched.sockets, socket, place, flags)?;
        Ok(())
    }
}

impl Watched {
    fn place(&self, port: &Arc<Port>) -> u64 {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ports.iter().position(|one| std::ptr::eq(one.as_ptr(), Arc::as_ptr(port)));
        let place = known.unwrap_or(ports.len());
        if known.is_none() {
            ports.push(Arc::downgrade(port));
        }
        place as u64
    }

    /// Lets ports look after their files whenever one is closed, until the end.
    fn watch(&self) {
        let mut ready = Vec::with_capacity(64);
        loop {
            ready.clear();
            match epoll::wait(&self.sockets, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for closed in &ready {
                if closed.data.u64() == END {
                    return;
                }
                if let Some(port) = self.port(closed.data.u64()) {
                    port.retire_closed();
                }
            }
        }
    }

    fn port(&self, place: u64) -> Option<Arc<Port>> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(place).ok().and_then(|place| ports.get(place)?.upgrade())
    }
}

impl Drop for Hangups {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
