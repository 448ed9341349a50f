//! The client's side: an [`EventSource`] whose files keepers open.

mod process;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fork::Descriptor;
use crate::source::no_answer;
use crate::{Error, ErrorKind, EventSource, Gpu, KfdVersion, OnOpened, OpenedFiles, Result, Scope};

use super::protocol::{Answer, MOST_GPUS, Passed, Question, Received};
use process::{Connection, Process};

/// How often [`KeeperSource::wait`] looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// A keeper that needs longer to end when nobody needs it any more is killed, where that is possible.
const MAY_TAKE: Duration = Duration::from_secs(2);

/// Opens event files through keepers: one for each [`open_all`](EventSource::open_all), which stays until the files
/// are closed. A handle: clones share the keepers.
///
/// A keeper's files show what the keeper may see. A keeper without `CAP_SYS_ADMIN` is refused, unless
/// [`accept_partial`](Self::accept_partial) says that its view is good enough.
#[derive(Debug, Clone)]
pub struct KeeperSource {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reach: Reach,
    accepts_partial: bool,
    /// Never locked while a keeper is waited for.
    state: Mutex<State>,
}

/// How one gets a keeper.
#[derive(Debug, Clone)]
enum Reach {
    /// A listener there starts one for each connection.
    Socket(PathBuf),
    /// The program, which serves its standard input.
    Program(PathBuf, Vec<String>),
}

#[derive(Debug, Default)]
struct State {
    /// No keeper may be started.
    let_go: bool,
    /// What the last keeper said of the driver.
    known: Option<(KfdVersion, Scope)>,
    /// Counts the keepers.
    started: u64,
    /// Those that may still run.
    processes: Vec<Process>,
    /// Started and not yet asked.
    spare: Option<Connection>,
    /// Whose they are: the child of a fork has copies, and must not touch them.
    owner: u32,
}

/// A keeper whose files are in use. It is hung up on with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<InUse>);

#[derive(Debug)]
struct InUse {
    shared: Arc<Shared>,
    current: Mutex<Current>,
}

/// The process that a keeper is now.
#[derive(Debug, Clone)]
struct Current {
    number: u64,
    socket: Arc<Descriptor>,
}

/// Called with the place of a GPU and its file as soon as it is passed.
type OnPassed<'a> = &'a dyn Fn(usize, &OwnedFd);

/// What a keeper answered.
struct Answered {
    version: KfdVersion,
    scope: Scope,
    pidfd: OwnedFd,
    files: Vec<Result<OwnedFd>>,
}

impl KeeperSource {
    /// Keepers are had by connecting to `socket`.
    #[must_use]
    pub fn at_socket(socket: &Path) -> Self {
        Self::new(Reach::Socket(socket.to_owned()), false)
    }

    /// Keepers are had by running `program`, such as `gpuev`, with `arguments`, such as `keeper`: it serves its standard
    /// input, with the privileges of this process.
    #[must_use]
    pub fn of_program(program: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self::new(Reach::Program(program.to_owned(), arguments), false)
    }

    fn new(reach: Reach, accepts_partial: bool) -> Self {
        Self { shared: Arc::new(Shared { reach, accepts_partial, state: Mutex::default() }) }
    }

    /// Accepts keepers without `CAP_SYS_ADMIN` too: their files show resets and throttling, and of processes what
    /// [`Scope`] says.
    #[must_use]
    pub fn accept_partial(self) -> Self {
        Self::new(self.shared.reach.clone(), true)
    }

    /// Starts the program that the first question will need, so that it is ready by then. It opens no device before it
    /// is asked.
    pub fn prepare(&self) {
        let Reach::Program(..) = self.shared.reach else { return };
        // The question that needs it tells of a failure.
        let Ok(spare) = Connection::new(&self.shared.reach) else { return };
        let mut state = self.shared.lock();
        if !state.let_go {
            state.spare = Some(spare);
        }
    }

    /// Has every keeper end, and waits until they have, at most `within`. Until [`take_back`](Self::take_back) no
    /// other is started, and no file is opened. Close the files that they opened first.
    ///
    /// # Errors
    /// Where one has not ended in time.
    pub fn let_go(&self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        let mut state = self.shared.lock();
        state.let_go = true;
        state.spare = None;
        let mut processes = std::mem::take(&mut state.processes);
        drop(state);
        processes.iter_mut().for_each(Process::hang_up);
        processes.retain_mut(|process| !process.ends_by(until));
        let Some(stuck) = processes.first() else { return Ok(()) };
        let what = match stuck.pid() {
            Some(pid) => format!("the keeper (pid {pid}) has not ended within {within:?}"),
            None => format!("a keeper has not ended within {within:?}"),
        };
        self.shared.lock().processes.extend(processes);
        Err(Error::new(ErrorKind::Io, what)
            .with_hint("it holds the driver until it ends; is a GPU being reset?"))
    }

    /// Files may be opened again.
    pub fn take_back(&self) {
        self.shared.lock().let_go = false;
    }

