//! A plain client of an event file, as little as can be: it shares no code with what is sold.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gpuev_sim::{Client, DriverEvent, Kernel, SimMachine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The kernels whose driver was measured.
pub(crate) const KERNELS: [Kernel; 4] = [Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3];

/// An event that reaches every client, in a line of 8 bytes.
pub(crate) const THERMAL: DriverEvent = DriverEvent::Thermal { throttlers: 0x400, count: 7 };
pub(crate) const THERMAL_LINE: &str = "2 400:7\n";

/// Two GPUs.
pub(crate) fn machine(kernel: Kernel) -> SimMachine {
    crate::builder().gpus(2).kernel(kernel).build().unwrap()
}

pub(crate) fn open(machine: &SimMachine, gpu: usize, client: &Client, mask: u64) -> OwnedFd {
    let id = machine.kfd_gpu_id(gpu).unwrap();
    let file = machine.open_events(id, client).unwrap();
    set_mask(&file, mask);
    file
}

/// As root, with every event.
pub(crate) fn open_all(machine: &SimMachine, gpu: usize) -> OwnedFd {
    open(machine, gpu, &Client::root(), u64::MAX)
}

pub(crate) fn set_mask(file: &OwnedFd, mask: u64) {
    assert_eq!(rustix::io::write(file, &mask.to_ne_bytes()), Ok(8));
}

/// One `read()` of at most `size` bytes.
pub(crate) fn read(file: &OwnedFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; size];
    let taken = rustix::io::read(file, &mut buffer)?;
    buffer.truncate(taken);
    Ok(buffer)
}

/// All that is held, as text with bytes that are not UTF-8 replaced.
pub(crate) fn drain(file: &OwnedFd) -> String {
    let mut all = Vec::new();
    while let Ok(bytes) = read(file, 1 << 16) {
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// What `poll()` says of reading, at once.
pub(crate) fn state(file: impl AsFd) -> PollFlags {
    poll_for(file, Some(0))
}

/// What `poll()` says of reading, after at most so many seconds.
pub(crate) fn poll_for(file: impl AsFd, seconds: Option<i64>) -> PollFlags {
    let mut fds = [PollFd::new(&file, PollFlags::IN | PollFlags::RDNORM)];
    let timeout = seconds.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    while poll(&mut fds, timeout.as_ref()) == Err(Errno::INTR) {}
    fds[0].revents()
}

pub(crate) fn readable(file: &OwnedFd) -> bool {
    state(file).contains(PollFlags::IN)
}

/// What `fcntl(F_GETFL)` and `F_GETFD` say.
pub(crate) fn flags(file: &OwnedFd) -> (rustix::fs::OFlags, rustix::io::FdFlags) {
    (rustix::fs::fcntl_getfl(file).unwrap(), rustix::io::fcntl_getfd(file).unwrap())
}

/// Waits until the thread sleeps in `poll` or `epoll_wait`, as the kernel says.
pub(crate) fn wait_until_in_poll(thread: rustix::thread::Pid) {
    let path = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    let polls = [libc::SYS_poll, libc::SYS_ppoll, libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
    loop {
        let now = std::fs::read_to_string(&path).unwrap_or_default();
        let call = now.split(' ').next().and_then(|number| number.parse().ok());
        if call.is_some_and(|call: i64| polls.contains(&call)) {
            return;
        }
        std::thread::yield_now();
    }
}

/// The descriptor's number, for calls that may outlive it.
pub(crate) fn number(file: &OwnedFd) -> i32 {
    file.as_raw_fd()
}
