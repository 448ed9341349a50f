//! Task names by pid, fast enough for every event of a flood.

use crate::{Comm, Machine};

/// How long a name is believed. A process may rename itself, and a pid is used again.
const LIFE_NS: u64 = 1_000_000_000;
const SETS: usize = 256;
const WAYS: usize = 4;

/// Remembers task names for a second. It holds the 1024 latest pids, and does not allocate for those it
/// holds; that a pid has no process is remembered too.
#[derive(Debug)]
pub struct NameCache {
    machine: Machine,
    /// Empty until the first name is asked for.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    pid: u32,
    name: Comm,
    read_at_ns: u64,
    held: bool,
}

impl Entry {
    const FREE: Self = Self { pid: 0, name: Comm::NONE, read_at_ns: 0, held: false };

    fn is_fresh(&self, now_ns: u64) -> bool {
        self.held && now_ns.checked_sub(self.read_at_ns).is_some_and(|age| age < LIFE_NS)
    }
}

impl NameCache {
    /// For the processes of `machine`.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        Self { machine: machine.clone(), entries: Vec::new() }
    }

    /// Looks the name of `pid` up now, past the cache.
    #[must_use]
    pub fn look_up(&self, pid: u32) -> Option<Comm> {
        look_up(&self.machine, pid)
    }

    /// The name of `pid`, none where there is no such process. `now_ns` is any clock that does not run
    /// backwards, the same for all calls.
    pub fn name(&mut self, pid: u32, now_ns: u64) -> Comm {
        if let Some(entry) =
            self.set(pid).iter().find(|entry| entry.pid == pid && entry.is_fresh(now_ns))
        {
            return entry.name;
        }
        let name = self.look_up(pid).unwrap_or(Comm::NONE);
        self.learn(pid, name, now_ns);
        name
    }

    /// Takes `name` for that of `pid` from now on, e.g. because an event says so.
    pub fn learn(&mut self, pid: u32, name: Comm, now_ns: u64) {
        let set = self.set(pid);
        let place = set.iter().position(|entry| entry.held && entry.pid == pid).or_else(|| {
            // What is oldest makes place; what is free is older than all.
            (0..set.len()).min_by_key(|way| (set[*way].held, set[*way].read_at_ns))
        });
        if let Some(place) = place {
            set[place] = Entry { pid, name, read_at_ns: now_ns, held: true };
        }
    }

    /// Forgets `pid`, because it ended or started.
    pub fn forget(&mut self, pid: u32) {
        for entry in self.set(pid) {
            if entry.pid == pid {
                *entry = Entry::FREE;
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.fill(Entry::FREE);
    }

    fn set(&mut self, pid: u32) -> &mut [Entry] {
        if self.entries.is_empty() {
            self.entries = vec![Entry::FREE; SETS * WAYS];
        }
        let first = usize::try_from(pid).unwrap_or(0) % SETS * WAYS;
        &mut self.entries[first..first + WAYS]
    }
}

pub(super) fn look_up(machine: &Machine, pid: u32) -> Option<Comm> {
    super::comm(&machine.path(format!("proc/{pid}")))
}
