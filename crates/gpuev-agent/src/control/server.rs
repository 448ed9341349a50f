//! The agent's side of the local socket: a thread listens, and each connection has one.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gpuev::{Error, Result};
use rustix::event::{PollFd, PollFlags};

use super::{LONGEST_LINE, Request, Response, RunningLease, operate};
use crate::agent::Shared;
use crate::yielding::{Lease, Running, Yielder};

/// Connections at a time; one more is told so.
const MOST_CONNECTIONS: usize = 32;

/// A connection that says nothing for so long, and has no lease, is closed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Owner and group may ask the agent.
const MODE: u32 = 0o660;
/// Between attempts to listen.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const HINT: &str = "is another agent running? control.socket names another path";

/// What the socket gives access to.
#[derive(Debug)]
pub struct Served {
    /// Lets go of the GPUs.
    pub yielder: Yielder,
    /// The agent, where it is one.
    pub agent: Option<Arc<Shared>>,
}

/// Listens until it is dropped; leases that connections hold end with it.
#[derive(Debug)]
pub struct Server {
    /// The socket, where this is to remove it.
    path: Option<PathBuf>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, for the agent's user and group. The socket of an agent that has died is taken over.
    ///
    /// # Errors
    /// Where it cannot listen, or another agent does.
    pub fn start(path: &Path, served: Arc<Served>) -> Result<Self> {
        Self::with_mode(path, served, MODE).map_err(|error| error.with_hint(HINT))
    }

    /// As [`start`](Self::start); where it cannot listen, it tries again every ten seconds, and `tell` hears why, then
    /// `None`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start_when_possible(
        path: &Path,
        served: Arc<Served>,
        tell: impl Fn(Option<&Error>) + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = UnixStream::pair().map_err(|error| failed_at(path, error))?;
        let place = path.to_owned();
        let mut first = Some(bind(path, MODE));
        let listen = move || {
            let mut has_failed = false;
            loop {
                match first.take().unwrap_or_else(|| bind(&place, MODE)) {
                    Ok(listener) => {
                        if has_failed {
                            tell(None);
                        }
                        Connections::default().accept(&listener, &stopped, &served);
                        let _gone_already = std::fs::remove_file(&place);
                        return;
                    }
                    Err(error) => {
                        if !has_failed {
                            tell(Some(&failed_at(&place, error)));
                        }
                        has_failed = true;
                    }
                }
                if is_stopped_within(&stopped, RETRY_AFTER) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("gpuev-control".to_owned())
            .spawn(listen)
            .map_err(|error| failed_at(path, error))?;
        Ok(Self { path: None, stop: Some(stop), thread: Some(thread) })
    }

    /// As [`start`](Self::start), for this user only.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn start_private(path: &Path, served: Arc<Served>) -> Result<Self> {
        Self::with_mode(path, served, 0o600)
    }

