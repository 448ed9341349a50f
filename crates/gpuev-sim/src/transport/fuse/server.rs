//! What event files hold, and the thread that answers requests on them.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::protocol::{self, Answer, Request, op};
use crate::clock::boot_ns;
use crate::line::Line;
use crate::transport::Control;

/// `EPOLLIN | EPOLLRDNORM`, all that the driver's `poll` ever says.
const READABLE: u32 = 0x41;
/// `EPOLLHUP`, when the GPU is gone.
const HUNG_UP: u32 = 0x10;

/// What the server and the driver's ends have in common.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    caught_up: Condvar,
}

#[derive(Default)]
struct State {
    files: HashMap<u64, File>,
    next: u64,
    /// Pollers to wake.
    wake: Vec<u64>,
    /// How often it was asked to answer all that waits, and up to which it has.
    asked: u64,
    answered: u64,
    closed: bool,
}

/// One event file.
struct File {
    fifo: VecDeque<u8>,
    /// Most bytes that one `read()` gives.
    read_limit: usize,
    /// The newest mask that the engine has not fetched yet.
    mask: Option<u64>,
    poll_handle: Option<u64>,
    /// What the next reads fail with.
    failures: VecDeque<Errno>,
    drops: Drops,
    opened: bool,
    released: bool,
    /// The driver's end is gone.
    ended: bool,
}

/// Drops of AMD's own driver, which tells of them.
#[derive(Default)]
struct Drops {
    /// Bytes of the FIFO.
    capacity: usize,
    /// Who opened the file.
    pid: u32,
    /// Lines that were dropped and not told of.
    untold: u64,
    /// Lines that told of drops, since the engine last asked, and their bytes.
    reports: u64,
    report_bytes: u64,
}

impl File {
    /// What `read()` of AMD's own driver does last: it puts a line with the number of drops in,
    /// for the next `read()`, and wakes nobody.
    fn tell_of_drops(&mut self) {
        if self.drops.untold == 0 {
            return;
        }
        let mut line = Line::new();
        line.write_dropped(boot_ns(), self.drops.pid, self.drops.untold);
        let line = line.as_bytes();
        if self.fifo.len() + line.len() <= self.drops.capacity {
            self.fifo.extend(line);
            self.drops.untold = 0;
            self.drops.reports += 1;
            self.drops.report_bytes += line.len() as u64;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new file's number.
    pub(super) fn add(&self, read_limit: usize, capacity: usize, pid: u32) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let file = File {
            fifo: VecDeque::new(),
            read_limit,
            mask: None,
            poll_handle: None,
            failures: VecDeque::new(),
            drops: Drops { capacity, pid, ..Drops::default() },
            opened: false,
            released: false,
            ended: false,
        };
        state.files.insert(number, file);
        number
    }

    pub(super) fn control(&self, number: u64) -> Control {
        let mut state = self.lock();
        let gone = state.closed;
        match state.files.get_mut(&number) {
            Some(file) => Control {
                mask: file.mask.take(),
                closed: file.released || gone,
                drop_reports: std::mem::take(&mut file.drops.reports),
                drop_report_bytes: std::mem::take(&mut file.drops.report_bytes),
            },
            None => Control { closed: true, ..Control::default() },
        }
    }

    pub(super) fn held(&self, number: u64) -> usize {
        self.lock().files.get(&number).map_or(0, |file| file.fifo.len())
    }

    /// Drops a line unless there is room for it and no drop is yet to be told of; whether it did.
    pub(super) fn drop_if_full(&self, number: u64, len: usize) -> bool {
        let mut state = self.lock();
        let Some(file) = state.files.get_mut(&number) else { return false };
        let full = file.drops.untold > 0 || file.fifo.len() + len > file.drops.capacity;
        file.drops.untold += u64::from(full);
        full
    }

    /// Has the next read fail.
    pub(super) fn fail_next_read(&self, number: u64, errno: Errno) {
        if let Some(file) = self.lock().files.get_mut(&number) {
            file.failures.push_back(errno);
        }
    }

    /// Puts lines into the FIFO; whether somebody is to be woken.
    pub(super) fn push(&self, number: u64, lines: &[u8]) -> bool {
        let mut state = self.lock();
        let Some(file) = state.files.get_mut(&number) else { return false };
        file.fifo.extend(lines);
        let handle = file.poll_handle;
        state.wake.extend(handle);
        handle.is_some()
    }

    /// Takes the driver's end away; whether somebody is to be woken.
    pub(super) fn end(&self, number: u64) -> bool {
        let mut state = self.lock();
        let Some(file) = state.files.get_mut(&number) else { return false };
        file.ended = true;
        let (handle, unused) = (file.poll_handle, file.released || !file.opened);
        if unused {
            state.files.remove(&number);
        }
        state.wake.extend(handle);
        handle.is_some()
    }

    /// Asks the server to answer all requests that wait by now.
    pub(super) fn ask_to_catch_up(&self) -> u64 {
        let mut state = self.lock();
        state.asked += 1;
        state.asked
    }

    pub(super) fn wait_until_caught_up(&self, ticket: u64) {
        let state = self.lock();
        let waits = |state: &mut State| state.answered < ticket && !state.closed;
        drop(self.caught_up.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody serves any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.caught_up.notify_all();
    }
}

/// The server's thread.
pub(super) struct Server<'a> {
    shared: &'a Shared,
    fuse: OwnedFd,
    wakened: OwnedFd,
}

impl<'a> Server<'a> {
    pub(super) fn new(shared: &'a Shared, fuse: OwnedFd, wakened: OwnedFd) -> Self {
        Server { shared, fuse, wakened }
    }

