//! Task names by pid, fast enough for every event of a flood.

use std::sync::{Arc, Mutex, PoisonError};

use super::resolve::{Listed, Numbers};
use crate::{Comm, Machine};

/// How long a name is believed. A process may rename itself, and a pid is used again.
const LIFE_NS: u64 = 1_000_000_000;
/// After how long a name that is in use should be asked again, so that it never gets too old for the next event.
const RENEWAL_NS: u64 = LIFE_NS / 2;
const SETS: usize = 256;
const WAYS: usize = 4;

/// Remembers the task names of the pids in events for a second. It holds the 1024 latest pids, and neither
/// allocates nor asks the system for those it holds; that a pid has no name is remembered too.
///
/// A name is given only where it cannot be that of the wrong process (see
/// [`Processes::resolve`](super::Processes::resolve)). None is given for a number that no process in KFD's list
/// bears, as a container's process 1 is not the machine's init; for one that several bear under different
/// names; and inside a container, whose `/proc` has other numbers than the driver.
#[derive(Debug)]
pub struct NameCache {
    lookup: Arc<NameLookup>,
    /// Empty until the first name is learnt.
    entries: Vec<Entry>,
}

/// Asks the system for names: some ten system calls each, which may take a tenth of a millisecond and more.
#[derive(Debug)]
pub(crate) struct NameLookup {
    machine: Machine,
    numbers: Numbers,
    listed: Mutex<Listed>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    pid: u32,
    name: Comm,
    read_at_ns: u64,
    held: bool,
    /// Somebody was told that it should be asked again.
    renewing: bool,
}

/// A name that is still believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: Comm,
    /// Whether to ask again now; told once.
    pub(crate) due: bool,
}

impl Entry {
    const FREE: Self =
        Self { pid: 0, name: Comm::NONE, read_at_ns: 0, held: false, renewing: false };

    fn is_fresh(&self, now_ns: u64) -> bool {
        self.held && is_fresh(self.read_at_ns, now_ns)
    }
}

