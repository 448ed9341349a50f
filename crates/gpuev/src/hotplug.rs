//! Notices when GPUs come and go, without looking again and again.
//!
//! The kernel announces devices over netlink (`KOBJECT_UEVENT`). A root that is not the host's, such as a
//! simulated machine, changes its topology's `generation_id` file instead, which inotify sees.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

use crate::fork::Descriptor;
use crate::{Error, Machine, Result};

/// What the eventfd is given for an announcement; less only ends a wait.
const ANNOUNCED: u64 = 1 << 32;

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// GPUs may have come or gone.
    Announced,
    /// Something else can be read.
    Readable,
    /// Nothing happened in time.
    TimedOut,
    /// What is to be waited for has changed.
    WaitAnew,
}

/// Announcements of a machine's GPUs.
#[derive(Debug)]
pub(crate) struct Hotplug {
    files: Option<Descriptor>,
    uevents: Option<Descriptor>,
    nudge: Descriptor,
}

impl Hotplug {
    /// Listens for what `machine` announces. Where a way to listen is missing, it goes without.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub(crate) fn listen(machine: &Machine) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let nudge = Descriptor::open(|| rustix::event::eventfd(0, flags))
            .map_err(|error| Error::io("create an eventfd", error.into()))?;
        Ok(Self {
            files: Descriptor::open(|| watch_generation(machine).ok_or(())).ok(),
            uevents: Descriptor::open(listen_to_uevents).ok(),
            nudge,
        })
    }

    /// Makes [`wait`](Self::wait) return, as an announcement does.
    pub(crate) fn nudge(&self) {
        self.add(ANNOUNCED);
    }

    /// Makes [`wait`](Self::wait) return, so that it is called with what is to be waited for now.
    pub(crate) fn wait_anew(&self) {
        self.add(1);
    }

    fn add(&self, count: u64) {
        let _already_nudged = rustix::io::write(&self.nudge, &count.to_ne_bytes());
    }

    /// Waits until something was announced, one of `others` is readable, or `timeout` is over.
    pub(crate) fn wait(&self, others: &[Arc<Descriptor>], timeout: Option<Duration>) -> Heard {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let own = [Some(&self.nudge), self.files.as_ref(), self.uevents.as_ref()];
        let own = own.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN));
        let others = others.iter().map(|fd| PollFd::new(&**fd, PollFlags::IN));
        let mut fds: Vec<_> = others.collect();
        let others = fds.len();
        fds.extend(own);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => return Heard::TimedOut,
                Ok(_) => {}
                Err(_) => continue,
            }
            if let Some(heard) = self.take_announcements() {
                return heard;
            }
            if fds[..others].iter().any(|fd| !fd.revents().is_empty()) {
                return Heard::Readable;
            }
        }
    }

    /// Reads what was announced, if it concerns GPUs.
    fn take_announcements(&self) -> Option<Heard> {
        let mut count = [0_u8; 8];
        let nudged = rustix::io::read(&self.nudge, &mut count).is_ok();
        let changed = self.files.as_ref().is_some_and(drain_inotify);
        let announced = self.uevents.as_ref().is_some_and(drain_uevents);
        if changed || announced || (nudged && u64::from_ne_bytes(count) >= ANNOUNCED) {
            return Some(Heard::Announced);
        }
        nudged.then_some(Heard::WaitAnew)
    }
}

fn watch_generation(machine: &Machine) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watcher = inotify::init(flags).ok()?;
    let topology = machine.path("sys/class/kfd/kfd/topology");
    let events = inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watcher, topology, events).ok()?;
    Some(watcher)
}

fn drain_inotify(watcher: &Descriptor) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    let mut changed = false;
    while reader.next().is_ok() {
        changed = true;
    }
    changed
}

fn listen_to_uevents() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::KOBJECT_UEVENT);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
    // Group 1 is what the kernel itself sends.
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// An overrun (`ENOBUFS`) means that announcements were missed: better look.
fn drain_uevents(socket: &Descriptor) -> bool {
    let mut buffer = [0_u8; 8192];
    let mut concerned = false;
    loop {
        match rustix::net::recv(socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => concerned |= concerns_gpus(&buffer[..length.min(buffer.len())]),
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => concerned = true,
            Err(_) => return concerned,
        }
    }
}

/// A uevent is a row of NUL-ended `KEY=value`.
fn concerns_gpus(uevent: &[u8]) -> bool {
    const OURS: [&[u8]; 4] =
        [b"SUBSYSTEM=drm", b"SUBSYSTEM=kfd", b"DRIVER=amdgpu", b"DEVTYPE=drm_minor"];
    uevent.split(|&byte| byte == 0).any(|field| OURS.contains(&field))
}