    fn with_mode(path: &Path, served: Arc<Served>, mode: u32) -> Result<Self> {
        let failed = |error| Error::io(format!("listen at {}", path.display()), error);
        let listener = bind(path, mode).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("gpuev-control".to_owned())
            .spawn(move || Connections::default().accept(&listener, &stopped, &served))
            .map_err(failed)?;
        Ok(Self { path: Some(path.to_owned()), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        if let Some(path) = &self.path {
            let _gone_already = std::fs::remove_file(path);
        }
    }
}

fn failed_at(path: &Path, error: io::Error) -> Error {
    Error::io(format!("listen at {}", path.display()), error).with_hint(HINT)
}

/// Waits; whether it was told to stop meanwhile.
fn is_stopped_within(stopped: &UnixStream, time: Duration) -> bool {
    let mut fds = [PollFd::new(stopped, PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(time).ok();
    let _interrupted = rustix::event::poll(&mut fds, timeout.as_ref());
    !fds[0].revents().is_empty()
}

fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    remove_socket(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes what an agent that died has left. Anything but a socket stays: it is somebody else's.
fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The connections that are open, to be cut when it ends.
#[derive(Debug, Clone, Default)]
struct Connections {
    open: Arc<Mutex<HashMap<u64, UnixStream>>>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &UnixListener, stopped: &UnixStream, served: &Arc<Served>) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for number in 0.. {
            let Some(stream) = next(listener, stopped) else { break };
            threads.retain(|thread| !thread.is_finished());
            if let Some(thread) = self.serve(number, stream, served) {
                threads.push(thread);
            }
        }
        for stream in self.lock().values() {
            let _gone = stream.shutdown(std::net::Shutdown::Both);
        }
        for thread in threads {
            let _panicked = thread.join();
        }
    }

    fn serve(
        &self,
        number: u64,
        stream: UnixStream,
        served: &Arc<Served>,
    ) -> Option<JoinHandle<()>> {
        let mut open = self.lock();
        if open.len() >= MOST_CONNECTIONS {
            let _gone = write(&stream, &failed("too many connections: try again in a moment"));
            return None;
        }
        open.insert(number, stream.try_clone().ok()?);
        drop(open);
        let (connections, served) = (self.clone(), Arc::clone(served));
        let spawned =
            std::thread::Builder::new().name("gpuev-control".to_owned()).spawn(move || {
                let mut held = Vec::new();
                let _gone = converse(&stream, &served, &mut held);
                held.into_iter().for_each(|lease| served.yielder.end(lease));
                connections.lock().remove(&number);
            });
        if spawned.is_err() {
            self.lock().remove(&number);
        }
        spawned.ok()
    }
}

/// The next connection; none when it is time to stop.
fn next(listener: &UnixListener, stopped: &UnixStream) -> Option<UnixStream> {
    loop {
        let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        let _interrupted = rustix::event::poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            return None;
        }
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(false).is_ok() => return Some(stream),
            // Out of descriptors: what waits is let in when some are free again.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(100));
            }
            _ => {}
        }
    }
}

/// Answers until the other side hangs up or says what is no request.
fn converse(stream: &UnixStream, served: &Served, held: &mut Vec<Lease>) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        stream.set_read_timeout(Some(PATIENCE).filter(|_| held.is_empty()))?;
        let mut line = Vec::new();
        (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            if !line.is_empty() {
                write(stream, &failed("a request is one line of at most 64 KiB"))?;
            }
            return Ok(());
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, served, held),
            Err(error) => failed(format!("no such request: {error}")),
        };
        write(stream, &response)?;
    }
}

fn answer(request: Request, served: &Served, held_leases: &mut Vec<Lease>) -> Response {
    let yielder = &served.yielder;
    match request {
        Request::Yield { who, seconds, held } => {
            let Ok(length) = Duration::try_from_secs_f64(seconds) else {
                return failed("seconds is no length of time");
            };
            match yielder.yield_to(&who, length, held) {
                Ok((lease, took)) => {
                    held_leases.extend(Some(lease).filter(|_| held));
                    let took_ms = took.as_secs_f64() * 1e3;
                    Response::Yielded { ok: true, lease: lease.number(), took_ms }
                }
                Err(error) => failed(error.to_string()),
            }
        }
        Request::Resume {} => {
            let (ended, running) = yielder.resume();
            leases(ended, running)
        }
        Request::Leases {} => leases(0, yielder.running()),
        request => match &served.agent {
            Some(agent) => answer_operator(request, agent),
            None => failed("this program is no agent: it has no alerts"),
        },
    }
}

fn answer_operator(request: Request, agent: &Shared) -> Response {
    let answer = match request {
        Request::Status {} => return operate::status(agent),
        Request::Alerts {} => return operate::alerts(agent),
        Request::Acknowledge { id, by } => operate::acknowledge(agent, &id, by.as_deref()),
        Request::Silence { what, dry } => operate::silence(agent, what, dry),
        Request::EndSilence { id } => operate::end_silence(agent, id),
        Request::Yield { .. } | Request::Resume {} | Request::Leases {} => {
            return failed("no such request");
        }
    };
    answer.unwrap_or_else(|error| failed(error.to_string()))
}

fn leases(ended: usize, running: Vec<Running>) -> Response {
    let running = running.into_iter().map(|running| RunningLease {
        lease: running.lease.number(),
        who: running.who,
        held: running.held,
        left_s: running.left.as_secs_f64(),
    });
    Response::Leases { ok: true, ended, running: running.collect() }
}

fn failed(error: impl Into<String>) -> Response {
    Response::Failed { ok: false, error: error.into() }
}

fn write(mut stream: &UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}
