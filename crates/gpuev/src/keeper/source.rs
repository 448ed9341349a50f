//! The agent's side: an [`EventSource`] whose files a keeper opens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, EventSource, Gpu, KfdVersion, Result, Scope};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{Answer, Question, Received};

/// A keeper that does not answer for so long never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits before a keeper that died is replaced: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Opens event files through a keeper, which is started when the first is needed and ends with
/// [`let_go`](Self::let_go). A handle: clones share the keeper.
///
/// A keeper that dies is replaced at once, also while no file is needed: its being a KFD process keeps the
/// driver from changing partitions below the files that are open.
#[derive(Debug, Clone)]
pub struct KeeperSource {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reach: Reach,
    state: Mutex<State>,
}

/// How one gets a keeper.
#[derive(Debug)]
enum Reach {
    /// Whoever listens there starts one for each that connects.
    Socket(PathBuf),
    /// The program, which serves its standard input.
    Program(PathBuf, Vec<String>),
}

#[derive(Debug, Default)]
struct State {
    keeper: Option<Keeper>,
    /// No keeper may be started.
    let_go: bool,
    /// What the last keeper said of the driver.
    known: Option<(KfdVersion, Scope)>,
    /// Counts the keepers, to tell one from its successor.
    started: u64,
}

#[derive(Debug)]
struct Keeper {
    socket: OwnedFd,
    pidfd: Arc<OwnedFd>,
    /// Ours to reap, if we started it.
    child: Option<Child>,
    number: u64,
}

impl KeeperSource {
    /// Keepers are had by connecting to `socket`.
    #[must_use]
    pub fn at_socket(socket: &Path) -> Self {
        Self::new(Reach::Socket(socket.to_owned()))
    }

    /// Keepers are had by running `program` with `arguments`; it serves its standard input, with the
    /// privileges of this process.
    #[must_use]
    pub fn of_program(program: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self::new(Reach::Program(program.to_owned(), arguments))
    }

    fn new(reach: Reach) -> Self {
        Self { shared: Arc::new(Shared { reach, state: Mutex::default() }) }
    }

    /// Has the keeper end, and waits until it has, at most `within`. Until [`take_back`](Self::take_back) no
    /// other is started, and no file is opened. Close the files that it opened first.
    ///
    /// # Errors
    /// Where it has not ended in time.
    pub fn let_go(&self, within: Duration) -> Result<()> {
        let mut state = self.shared.lock();
        state.let_go = true;
        state.keeper.take().map_or(Ok(()), |keeper| keeper.end(within))
    }

    /// Files may be opened again.
    pub fn take_back(&self) {
        self.shared.lock().let_go = false;
    }

    /// Waits until somebody listens where keepers are had, at most `within` and as long as `goes_on`. He may be
    /// started at the same time as the agent, as the containers of a pod are.
    pub fn wait(&self, within: Duration, mut goes_on: impl FnMut() -> bool) {
        let until = Instant::now() + within;
        while self.nobody_listens() && goes_on() && Instant::now() < until {
            std::thread::sleep(BACK_OFF.0);
        }
    }

    fn nobody_listens(&self) -> bool {
        use rustix::io::Errno;
        let why = self.version().err().and_then(|error| error.raw_os_error());
        let nobody = [Errno::NOENT, Errno::CONNREFUSED].map(Errno::raw_os_error);
        matches!(self.shared.reach, Reach::Socket(_))
            && why.is_some_and(|why| nobody.contains(&why))
    }

    /// The keeper's pid, if there is one now.
    #[must_use]
    pub fn keeper_pid(&self) -> Option<u32> {
        pid_of(&self.shared.lock().keeper.as_ref()?.pidfd)
    }
}

impl EventSource for KeeperSource {
    fn version(&self) -> Result<KfdVersion> {
        let mut state = self.shared.lock();
        if let (true, Some((version, _))) = (state.let_go, &state.known) {
            return Ok(*version);
        }
        self.shared.hello(&mut state).map(|(version, _)| version)
    }

    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        let mut state = self.shared.lock();
        let opened = self.shared.ask_to_open(&mut state, gpu);
        match opened {
            // It may have died since it was last asked: another one is tried once.
            Err(Failed::Connection(_)) => {
                state.keeper = None;
                self.shared.ask_to_open(&mut state, gpu).map_err(Failed::into_error)
            }
            opened => opened.map_err(Failed::into_error),
        }
    }

    fn scope(&self) -> Scope {
        let mut state = self.shared.lock();
        if let (true, Some((_, scope))) = (state.let_go, &state.known) {
            return scope.clone();
        }
        self.shared.hello(&mut state).map_or_else(
            |error| Scope {
                all_processes: false,
                faults_of_all_processes: false,
                reason: error.to_string(),
            },
            |(_, scope)| scope,
        )
    }
}

/// Why there is no answer.
enum Failed {
    /// The keeper says so.
    Refused(Error),
    /// It does not answer as it should.
    Connection(Error),
}

