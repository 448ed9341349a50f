//! Processes: who is behind the pids in events, and what they use of a GPU.
//!
//! Sources: `/proc` (proc(5)), `/sys/class/kfd/kfd/proc` (`drivers/gpu/drm/amd/amdkfd/kfd_process.c`) and the
//! DRM fdinfo (`Documentation/gpu/drm-usage-stats.rst`). A process may end at any moment and another user's
//! may not be looked into: what cannot be known is `None` or missing, and nothing here fails.

mod cgroup;
mod drm;
mod kfd;
mod names;
mod resolve;
mod threads;

use std::path::{Path, PathBuf};

use crate::machine::files;
use crate::{Comm, Machine};

pub use cgroup::{Attribution, Container, KubernetesPod, PodQos, Runtime, SlurmTask};
pub use drm::{EngineTime, GpuProcess, ProcessMemory};
pub use kfd::{Holder, Holders, KfdProcess, KfdUse, PageCounters};
pub use names::NameCache;
pub(crate) use names::NameLookup;
pub use resolve::Resolution;
pub(crate) use threads::{ThreadOwner, Threads};

/// A command line longer than this is cut.
const COMMAND_LIMIT: usize = 16 << 10;
/// The kernel allows 4 million processes; no machine with GPUs has a quarter of them.
const MOST_ENTRIES: usize = 1 << 20;
const STATUS_LIMIT: usize = 16 << 10;
const PASSWD_LIMIT: usize = 4 << 20;
/// `USER_HZ`, in which `/proc` counts time on every architecture that has AMD GPUs.
const NS_PER_TICK: u64 = 1_000_000_000 / 100;

/// The processes of a machine.
#[derive(Debug, Clone)]
pub struct Processes {
    machine: Machine,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its number, as seen from where `/proc` is mounted.
    pub pid: u32,
    /// Its numbers in the PID namespaces that it is in, outermost first; one where it is in no container.
    pub namespace_pids: Vec<u32>,
    /// Task name.
    pub name: Comm,
    /// The command line's arguments, any bytes; none for a kernel thread.
    pub command: Vec<Vec<u8>>,
    /// The program's file.
    pub exe: Option<PathBuf>,
    /// Real user id.
    pub uid: Option<u32>,
    /// That user's name, where the machine's own `/etc/passwd` knows it.
    pub user: Option<String>,
    /// When it started: nanoseconds of `CLOCK_BOOTTIME`, in steps of 10 ms.
    pub start_boot_ns: Option<u64>,
    /// What it belongs to.
    pub attribution: Attribution,
}

impl Process {
    /// A process of which nothing but this is known, e.g. out of a recording.
    #[must_use]
    pub fn known_as(pid: u32, name: Comm) -> Self {
        Self {
            pid,
            namespace_pids: vec![pid],
            name,
            command: Vec::new(),
            exe: None,
            uid: None,
            user: None,
            start_boot_ns: None,
            attribution: Attribution::default(),
        }
    }
}

impl Processes {
    /// Those of `machine`.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        Self { machine: machine.clone() }
    }

    /// The task name of `pid` now; `None` where there is no such process.
    #[must_use]
    pub fn name(&self, pid: u32) -> Option<Comm> {
        names::look_up(&self.machine, pid)
    }

    /// All that is known of `pid`; `None` where there is no such process.
    #[must_use]
    pub fn describe(&self, pid: u32) -> Option<Process> {
        let dir = self.dir(pid);
        let name = comm(&dir)?;
        let start_boot_ns = start_boot_ns(&dir);
        let status = Status::of(&dir);
        let command = files::read(&dir.join("cmdline"), COMMAND_LIMIT).unwrap_or_default();
        let cgroup = files::read(&dir.join("cgroup"), STATUS_LIMIT).unwrap_or_default();
        let process = Process {
            pid,
            namespace_pids: status.namespace_pids,
            name,
            command: arguments(&command),
            exe: std::fs::read_link(dir.join("exe")).ok(),
            uid: status.uid,
            user: status.uid.and_then(|uid| self.user_name(uid)),
            start_boot_ns,
            attribution: Attribution::from_cgroup_file(&String::from_utf8_lossy(&cgroup)),
        };
        // Between the first file and the last the number may have gone to another process.
        let same = dir.is_dir() && crate::process::start_boot_ns(&dir) == start_boot_ns;
        same.then_some(process)
    }

    fn dir(&self, pid: u32) -> PathBuf {
        self.machine.path(format!("proc/{pid}"))
    }

    /// All processes there are.
    fn pids(&self) -> Vec<u32> {
        numbered(&self.machine.path("proc"))
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        let passwd = files::read(&self.machine.path("etc/passwd"), PASSWD_LIMIT).ok()?;
        let wanted = uid.to_string();
        String::from_utf8_lossy(&passwd).lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            (fields.nth(1)? == wanted).then(|| name.to_owned())
        })
    }
}

/// The entries of a folder that are numbers, in order.
fn numbered(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut numbers: Vec<u32> = entries
        .flatten()
        .take(MOST_ENTRIES)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The task name of the process or thread in `dir`. A name may end with newlines of its own: only the one
/// that the kernel adds is taken off.
fn comm(dir: &Path) -> Option<Comm> {
    let name = files::read(&dir.join("comm"), 64).ok()?;
    Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)))
}

fn arguments(command: &[u8]) -> Vec<Vec<u8>> {
    if command.is_empty() {
        return Vec::new();
    }
    let command = command.strip_suffix(b"\0").unwrap_or(command);
    command.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Field 22 of `stat`, counted behind the name, which may hold blanks and parentheses.
fn start_boot_ns(dir: &Path) -> Option<u64> {
    let stat = files::read(&dir.join("stat"), files::PAGE).ok()?;
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[behind_name..]).ok()?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    ticks.checked_mul(NS_PER_TICK)
}

/// What `/proc/<pid>/status` says.
#[derive(Default)]
struct Status {
    /// The process: of a thread the one it is of (`Tgid`).
    process: Option<u32>,
    uid: Option<u32>,
    namespace_pids: Vec<u32>,
}

impl Status {
    fn of(dir: &Path) -> Self {
        let bytes = files::read(&dir.join("status"), STATUS_LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let numbers =
            |text: &str| text.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        Self {
            process: field("Tgid:").and_then(|id| id.trim().parse().ok()),
            uid: field("Uid:").and_then(|ids| ids.split_ascii_whitespace().next()?.parse().ok()),
            namespace_pids: field("NSpid:").map(numbers).unwrap_or_default(),
        }
    }
}
