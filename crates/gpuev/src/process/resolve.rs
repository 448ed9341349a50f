//! Which process a pid in an event means.
//!
//! Linux 6.12 writes the machine's pids into events, 7.2 the ones by which the processes know themselves: `1`
//! for a container's first, which is the number of the machine's init too. Who causes events is a KFD process,
//! and KFD lists those by the machine's pids: among them are few with the same number inside, and fewer with
//! the same name.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Processes, Status, comm, numbered};
use crate::{Comm, Machine};

/// Last kernel whose events are known to carry the machine's pids: those between it and 7.2 may do either.
const LAST_WITH_MACHINE_PIDS: (u32, u32) = (6, 12);
/// `PROC_PID_INIT_INO`: the PID namespace of the machine itself.
const MACHINE_NAMESPACE: &str = "pid:[4026531836]";

/// Who a pid in an event is, as a pid of the machine.
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
    ///
    /// Only KFD's own processes come into question, where the driver lists them (since Linux 5.9). Inside a
    /// container, whose `/proc` counts otherwise than KFD, there is no exact answer.
    #[must_use]
    pub fn resolve(&self, pid: u32, name: Comm) -> Resolution {
        let numbers = Numbers::of(&self.machine);
        if numbers == Numbers::Container {
            let here = comm(&self.dir(pid)).is_some();
            return if here { Resolution::Candidates(vec![pid]) } else { Resolution::Unknown };
        }
        let mut listed = Listed::default();
        listed.refresh(&self.machine, 0);
        let mut same_number = listed.candidates(&self.machine, numbers, pid);
        same_number.retain(|pid| comm(&self.dir(*pid)).is_some());
        let bears_name = |pid: &u32| name == Comm::NONE || self.bears_name(*pid, name);
        let same_name: Vec<u32> = same_number.iter().copied().filter(bears_name).collect();
        match (same_name.as_slice(), same_number.is_empty()) {
            ([only], _) => Resolution::Exact(*only),
            ([], true) => Resolution::Unknown,
            ([], false) => Resolution::Candidates(same_number),
            _ => Resolution::Candidates(same_name),
        }
    }

    /// Whether `/proc` numbers processes as the machine does: in a container it has numbers of its own.
    #[must_use]
    pub fn have_machine_numbers(&self) -> bool {
        sees_machine_numbers(&self.machine)
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

/// Whose numbers the pids in events are, for somebody who reads this machine's `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// The machine's.
    Machine,
    /// The machine's, or those of the PID namespace that the process is in.
    Process,
    /// As either, while `/proc` has those of the container that we are in.
    Container,
}

impl Numbers {
    pub(super) fn of(machine: &Machine) -> Self {
        if !sees_machine_numbers(machine) {
            Self::Container
        } else if events_carry_machine_pids(machine) {
            Self::Machine
        } else {
            Self::Process
        }
    }
}

/// In a container `/proc` has numbers of its own, unless it is the machine's that was mounted there: that one
/// knows us by more than one number. A simulated machine has no link to a namespace.
fn sees_machine_numbers(machine: &Machine) -> bool {
    let own = machine.path("proc/self");
    match std::fs::read_link(own.join("ns/pid")) {
        Ok(namespace) if namespace != Path::new(MACHINE_NAMESPACE) => {
            Status::of(&own).namespace_pids.len() > 1
        }
        _ => true,
    }
}

/// An unknown kernel counts as a new one, and so does AMD's driver of any kernel, which alone has a version:
/// it only makes the answer more careful.
fn events_carry_machine_pids(machine: &Machine) -> bool {
    let release = machine.kernel_release().unwrap_or_default();
    let mut parts =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let kernel = parts.next().zip(parts.next());
    kernel.is_some_and(|kernel| kernel <= LAST_WITH_MACHINE_PIDS)
        && machine.driver().version.is_none()
}

/// The processes in KFD's list and their own numbers, which are asked for once a second.
#[derive(Debug, Default)]
pub(super) struct Listed {
    exists: bool,
    processes: Vec<ListedProcess>,
    /// The moment of the last look.
    looked_at_ns: Option<u64>,
}

#[derive(Debug)]
struct ListedProcess {
    pid: u32,
    /// By which it knows itself; unknown where its `/proc` may not be read.
    inner: Option<u32>,
    read_at_ns: u64,
}

impl Listed {
    /// Looks at the list again unless that was at `now_ns`, and at those processes in it that are new or were
    /// last looked at a second before.
    pub(super) fn refresh(&mut self, machine: &Machine, now_ns: u64) {
        if self.looked_at_ns.replace(now_ns) == Some(now_ns) {
            return;
        }
        let list = machine.path("sys/class/kfd/kfd/proc");
        self.exists = list.is_dir();
        let mut pids: BTreeSet<u32> = numbered(&list).into_iter().collect();
        self.processes.retain(|process| {
            super::names::is_fresh(process.read_at_ns, now_ns) && pids.remove(&process.pid)
        });
        self.processes.extend(pids.into_iter().map(|pid| ListedProcess {
            pid,
            inner: inner_pid(machine, pid),
            read_at_ns: now_ns,
        }));
    }

    /// Who may be meant by `pid`: processes of KFD's list, or without one all there are.
    pub(super) fn candidates(&self, machine: &Machine, numbers: Numbers, pid: u32) -> Vec<u32> {
        let only_itself = numbers == Numbers::Machine;
        if self.exists {
            let bears = |process: &&ListedProcess| {
                process.pid == pid || (!only_itself && process.inner == Some(pid))
            };
            return self.processes.iter().filter(bears).map(|process| process.pid).collect();
        }
        if only_itself {
            return vec![pid];
        }
        let mut pids = numbered(&machine.path("proc"));
        pids.retain(|other| *other == pid || inner_pid(machine, *other) == Some(pid));
        pids
    }
}

fn inner_pid(machine: &Machine, pid: u32) -> Option<u32> {
    Status::of(&machine.path(format!("proc/{pid}"))).namespace_pids.last().copied()
}