impl NameLookup {
    pub(super) fn new(machine: &Machine) -> Self {
        Self { machine: machine.clone(), numbers: Numbers::of(machine), listed: Mutex::default() }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The one name that all who may be meant by `pid` have now; `None` where nobody can tell. `now_ns` is as
    /// for [`NameCache::name`]: lookups of one moment share a look at KFD's list.
    pub(crate) fn look_up(&self, pid: u32, now_ns: u64) -> Option<Comm> {
        if pid == 0 || self.numbers == Numbers::Container {
            return None;
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = listed.candidates_at(&self.machine, self.numbers, pid, now_ns);
        drop(listed);
        let mut names = candidates.into_iter().map(|pid| look_up(&self.machine, pid));
        let first = names.next()??;
        names.all(|name| name == Some(first)).then_some(first)
    }
}

impl NameCache {
    /// For the processes of `machine`.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        Self { lookup: Arc::new(NameLookup::new(machine)), entries: Vec::new() }
    }

    /// Looks the name of `pid` up now, past the cache.
    #[must_use]
    pub fn look_up(&self, pid: u32) -> Option<Comm> {
        let NameLookup { machine, numbers, .. } = &*self.lookup;
        let afresh =
            NameLookup { machine: machine.clone(), numbers: *numbers, listed: Mutex::default() };
        afresh.look_up(pid, 0)
    }

    /// The name of `pid`, none where nobody can tell. `now_ns` is any clock that does not run
    /// backwards, the same for all calls.
    pub fn name(&mut self, pid: u32, now_ns: u64) -> Comm {
        if let Some(known) = self.known(pid, now_ns) {
            return known.name;
        }
        let name = self.lookup.look_up(pid, now_ns).unwrap_or(Comm::NONE);
        self.learn(pid, name, now_ns);
        name
    }

    /// The name of `pid` where it need not be looked up.
    pub(crate) fn known(&mut self, pid: u32, now_ns: u64) -> Option<Known> {
        if pid == 0 {
            return Some(Known { name: Comm::NONE, due: false });
        }
        let set = self.entries.get_mut(places(pid))?;
        let entry = set.iter_mut().find(|entry| entry.pid == pid && entry.is_fresh(now_ns))?;
        let due = !entry.renewing && now_ns - entry.read_at_ns >= RENEWAL_NS;
        entry.renewing |= due;
        Some(Known { name: entry.name, due })
    }

    /// Who looks names up, for a thread that has the time.
    pub(crate) fn lookup(&self) -> Arc<NameLookup> {
        Arc::clone(&self.lookup)
    }

    /// Takes `name` for that of `pid` from now on, e.g. because an event says so.
    pub fn learn(&mut self, pid: u32, name: Comm, now_ns: u64) {
        let set = self.set(pid);
        let place = set.iter().position(|entry| entry.held && entry.pid == pid).or_else(|| {
            // What is oldest makes place; what is free is older than all.
            (0..set.len()).min_by_key(|way| (set[*way].held, set[*way].read_at_ns))
        });
        if let Some(place) = place {
            set[place] = Entry { pid, name, read_at_ns: now_ns, held: true, renewing: false };
        }
    }

    /// Takes in what was asked at `asked_at_ns` because it was due, unless the process has started or ended since.
    pub(crate) fn renew(&mut self, pid: u32, name: Comm, asked_at_ns: u64) {
        let set = self.entries.get_mut(places(pid)).unwrap_or_default();
        let renewed = set.iter_mut().find(|entry| entry.pid == pid && entry.renewing);
        if let Some(entry) = renewed {
            *entry = Entry { name, read_at_ns: asked_at_ns, renewing: false, ..*entry };
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
        &mut self.entries[places(pid)]
    }
}

/// Where a pid may be kept.
fn places(pid: u32) -> std::ops::Range<usize> {
    let first = usize::try_from(pid).unwrap_or(0) % SETS * WAYS;
    first..first + WAYS
}

/// Whether what was read at `read_at_ns` is still believed.
pub(super) fn is_fresh(read_at_ns: u64, now_ns: u64) -> bool {
    now_ns.checked_sub(read_at_ns).is_some_and(|age| age < LIFE_NS)
}

pub(super) fn look_up(machine: &Machine, pid: u32) -> Option<Comm> {
    super::comm(&machine.path(format!("proc/{pid}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> NameCache {
        let mut names = NameCache::new(&Machine::at("/nowhere"));
        names.learn(9, Comm::new(b"old"), 0);
        names
    }

    fn known(name: &str, due: bool) -> Option<Known> {
        Some(Known { name: Comm::new(name.as_bytes()), due })
    }

    #[test]
    fn a_name_in_use_is_due_once_before_it_is_too_old() {
        let mut names = cache();
        assert_eq!(names.known(9, RENEWAL_NS - 1), known("old", false));
        assert_eq!(names.known(9, RENEWAL_NS), known("old", true));
        assert_eq!(names.known(9, RENEWAL_NS + 1), known("old", false), "told before");
        names.renew(9, Comm::new(b"new"), RENEWAL_NS);
        assert_eq!(names.known(9, LIFE_NS), known("new", true));
        assert_eq!(names.known(9, RENEWAL_NS + LIFE_NS), None, "nobody renewed it");
    }

    #[test]
    fn a_renewal_that_comes_late_does_not_bring_back_who_has_ended() {
        let mut names = cache();
        assert!(names.known(9, RENEWAL_NS).is_some_and(|known| known.due));
        names.forget(9);
        names.renew(9, Comm::new(b"old"), RENEWAL_NS);
        assert_eq!(names.known(9, RENEWAL_NS), None);
        names.learn(9, Comm::new(b"new"), RENEWAL_NS);
        names.renew(9, Comm::new(b"old"), RENEWAL_NS);
        assert_eq!(names.known(9, RENEWAL_NS), known("new", false));
    }
}