    /// Waits until somebody listens where keepers are had, at most `within` and as long as `goes_on`. The listener may
    /// be started at the same time as the agent, as the containers of a pod are.
    pub fn wait(&self, within: Duration, mut goes_on: impl FnMut() -> bool) {
        let until = Instant::now() + within;
        while self.nobody_listens() && goes_on() && Instant::now() < until {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn nobody_listens(&self) -> bool {
        use rustix::io::Errno;
        let Reach::Socket(_) = self.shared.reach else { return false };
        let why = Connection::new(&self.shared.reach).err().and_then(|error| error.raw_os_error());
        let nobody = [Errno::NOENT, Errno::CONNREFUSED].map(Errno::raw_os_error);
        why.is_some_and(|why| nobody.contains(&why))
    }

    /// The pid of the keeper that was started last, if its files are in use.
    #[must_use]
    pub fn keeper_pid(&self) -> Option<u32> {
        let state = self.shared.lock();
        state.processes.iter().rev().find(|process| process.is_needed())?.pid()
    }

    /// What the last keeper said of the driver; else that of one which is started to ask it.
    fn known(&self) -> Result<(KfdVersion, Scope)> {
        if let Some(known) = &self.shared.lock().known {
            return Ok(known.clone());
        }
        let opened = self.shared.open(&[], &|_, _| {})?;
        Ok((opened.version, opened.scope))
    }
}

impl EventSource for KeeperSource {
    fn version(&self) -> Result<KfdVersion> {
        self.known().map(|(version, _)| version)
    }

    /// A file of its own alone: its keeper ends at once, so that a change of partitions is not refused as long as the
    /// file is open. Prefer [`open_all`](EventSource::open_all).
    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        let opened = self.open_all(std::slice::from_ref(gpu), &|_, _| {})?;
        opened.files.into_iter().next().unwrap_or_else(|| Err(no_answer()))
    }

    fn scope(&self) -> Scope {
        self.known().map_or_else(
            |error| Scope {
                all_processes: false,
                faults_of_all_processes: false,
                reason: error.to_string(),
            },
            |(_, scope)| scope,
        )
    }

    fn open_all(&self, gpus: &[Gpu], each: OnOpened<'_>) -> Result<OpenedFiles> {
        let ids: Vec<_> = gpus.iter().map(|gpu| gpu.id.kfd_id).take(MOST_GPUS).collect();
        self.shared.open(&ids, &|at, file| each(&gpus[at], file))
    }
}

impl Keeper {
    /// Readable once the process has ended, or must.
    pub(crate) fn socket(&self) -> Arc<Descriptor> {
        self.0.current().socket
    }

    /// Whether the process has ended, or must.
    pub(crate) fn is_over(&self) -> bool {
        process::is_readable(&*self.socket())
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Puts another process in the place of one that has ended. Its being a KFD process keeps the driver from changing
    /// partitions below the files that are open.
    ///
    /// # Errors
    /// Where there can be none, or the driver itself ends KFD processes: then the files must be closed.
    pub(crate) fn renew(&self) -> Result<()> {
        if let Ok((Received::Message(Answer::Ending), _)) = Answer::receive(&*self.socket()) {
            return Err(Error::new(ErrorKind::Stopped, "the keeper was told to end"));
        }
        let shared = &self.0.shared;
        let successor = shared.start()?;
        shared.ask(&successor, &[], &|_, _| {})?;
        let mut current = self.0.lock();
        let before = std::mem::replace(&mut *current, successor);
        drop(current);
        shared.hang_up(before.number);
        Ok(())
    }
}

impl InUse {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Current {
        self.lock().clone()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.shared.hang_up(self.current().number);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.leave_to_owner();
        state
    }

    /// The event files of these GPUs, by a keeper that is younger than the caller's look at the machine.
    fn open(self: &Arc<Self>, ids: &[u32], each: OnPassed<'_>) -> Result<OpenedFiles> {
        let current = self.start()?;
        let answered = self.ask(&current, ids, each);
        let keeper =
            Keeper(Arc::new(InUse { shared: Arc::clone(self), current: Mutex::new(current) }));
        let Answered { version, scope, files, .. } = answered?;
        if !scope.all_processes && !self.accepts_partial {
            let what = format!("the keeper may not see all processes: {}", scope.reason);
            return Err(Error::new(ErrorKind::PermissionDenied, what)
                .with_hint("run it as root, or as packaging/systemd/gpuev-keeper@.service does"));
        }
        let mut opened = OpenedFiles::new(version, scope, files);
        let is_used = opened.files.iter().any(Result::is_ok);
        opened.keeper = Some(keeper).filter(|_| is_used);
        Ok(opened)
    }

