//! What a command holds of the driver while it watches: a monitor, the keepers behind it, and the socket by which
//! `gpuev yield` has it release the GPUs.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gpuev::keeper::KeeperSource;
use gpuev::{
    Error, ErrorKind, Filter, Machine, Monitor, MonitorBuilder, Result, Scope, Subscription,
};
use gpuev_agent::control::{Served, Server, runtime};
use gpuev_agent::yielding::{Grip, Yielder};

use crate::exit::say;
use crate::source::Source;

/// A keeper that needs longer to end is told of as a failure.
const KEEPER_MAY_TAKE: Duration = Duration::from_secs(2);

/// A monitor that `gpuev yield` reaches. Dropped, nothing of it holds the driver any more.
pub(crate) struct Watching {
    /// First, so that what yielded when it ended is not taken back.
    monitor: Arc<Monitor>,
    _server: Option<Server>,
    _keeper: Option<KeeperSource>,
}

impl Deref for Watching {
    type Target = Monitor;

    fn deref(&self) -> &Monitor {
        &self.monitor
    }
}

impl Watching {
    /// The monitor, for a thread that must not keep it.
    pub(crate) fn weak(&self) -> Weak<Monitor> {
        Arc::downgrade(&self.monitor)
    }
}

/// How the event files of a source are opened.
pub(crate) struct Opener {
    pub(crate) machine: Machine,
    keeper: Option<KeeperSource>,
    simulated: bool,
}

impl Opener {
    /// A simulated machine opens its own. On this machine a keeper does, where it may see all processes; it is started
    /// now, to be ready when it is asked.
    pub(crate) fn of(source: &Source) -> Result<Self> {
        let simulated = source.is_simulated();
        let mut opener = Self { machine: source.machine.clone(), keeper: None, simulated };
        let sees_all = || Scope::of_this_process(Path::new("/"), None).all_processes;
        if !simulated && sees_all() {
            let keeper = own_keeper()?;
            keeper.prepare();
            opener.machine = opener.machine.with_event_source(keeper.clone());
            opener.keeper = Some(keeper);
        }
        Ok(opener)
    }

    /// Starts to watch.
    pub(crate) fn start(
        self,
        filter: Filter,
        limit: usize,
        choose: impl FnOnce(MonitorBuilder) -> MonitorBuilder,
    ) -> Result<(Watching, Subscription)> {
        let (monitor, subscription) =
            choose(Monitor::builder(&self.machine)).start_with(filter, limit)?;
        let monitor = Arc::new(monitor);
        if !self.simulated && self.keeper.is_none() {
            say(
                "it opens /dev/kfd itself: until it ends, the driver cannot be unloaded and partitions cannot be changed",
            );
        }
        let server = if self.simulated { None } else { listen(&monitor, self.keeper.clone()) };
        Ok((Watching { monitor, _server: server, _keeper: self.keeper }, subscription))
    }
}

/// This program again, also where the file that it was started from has been replaced.
pub(crate) fn own_keeper() -> Result<KeeperSource> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("find this program in /proc/self/exe", error))?;
    let is_there = program.exists();
    let program = if is_there { program.as_path() } else { Path::new("/proc/self/exe") };
    Ok(KeeperSource::of_program(program, &["keeper"]))
}

/// Answers `gpuev yield`. Without a socket it watches all the same, and says so.
fn listen(monitor: &Arc<Monitor>, keeper: Option<KeeperSource>) -> Option<Server> {
    let hold = Hold { monitor: Arc::downgrade(monitor), keeper };
    let started = runtime::own_socket().and_then(|socket| {
        let yielder = Yielder::start(hold, |told| say(&told.to_string()))?;
        Server::start_private(&socket, Arc::new(Served { yielder, agent: None }))
    });
    started.map_err(|error| say(&format!("gpuev yield cannot reach it: {error}"))).ok()
}

/// What it holds of the driver.
struct Hold {
    monitor: Weak<Monitor>,
    keeper: Option<KeeperSource>,
}

impl Grip for Hold {
    fn let_go(&self) -> Result<()> {
        let Some(monitor) = self.monitor.upgrade() else { return Ok(()) };
        let Some(keeper) = &self.keeper else {
            let pid = std::process::id();
            let what =
                format!("gpuev (pid {pid}) opens /dev/kfd itself, as it has no CAP_SYS_ADMIN");
            return Err(Error::new(ErrorKind::NotSupported, what)
                .with_hint("it holds the driver until it ends: end it"));
        };
        monitor.release();
        keeper.let_go(KEEPER_MAY_TAKE)?;
        // What was just being opened is closed, too.
        monitor.settle();
        Ok(())
    }

    fn take_back(&self) -> Result<usize> {
        let Some(monitor) = self.monitor.upgrade() else { return Ok(0) };
        if let Some(keeper) = &self.keeper {
            keeper.take_back();
        }
        monitor.resume()?;
        match monitor.failures().first() {
            None => Ok(monitor.gpus().len()),
            Some((gpu, why)) => {
                Err(Error::new(ErrorKind::Io, format!("GPU {}: {why}", gpu.id.bdf)))
            }
        }
    }
}