/// An answer, or why there is none.
type Asked<T> = std::result::Result<T, Failed>;

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Connection(error) => error,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the keeper says of the driver; starts one if there is none.
    fn hello(self: &Arc<Self>, state: &mut State) -> Result<(KfdVersion, Scope)> {
        if let (Some(_), Some(known)) = (&state.keeper, &state.known) {
            return Ok(known.clone());
        }
        if state.let_go {
            return Err(Error::new(ErrorKind::Stopped, "the GPUs are let go of")
                .with_hint("gpuev resume takes them back"));
        }
        let (keeper, version, scope) = self.start(state.started + 1)?;
        self.watch(&keeper)?;
        state.started = keeper.number;
        state.keeper = Some(keeper);
        state.known = Some((version, scope.clone()));
        Ok((version, scope))
    }

    fn ask_to_open(self: &Arc<Self>, state: &mut State, gpu: &Gpu) -> Asked<OwnedFd> {
        self.hello(state).map_err(Failed::Refused)?;
        let keeper = state.keeper.as_ref().ok_or_else(|| Failed::Connection(self.nonsense()))?;
        match self.ask(&keeper.socket, Question::Open(gpu.id.kfd_id))? {
            (Answer::Opened(kfd_id), Some(file)) if kfd_id == gpu.id.kfd_id => Ok(file),
            _ => Err(Failed::Connection(self.nonsense())),
        }
    }

    fn start(&self, number: u64) -> Result<(Keeper, KfdVersion, Scope)> {
        let (socket, child) = match &self.reach {
            Reach::Socket(path) => (self.connect(path)?, None),
            Reach::Program(program, arguments) => self.spawn(program, arguments)?,
        };
        let mut started = Unproven(child);
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(PATIENCE))
                .map_err(|error| self.failed(error.into()))?;
        }
        let answer = self.ask(&socket, Question::Hello).map_err(Failed::into_error)?;
        let (Answer::Hello(version, scope), Some(pidfd)) = answer else {
            return Err(self.nonsense());
        };
        let keeper = Keeper { socket, pidfd: Arc::new(pidfd), child: started.0.take(), number };
        Ok((keeper, version, scope))
    }

    fn connect(&self, path: &Path) -> Result<OwnedFd> {
        let connect = || {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        connect().map_err(|error: rustix::io::Errno| {
            self.failed(error.into()).with_hint(
                "is gpuev-keeper.socket (or gpuev keeper --listen) running, and may this user \
                 connect?",
            )
        })
    }

    fn spawn(&self, program: &Path, arguments: &[String]) -> Result<(OwnedFd, Option<Child>)> {
        let (ours, keepers) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| self.failed(error.into()))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(keepers))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| self.failed(error))?;
        Ok((ours, Some(child)))
    }

    fn ask(&self, keeper: &OwnedFd, question: Question) -> Asked<(Answer, Option<OwnedFd>)> {
        let lost = |error| Failed::Connection(self.failed(error));
        question.send(keeper).map_err(lost)?;
        match Answer::receive(keeper).map_err(lost)? {
            (Received::Message(Answer::Refused(error)), _) => Err(Failed::Refused(error)),
            (Received::Message(answer), file) => Ok((answer, file)),
            (Received::OtherVersion(version), _) => Err(Failed::Refused(
                Error::new(
                    ErrorKind::NotSupported,
                    format!("the keeper speaks version {version} of the protocol"),
                )
                .with_hint("keeper and agent must be of one release: restart both"),
            )),
            (Received::End, _) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        let what = match &self.reach {
            Reach::Socket(path) => format!("talk to the keeper at {}", path.display()),
            Reach::Program(program, _) => format!("talk to the keeper {}", program.display()),
        };
        Error::io(what, error)
    }

    fn nonsense(&self) -> Error {
        self.failed(io::ErrorKind::InvalidData.into())
            .with_hint("keeper and agent must be of one release: restart both")
    }

    /// Starts a thread that replaces the keeper when it dies, and ends when it is let go.
    fn watch(self: &Arc<Self>, keeper: &Keeper) -> Result<()> {
        let (shared, number) = (Arc::downgrade(self), keeper.number);
        let pidfd = Arc::clone(&keeper.pidfd);
        std::thread::Builder::new()
            .name("gpuev-keeper".to_owned())
            .spawn(move || {
                let _ended = ends_within(&pidfd, None);
                drop(pidfd);
                replace(&shared, number);
            })
            .map(drop)
            .map_err(|error| Error::io("start a thread", error))
    }
}

/// Starts another keeper in the place of that which died, unless it was let go or has a successor.
fn replace(shared: &Weak<Shared>, number: u64) {
    let (mut pause, longest) = BACK_OFF;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        if state.let_go || state.started != number {
            return;
        }
        state.keeper = None;
        // Its successor has a thread of its own.
        if shared.hello(&mut state).is_ok() {
            return;
        }
        drop(state);
        drop(shared);
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// A keeper that has not yet said what it is, killed if it never does.
struct Unproven(Option<Child>);

impl Drop for Unproven {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            reap(&mut child);
        }
    }
}

impl Keeper {
    /// Hangs up and waits for its end.
    fn end(mut self, within: Duration) -> Result<()> {
        // Fails only where the keeper has hung up first.
        let _over = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if !ends_within(&self.pidfd, Some(within)) {
            let pid = pid_of(&self.pidfd).unwrap_or(0);
            let what = format!("the keeper (pid {pid}) has not ended within {within:?}");
            return Err(Error::new(ErrorKind::Io, what)
                .with_hint("it holds the driver until it ends; is a GPU being reset?"));
        }
        if let Some(mut child) = self.child.take() {
            reap(&mut child);
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            reap(&mut child);
        }
    }
}

/// Both fail only for one that is gone already.
fn reap(child: &mut Child) {
    let _gone = child.kill();
    let _gone = child.wait();
}

/// Whether the process ends in time; for ever if there is none.
fn ends_within(pidfd: &impl AsFd, within: Option<Duration>) -> bool {
    let begun = Instant::now();
    loop {
        let left = within.map(|within| within.saturating_sub(begun.elapsed()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            polled => return polled.is_ok_and(|ready| ready > 0),
        }
    }
}

/// A process by its pidfd; `None` once it is reaped, or where it has no number here.
fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid != 0)
}
