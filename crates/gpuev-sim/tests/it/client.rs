//! A plain client of an event file, as little as can be: it shares no code with what is sold.

use std::os::fd::OwnedFd;

use gpuev_sim::{Client, SimMachine};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

pub(crate) fn open(machine: &SimMachine, gpu: usize, client: &Client, mask: u64) -> OwnedFd {
    let id = machine.kfd_gpu_id(gpu).unwrap();
    let file = machine.open_events(id, client).unwrap();
    set_mask(&file, mask);
    file
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

pub(crate) fn readable(file: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}
