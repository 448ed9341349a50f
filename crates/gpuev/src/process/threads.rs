//! Which process a thread's number in an event means.
//!
//! Memory faults, process starts and process ends carry the number and the name of a thread: the one that last
//! submitted work (`amdgpu_vm_set_task_info`). The number is the machine's on every kernel, so it says nothing
//! to somebody whose `/proc` has a container's numbers. `/proc/NUMBER` is there for every thread, also for those
//! that no listing of `/proc` shows.

use super::names::{NameLookup, is_fresh, look_up};
use super::resolve::Numbers;
use super::{Processes, Resolution, Status};
use crate::Comm;

/// Threads that are remembered of one GPU: those that submit work are few.
const REMEMBERED: usize = 64;

/// What is known of a thread by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ThreadOwner {
    /// Its process; `None` where nobody can tell.
    pub(crate) pid: Option<u32>,
    /// The process's name.
    pub(crate) process: Comm,
    /// What the thread is called now.
    pub(crate) thread: Option<Comm>,
}

impl NameLookup {
    /// The thread's process. Only KFD's own processes come into question, where the driver lists them: a number
    /// that somebody else bears now was used again.
    pub(crate) fn look_up_thread(&self, tid: u32) -> ThreadOwner {
        let machine = self.machine();
        if tid == 0 || self.numbers() == Numbers::Container {
            return ThreadOwner::default();
        }
        let Some(pid) = Status::of(&machine.path(format!("proc/{tid}"))).process else {
            return ThreadOwner::default();
        };
        let list = machine.path("sys/class/kfd/kfd/proc");
        if list.is_dir() && !list.join(pid.to_string()).is_dir() {
            return ThreadOwner::default();
        }
        ThreadOwner {
            pid: Some(pid),
            process: look_up(machine, pid).unwrap_or(Comm::NONE),
            thread: look_up(machine, tid),
        }
    }
}

impl Processes {
    /// The process of the thread that a memory fault, a process start or a process end names.
    #[must_use]
    pub fn resolve_thread(&self, tid: u32) -> Resolution {
        let found = NameLookup::new(&self.machine).look_up_thread(tid);
        found.pid.map_or(Resolution::Unknown, Resolution::Exact)
    }
}

/// Remembers the processes of threads. An answer is used for a second; then the system is asked again. What it
/// said last still holds where it no longer knows the thread: a process is gone when its end is told.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    known: Vec<KnownThread>,
}

#[derive(Debug, Clone, Copy)]
struct KnownThread {
    tid: u32,
    owner: ThreadOwner,
    asked_at_ns: u64,
}

impl Threads {
    /// The owner of `tid` where the system need not be asked.
    pub(crate) fn known(&self, tid: u32, now_ns: u64) -> Option<ThreadOwner> {
        if tid == 0 {
            return Some(ThreadOwner::default());
        }
        self.find(tid).filter(|known| is_fresh(known.asked_at_ns, now_ns)).map(|known| known.owner)
    }

    /// Takes in what the system says; gives what is known now.
    pub(crate) fn learn(&mut self, tid: u32, found: ThreadOwner, now_ns: u64) -> ThreadOwner {
        let before = self.find(tid).map(|known| known.owner);
        let owner = match before {
            Some(before) if found.pid.is_none() && before.pid.is_some() => before,
            _ => found,
        };
        self.known.retain(|known| known.tid != tid);
        if self.known.len() >= REMEMBERED {
            self.known.remove(0);
        }
        self.known.push(KnownThread { tid, owner, asked_at_ns: now_ns });
        owner
    }

    /// A process begins or has ended: what is known of its threads is of another life.
    pub(crate) fn forget(&mut self, tid: u32, pid: Option<u32>) {
        self.known.retain(|known| known.tid != tid && (pid.is_none() || known.owner.pid != pid));
    }

    fn find(&self, tid: u32) -> Option<&KnownThread> {
        self.known.iter().find(|known| known.tid == tid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn owner(pid: Option<u32>) -> ThreadOwner {
        ThreadOwner { pid, ..ThreadOwner::default() }
    }

    #[test]
    fn what_the_system_said_holds_until_the_process_ends() {
        let mut threads = Threads::default();
        assert_eq!(threads.learn(7, owner(Some(5)), 0), owner(Some(5)));
        assert_eq!(threads.known(7, SECOND), None, "it is asked again");
        assert_eq!(threads.learn(7, owner(None), SECOND), owner(Some(5)), "the thread has ended");
        threads.learn(8, owner(Some(5)), SECOND);
        threads.forget(8, Some(5));
        assert_eq!(threads.learn(7, owner(None), SECOND), owner(None), "so has its process");
    }

    #[test]
    fn a_flood_of_numbers_is_forgotten_in_order() {
        let mut threads = Threads::default();
        for tid in 1..1000 {
            threads.learn(tid, owner(Some(tid)), 0);
        }
        assert_eq!(threads.known(1, 0), None);
        assert_eq!(threads.known(999, 0), Some(owner(Some(999))));
    }
}
