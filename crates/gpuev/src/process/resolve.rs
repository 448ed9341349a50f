//! Which process of the host an event means.
//!
//! Up to Linux 7.1 events carry the host's pids. Later ones carry the pid that the process has in its own
//! PID namespace, so that two containers' processes may have one number. Who causes events is a KFD process,
//! and KFD lists those by the host's pids: among them are few with the same number inside, and fewer with the
//! same name.

use super::{Processes, Status, comm, numbered};
use crate::Comm;

/// First kernel whose events carry the pid of the process's own namespace.
const FIRST_WITH_NAMESPACE_PIDS: (u32, u32) = (7, 2);

/// Who a pid in an event is, as a pid of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// This process.
    Exact(u32),
    /// One of these, or one that has ended.
    Candidates(Vec<u32>),
    /// None that still runs.
    Unknown,
}

impl Processes {
    /// The process that an event means by `pid`, where the event (or nobody: [`Comm::NONE`]) says `name`.
    #[must_use]
    pub fn resolve(&self, pid: u32, name: Comm) -> Resolution {
        let same_number = if self.events_carry_host_pids() {
            Vec::from_iter(comm(&self.dir(pid)).map(|_| pid))
        } else {
            self.with_inner_pid(pid)
        };
        let bears_name = |pid: &u32| name == Comm::NONE || self.bears_name(*pid, name);
        let same_name: Vec<u32> = same_number.iter().copied().filter(bears_name).collect();
        match (same_name.as_slice(), same_number.is_empty()) {
            ([only], _) => Resolution::Exact(*only),
            ([], true) => Resolution::Unknown,
            ([], false) => Resolution::Candidates(same_number),
            _ => Resolution::Candidates(same_name),
        }
    }

    /// An unknown kernel counts as a new one, which only makes the answer more careful.
    fn events_carry_host_pids(&self) -> bool {
        let release = self.machine.kernel_release().unwrap_or_default();
        let mut parts =
            release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        let version = parts.next().zip(parts.next());
        version.is_some_and(|version| version < FIRST_WITH_NAMESPACE_PIDS)
    }

    /// Processes that have this number in the innermost namespace that they are in.
    fn with_inner_pid(&self, pid: u32) -> Vec<u32> {
        let listed = numbered(&self.machine.path("sys/class/kfd/kfd/proc"));
        let of_kfd = self.filter_inner_pid(listed, pid);
        // Event files of a simulator come without KFD processes.
        if of_kfd.is_empty() { self.filter_inner_pid(self.pids(), pid) } else { of_kfd }
    }

    fn filter_inner_pid(&self, mut pids: Vec<u32>, inner: u32) -> Vec<u32> {
        pids.retain(|pid| match Status::of(&self.dir(*pid)).namespace_pids.last() {
            Some(last) => *last == inner,
            // Kernels without namespaces.
            None => *pid == inner,
        });
        pids
    }

    /// Whether the process or one of its threads is called that; events name the thread that faulted.
    fn bears_name(&self, pid: u32, name: Comm) -> bool {
        let dir = self.dir(pid);
        let tasks = dir.join("task");
        comm(&dir) == Some(name)
            || numbered(&tasks)
                .into_iter()
                .any(|task| comm(&tasks.join(task.to_string())) == Some(name))
    }
}