    /// A keeper that has not been asked anything.
    fn start(&self) -> Result<Current> {
        let spare = self.may_start()?.spare.take();
        let connection = match spare {
            Some(spare) => spare,
            None => Connection::new(&self.reach).map_err(|error| self.failed(error))?,
        };
        let mut state = self.may_start()?;
        state.processes.retain_mut(|process| !process.has_ended());
        state.started += 1;
        let process = Process::new(state.started, connection);
        let current = Current { number: process.number, socket: Arc::clone(&process.socket) };
        state.processes.push(process);
        Ok(current)
    }

    fn may_start(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.let_go {
            return Err(Error::new(ErrorKind::Stopped, "the GPUs are released")
                .with_hint("gpuev resume takes them back"));
        }
        Ok(state)
    }

    /// Asks a fresh keeper for event files. One that does not answer as it should is hung up on.
    fn ask(&self, keeper: &Current, ids: &[u32], each: OnPassed<'_>) -> Result<Answered> {
        let mut answered = converse(&keeper.socket, ids, each).map_err(|failed| {
            self.hang_up(keeper.number);
            match failed {
                Failed::Refused(error) => error,
                Failed::Connection(error) => self.failed(error),
            }
        })?;
        let mut state = self.lock();
        state.known = Some((answered.version, answered.scope.clone()));
        let pidfd = answered.pidfd.try_clone();
        let process = state.processes.iter_mut().find(|process| process.number == keeper.number);
        if let (Some(process), Ok(pidfd)) = (process, pidfd) {
            process.is_proven(std::mem::replace(&mut answered.pidfd, pidfd));
        }
        Ok(answered)
    }

    /// Nobody needs this keeper any more.
    fn hang_up(&self, number: u64) {
        let mut state = self.lock();
        let process = state.processes.iter_mut().find(|process| process.number == number);
        if let Some(process) = process {
            process.hang_up();
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        let (what, hint) = match &self.reach {
            Reach::Socket(path) => (
                format!("talk to the keeper at {}", path.display()),
                "is gpuev-keeper.socket (or gpuev keeper --listen) running, and may this user connect?",
            ),
            Reach::Program(program, _) => (
                format!("talk to the keeper {}", program.display()),
                "is it gpuev, of this release?",
            ),
        };
        let other_release = error.kind() == io::ErrorKind::InvalidData;
        Error::io(what, error).with_hint(if other_release {
            "keeper and client must be of one release: restart both"
        } else {
            hint
        })
    }
}

impl State {
    /// After a fork, the child forgets the keepers of its parent.
    fn leave_to_owner(&mut self) {
        let here = std::process::id();
        if self.owner != here {
            std::mem::forget(std::mem::take(&mut self.processes));
            std::mem::forget(self.spare.take());
            self.owner = here;
        }
    }
}

impl Drop for Shared {
    /// When this returns, no keeper is left that is this process's child.
    fn drop(&mut self) {
        let until = Instant::now() + MAY_TAKE;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.leave_to_owner();
        state.processes.iter_mut().for_each(Process::hang_up);
        for process in &mut state.processes {
            process.ends_by(until);
        }
    }
}

/// Why there is no answer.
enum Failed {
    /// The keeper says so.
    Refused(Error),
    /// It does not answer as it should.
    Connection(io::Error),
}

fn converse(
    keeper: &Descriptor,
    ids: &[u32],
    each: OnPassed<'_>,
) -> std::result::Result<Answered, Failed> {
    Question(ids.to_vec()).send(keeper).map_err(Failed::Connection)?;
    let nonsense = || Failed::Connection(io::ErrorKind::InvalidData.into());
    let (Answer::Hello(version, scope), Some(pidfd)) = receive(keeper)? else {
        return Err(nonsense());
    };
    let pidfd = pidfd.map_err(Failed::Connection)?;
    let mut files = Vec::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        files.push(match receive(keeper) {
            Ok((Answer::Opened(kfd_id), Some(file))) if kfd_id == *id => {
                file.inspect(|file| each(at, file)).map_err(|error| no_descriptor(*id, error))
            }
            Err(Failed::Refused(error)) => Err(error),
            Err(failed) => return Err(failed),
            Ok(_) => return Err(nonsense()),
        });
    }
    Ok(Answered { version, scope, pidfd, files })
}

fn no_descriptor(kfd_id: u32, error: io::Error) -> Error {
    Error::io(format!("take the event file of the GPU with the KFD id {kfd_id}"), error)
        .with_hint("raise the limit of open files (ulimit -n)")
}

fn receive(keeper: &Descriptor) -> std::result::Result<(Answer, Passed), Failed> {
    match Answer::receive(keeper).map_err(Failed::Connection)? {
        (Received::Message(Answer::Refused(error)), _) => Err(Failed::Refused(error)),
        (Received::Message(answer), file) => Ok((answer, file)),
        (Received::OtherVersion(version), _) => Err(Failed::Refused(
            Error::new(
                ErrorKind::NotSupported,
                format!("the keeper speaks version {version} of the protocol"),
            )
            .with_hint("keeper and client must be of one release: restart both"),
        )),
        (Received::End, _) => Err(Failed::Connection(io::ErrorKind::UnexpectedEof.into())),
    }
}