    /// Answers until the other end of `wakened` is closed or the file system is gone.
    pub(super) fn serve(&self) {
        let mut buffer = vec![0; protocol::REQUEST_BYTES];
        while self.wait() {
            let (asked, wake) = {
                let mut state = self.shared.lock();
                (state.asked, std::mem::take(&mut state.wake))
            };
            for handle in wake {
                self.send(&Answer::wake(handle));
            }
            if !self.answer_all(&mut buffer) {
                return;
            }
            let mut state = self.shared.lock();
            if state.answered != asked {
                state.answered = asked;
                self.shared.caught_up.notify_all();
            }
        }
    }

    /// Sleeps until there is something to do; false at the end.
    fn wait(&self) -> bool {
        let mut fds =
            [PollFd::new(&self.fuse, PollFlags::IN), PollFd::new(&self.wakened, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return true,
            Err(_) => return false,
        }
        let [requests, wakened] = fds.map(|fd| fd.revents());
        if requests.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return false;
        }
        wakened.is_empty() || self.drain_wakened()
    }

    fn drain_wakened(&self) -> bool {
        let mut buffer = [0; 8];
        loop {
            match rustix::net::recv(&self.wakened, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Answers all requests that wait; false when there will be none any more.
    fn answer_all(&self, buffer: &mut [u8]) -> bool {
        loop {
            match rustix::io::read(&self.fuse, &mut *buffer) {
                Ok(len) => {
                    if let Some(request) = Request::parse(&buffer[..len])
                        && let Some(answer) = self.answer(&request)
                    {
                        self.send(&answer);
                    }
                }
                // ENOENT: the request was withdrawn.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    /// A request that was interrupted, or a poller that is gone, needs no answer.
    fn send(&self, answer: &Answer) {
        let _ = rustix::io::write(&self.fuse, answer.as_bytes());
    }

    fn answer(&self, request: &Request<'_>) -> Option<Answer> {
        let unique = request.unique();
        let done = match request.opcode() {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return None,
            op::INIT => Ok(protocol::init().to_vec()),
            op::DESTROY => Ok(Vec::new()),
            op::LOOKUP => self.lookup(request),
            op::GETATTR => Ok(protocol::attributes_answer(request.node()).to_vec()),
            op::OPEN => self.open(request),
            op::READ => self.read(request),
            op::WRITE => self.write(request),
            op::POLL => self.poll(request),
            op::RELEASE => self.release(request),
            op::IOCTL => Err(Errno::NOTTY),
            // What an anonymous inode says.
            op::FSYNC | op::SETATTR => Err(Errno::INVAL),
            _ => Err(Errno::NOSYS),
        };
        Some(match done {
            Ok(body) => Answer::ok(unique, &body),
            Err(errno) => Answer::fail(unique, errno.raw_os_error()),
        })
    }

    fn lookup(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let number = protocol::file_number(request.name()).ok_or(Errno::NOENT)?;
        let known = self.shared.lock().files.contains_key(&number);
        let node = protocol::node_of(number);
        if known { Ok(protocol::entry(node).to_vec()) } else { Err(Errno::NOENT) }
    }

    fn open(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let number = protocol::number_of(request.node()).ok_or(Errno::ISDIR)?;
        let mut state = self.shared.lock();
        state.files.get_mut(&number).ok_or(Errno::NOENT)?.opened = true;
        Ok(protocol::opened(number).to_vec())
    }

    /// `kfd_smi_ev_read`: what is held, up to the size; nothing is `EAGAIN`.
    fn read(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mut state = self.shared.lock();
        let file = state.files.get_mut(&request.handle()).ok_or(Errno::NODEV)?;
        if let Some(errno) = file.failures.pop_front() {
            return Err(errno);
        }
        if file.fifo.is_empty() {
            return if file.ended { Ok(Vec::new()) } else { Err(Errno::AGAIN) };
        }
        let taken = request.read_size().min(file.fifo.len()).min(file.read_limit);
        let bytes = file.fifo.drain(..taken).collect();
        file.tell_of_drops();
        Ok(bytes)
    }

    /// `kfd_smi_ev_write`: the first 8 bytes are the mask; less is `EFAULT`.
    fn write(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mask = request.written().first_chunk().ok_or(Errno::FAULT)?;
        let mut state = self.shared.lock();
        let file = state.files.get_mut(&request.handle()).ok_or(Errno::NODEV)?;
        file.mask = Some(u64::from_ne_bytes(*mask));
        Ok(protocol::wrote(8).to_vec())
    }

    fn poll(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mut state = self.shared.lock();
        let file = state.files.get_mut(&request.handle()).ok_or(Errno::NODEV)?;
        file.poll_handle = request.poll_handle().or(file.poll_handle);
        let mut events = 0;
        if file.ended {
            events = HUNG_UP | READABLE;
        } else if !file.fifo.is_empty() {
            events = READABLE;
        }
        Ok(protocol::polled(events).to_vec())
    }

    fn release(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mut state = self.shared.lock();
        let number = request.handle();
        if let Some(file) = state.files.get_mut(&number) {
            file.released = true;
            if file.ended {
                state.files.remove(&number);
            }
        }
        Ok(Vec::new())
    }
}
