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
        let mut same_number = listed.candidates_at(&self.machine, numbers, pid, 0);
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

/// How the releases of kernels end that carry the graphics drivers of later ones: Red Hat's and its kin's, Amazon's,
/// SUSE's.
const WITH_LATER_DRIVERS: [&str; 4] = [".el", ".amzn", "-default", ".fc"];

/// An unknown kernel counts as a new one, and so does AMD's driver of any kernel, which alone has a version, and a
/// kernel whose maker puts later drivers into it: it only makes the answer more careful.
fn events_carry_machine_pids(machine: &Machine) -> bool {
    let release = machine.kernel_release().unwrap_or_default();
    let mut parts =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let kernel = parts.next().zip(parts.next());
    kernel.is_some_and(|kernel| kernel <= LAST_WITH_MACHINE_PIDS)
        && !WITH_LATER_DRIVERS.iter().any(|mark| release.contains(mark))
        && machine.driver().version.is_none()
}

/// How long a look at KFD's list serves for the processes in it.
const LISTING_LIFE_NS: u64 = 100_000_000;

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
    /// Who may be meant by `pid`: processes of KFD's list, or without one all there are. Where numbers are the
    /// machine's, nobody else is looked at; else one look at the list serves for a moment, unless `pid` is not in it.
    pub(super) fn candidates_at(
        &mut self,
        machine: &Machine,
        numbers: Numbers,
        pid: u32,
        now_ns: u64,
    ) -> Vec<u32> {
        if numbers == Numbers::Machine {
            let list = machine.path("sys/class/kfd/kfd/proc");
            let is_listed = list.join(pid.to_string()).is_dir() || !list.is_dir();
            return if is_listed { vec![pid] } else { Vec::new() };
        }
        let age_ns = self.looked_at_ns.and_then(|before| now_ns.checked_sub(before));
        if age_ns.is_some_and(|age_ns| age_ns < LISTING_LIFE_NS) {
            let candidates = self.candidates(machine, pid);
            if !candidates.is_empty() {
                return candidates;
            }
        }
        self.refresh(machine, now_ns);
        self.candidates(machine, pid)
    }

    /// Looks at the list again unless that was at `now_ns`, and at those processes in it that are new or were
    /// last looked at a second before.
    fn refresh(&mut self, machine: &Machine, now_ns: u64) {
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

    /// Those that bear the number `pid` here or inside, by the last look.
    fn candidates(&self, machine: &Machine, pid: u32) -> Vec<u32> {
        if self.exists {
            let bears = |process: &&ListedProcess| process.pid == pid || process.inner == Some(pid);
            return self.processes.iter().filter(bears).map(|process| process.pid).collect();
        }
        let mut pids = numbered(&machine.path("proc"));
        pids.retain(|other| *other == pid || inner_pid(machine, *other) == Some(pid));
        pids
    }
}

fn inner_pid(machine: &Machine, pid: u32) -> Option<u32> {
    Status::of(&machine.path(format!("proc/{pid}"))).namespace_pids.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn list(machine: &Machine, pid: u32) {
        std::fs::create_dir_all(machine.path(format!("sys/class/kfd/kfd/proc/{pid}"))).unwrap();
        let status = machine.path(format!("proc/{pid}/status"));
        std::fs::create_dir_all(status.parent().unwrap()).unwrap();
        std::fs::write(status, format!("Name:\tx\nNSpid:\t{pid}\t{}\n", pid - 1000)).unwrap();
    }

    fn unlist(machine: &Machine, pid: u32) {
        std::fs::remove_dir(machine.path(format!("sys/class/kfd/kfd/proc/{pid}"))).unwrap();
    }

    #[test]
    fn one_look_at_the_list_serves_for_a_moment_but_not_for_who_is_new() {
        let root = tempfile::TempDir::new().unwrap();
        let machine = Machine::at(root.path());
        let mut listed = Listed::default();
        let mut ask = |pid, now| listed.candidates_at(&machine, Numbers::Process, pid, now);
        (1001..1200).for_each(|pid| list(&machine, pid));
        assert_eq!(ask(7, MS), [1007]);
        (1001..1100).for_each(|pid| unlist(&machine, pid));
        assert_eq!(ask(8, 2 * MS), [1008], "nobody looked again");
        list(&machine, 1300);
        assert_eq!(ask(300, 3 * MS), [1300], "it began since");
        assert_eq!(ask(8, 4 * MS), [0; 0]);
        unlist(&machine, 1150);
        assert_eq!(ask(150, 50 * MS), [1150]);
        assert_eq!(ask(150, 200 * MS), [0; 0]);
    }

    #[test]
    fn where_numbers_are_the_machines_nobody_else_is_looked_at() {
        let root = tempfile::TempDir::new().unwrap();
        let machine = Machine::at(root.path());
        let mut listed = Listed::default();
        let mut ask = |pid| listed.candidates_at(&machine, Numbers::Machine, pid, 0);
        assert_eq!(ask(1007), [1007], "without a list");
        list(&machine, 1007);
        assert_eq!((ask(1007), ask(7), ask(1008)), (vec![1007], vec![], vec![]));
        assert_eq!(listed.looked_at_ns, None);
    }
}
