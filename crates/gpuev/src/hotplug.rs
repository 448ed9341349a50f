//! Notices when GPUs come and go, without looking again and again.
//!
//! The kernel announces devices over netlink (`KOBJECT_UEVENT`). A root that is not the host's, such as a
//! simulated machine, changes its topology's `generation_id` file instead, which inotify sees.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

use crate::fork::Descriptor;
use crate::{Error, Machine, Result};

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

    /// Makes [`wait`](Self::wait) return.
    pub(crate) fn nudge(&self) {
        let _already_nudged = rustix::io::write(&self.nudge, &1_u64.to_ne_bytes());
    }

    /// Waits until something was announced.
    pub(crate) fn wait(&self) {
        let sources = [Some(&self.nudge), self.files.as_ref(), self.uevents.as_ref()];
        let mut fds: Vec<_> =
            sources.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                _ if self.take_announcements() => return,
                _ => {}
            }
        }
    }

    /// Reads what was announced; true where it concerns GPUs.
    fn take_announcements(&self) -> bool {
        let nudged = rustix::io::read(&self.nudge, &mut [0_u8; 8]).is_ok();
        let changed = self.files.as_ref().is_some_and(drain_inotify);
        let announced = self.uevents.as_ref().is_some_and(drain_uevents);
        nudged || changed || announced
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
