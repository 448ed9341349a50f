//! Who is behind the pid in an event, at the moment of the event, and also after he is gone.
//!
//! A process is looked up when it begins to use a GPU (`PROCESS_START`, or its first event on kernels that do
//! not tell of starts), and what was found is kept: an event whose process has ended since is answered from
//! that. A pid alone does not name a process. Kernels differ in whose number they write (see
//! [`Resolution`]): inside two containers two processes may both be `1`. They are told apart by their names,
//! and where that is not enough the answer is the likeliest, marked as ambiguous.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gpuev::process::{Process, Processes, Resolution};
use gpuev::{Comm, Event, EventType, Item, Machine};

/// What was found is believed for so long; then it is looked up again, as a process may move to another
/// cgroup and a number to another process.
const BELIEVED_NS: u64 = 30_000_000_000;

/// That nobody was found is believed for so long: asking costs a hundred microseconds.
const ABSENCE_BELIEVED_NS: u64 = 1_000_000_000;

/// Events of a process that ended are read at most so long after its end: what comes later is of another process
/// with its number.
const LATE_NS: u64 = 1_000_000_000;

/// `/proc` tells when a process began in hundredths of a second.
const START_TICK_NS: u64 = 10_000_000;

/// Pids that are remembered; the oldest goes. About 2 KB each.
const REMEMBERED: usize = 4096;

/// Names under which one pid is remembered: threads have names of their own.
const NAMES_OF_A_PID: usize = 16;

/// Who is behind an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributed {
    /// The process, or the likeliest one.
    pub process: Option<Arc<Process>>,
    /// It may be another one.
    pub ambiguous: bool,
}

/// Answers who is behind an event, and remembers.
#[derive(Debug)]
pub struct Attribution {
    processes: Processes,
    /// Who was behind which number, in a recording. Then nobody is asked.
    recorded: Option<HashMap<u32, Vec<Arc<Process>>>>,
    known: HashMap<u32, Vec<Known>>,
    /// In the order in which they were first seen.
    order: VecDeque<u32>,
}

/// What was found for a pid under a name.
#[derive(Debug)]
struct Known {
    name: Comm,
    who: Attributed,
    looked_boot_ns: u64,
    ended_boot_ns: Option<u64>,
}

impl Attribution {
    /// Of the processes of `machine`. Those that use a GPU now are looked up at once.
    #[must_use]
    pub fn new(machine: &Machine, boot_ns: u64) -> Self {
        let processes = Processes::of(machine);
        let mut attribution =
            Self { processes, recorded: None, known: HashMap::new(), order: VecDeque::new() };
        attribution.look_around(boot_ns);
        attribution
    }

    /// From now on answers from what was recorded: processes, by the numbers that events call them.
    pub fn answer_from(&mut self, recorded: impl IntoIterator<Item = (u32, Process)>) {
        let mut by_number: HashMap<u32, Vec<Arc<Process>>> = HashMap::new();
        for (number, process) in recorded {
            by_number.entry(number).or_default().push(Arc::new(process));
        }
        self.recorded = Some(by_number);
        self.known.clear();
        self.order.clear();
    }

    /// Who is behind the event.
    pub fn of(&mut self, event: &Event) -> Attributed {
        let now_ns = event.time.received_boot_ns;
        let Some(pid) = event.pid() else {
            return event.tid().map_or_else(Attributed::default, |tid| self.of_thread(tid));
        };
        let name = event.process().map_or(Comm::NONE, Comm::new);
        match event.event_type() {
            Some(EventType::ProcessStart) => self.begin(pid, name, now_ns),
            Some(EventType::ProcessEnd) => {
                let who = self.find(pid, name, now_ns);
                self.end(pid, name, now_ns);
                who
            }
            _ => self.find(pid, name, now_ns),
        }
    }

    /// Who a thread is of, of which the system no longer knows: a number that is that of a process is its first
    /// thread's. Both are the machine's, unless `/proc` has those of a container.
    fn of_thread(&self, tid: u32) -> Attributed {
        if !self.processes.have_machine_numbers() {
            return Attributed::default();
        }
        let known = self.known.get(&tid).into_iter().flatten();
        known
            .filter(|known| known.host_pid() == Some(tid) && !known.who.ambiguous)
            .map(|known| known.who.clone())
            .next_back()
            .unwrap_or_default()
    }

    /// Takes notice of what is not an event: a start may have been lost, so those that are there are looked
    /// up.
    pub fn notice(&mut self, item: &Item) {
        if let Item::Gap(gap) = item
            && !gap.cause.begins_blindness()
        {
            self.look_around(gap.to_boot_ns);
        }
    }

    /// Who `pid` is, under `name` where one is known.
    pub fn find(&mut self, pid: u32, name: Comm, now_ns: u64) -> Attributed {
        if let Some(known) = self.known.get_mut(&pid) {
            known.retain(|known| !known.is_over(now_ns));
        }
        let known = self.known.get(&pid).and_then(|known| known.iter().find(|k| k.name == name));
        if let Some(known) = known
            && (known.ended_boot_ns.is_some() || known.is_believed(now_ns))
        {
            return known.who.clone();
        }
        let found = self.look_up(pid, name, now_ns);
        let who = if found.process.is_some() { found } else { self.last_known(pid, name) };
        self.remember(pid, name, who.clone(), now_ns);
        who
    }

    /// A new life of the number: what is known of an old one does not hold.
    fn begin(&mut self, pid: u32, name: Comm, now_ns: u64) -> Attributed {
        if let Some(known) = self.known.get_mut(&pid) {
            known.retain(|known| known.ended_boot_ns.is_none() && known.name != name);
        }
        let who = self.look_up(pid, name, now_ns);
        self.remember(pid, name, who.clone(), now_ns);
        who
    }

    /// The process ends; events of it may follow, and only what is known answers them.
    fn end(&mut self, pid: u32, name: Comm, now_ns: u64) {
        let Some(known) = self.known.get_mut(&pid) else { return };
        let ended = known.iter().find(|known| known.name == name).and_then(Known::host_pid);
        for known in known {
            if known.name == name || (ended.is_some() && known.host_pid() == ended) {
                known.ended_boot_ns = known.ended_boot_ns.or(Some(now_ns));
            }
        }
    }

    fn look_up(&self, pid: u32, name: Comm, now_ns: u64) -> Attributed {
        let was_there = |process: &Process| {
            process.start_boot_ns.is_none_or(|began| began <= now_ns.saturating_add(START_TICK_NS))
        };
        if let Some(recorded) = &self.recorded {
            let all = recorded.get(&pid).map(Vec::as_slice).unwrap_or_default();
            let before = all.iter().filter(|process| was_there(process)).cloned();
            return among(&before.collect::<Vec<_>>(), name);
        }
        match self.processes.resolve(pid, name) {
            Resolution::Exact(pid) => {
                // By now another process may have the number.
                let process = self.processes.describe(pid).filter(was_there).map(Arc::new);
                Attributed { process, ambiguous: false }
            }
            Resolution::Candidates(pids) => {
                let started = |process: &Process| process.start_boot_ns.unwrap_or(0);
                let candidates = pids.into_iter().filter_map(|pid| self.processes.describe(pid));
                // Whoever began last is the least likely to have been quiet all the time.
                let likeliest = candidates.filter(was_there).max_by_key(started);
                Attributed { ambiguous: likeliest.is_some(), process: likeliest.map(Arc::new) }
            }
            Resolution::Unknown => Attributed::default(),
        }
    }

    /// Who it was when it was last seen: under this name, or under another where that leaves no doubt.
    fn last_known(&self, pid: u32, name: Comm) -> Attributed {
        let Some(known) = self.known.get(&pid) else { return Attributed::default() };
        if let Some(same) = known.iter().find(|known| known.name == name && known.is_someone()) {
            return same.who.clone();
        }
        let mut others = known.iter().filter(|known| known.is_someone());
        let Some(first) = others.next() else { return Attributed::default() };
        let one = others.all(|other| other.host_pid() == first.host_pid());
        Attributed { process: first.who.process.clone(), ambiguous: first.who.ambiguous || !one }
    }

    fn remember(&mut self, pid: u32, name: Comm, who: Attributed, now_ns: u64) {
        if !self.known.contains_key(&pid) {
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(pid);
        }
        let known = self.known.entry(pid).or_default();
        let same = known.iter().find(|k| k.name == name);
        let ended_boot_ns = same.and_then(|known| known.ended_boot_ns);
        known.retain(|known| known.name != name);
        if known.len() >= NAMES_OF_A_PID {
            known.remove(0);
        }
        known.push(Known { name, who, looked_boot_ns: now_ns, ended_boot_ns });
    }

    /// Looks up every process that uses a GPU and is not known, under each number that an event may call it.
    fn look_around(&mut self, now_ns: u64) {
        if !self.processes.have_machine_numbers() {
            return;
        }
        for kfd in self.processes.kfd() {
            let seen =
                |known: &&Known| known.host_pid() == Some(kfd.pid) && known.ended_boot_ns.is_none();
            if self.known.get(&kfd.pid).is_some_and(|known| known.iter().any(|k| seen(&k))) {
                continue;
            }
            let Some(process) = self.processes.describe(kfd.pid) else { continue };
            let process = Arc::new(process);
            let mut numbers = vec![process.pid];
            numbers.extend(process.namespace_pids.last().filter(|inner| **inner != process.pid));
            for number in numbers {
                let shared = self.known.get(&number).is_some_and(|known| {
                    known.iter().any(|k| {
                        k.name == process.name && k.is_someone() && k.ended_boot_ns.is_none()
                    })
                });
                let who = Attributed { process: Some(Arc::clone(&process)), ambiguous: shared };
                self.remember(number, process.name, who, now_ns);
            }
        }
    }
}

/// Whoever of those that were recorded under one number has this name. The recorder knows him without one where
/// lines bring names themselves.
fn among(recorded: &[Arc<Process>], name: Comm) -> Attributed {
    let named = |wanted: Comm| recorded.iter().rev().find(move |process| process.name == wanted);
    let process = named(name).or_else(|| named(Comm::NONE)).or(recorded.last());
    let one = |of: &Arc<Process>| recorded.iter().all(|other| other.pid == of.pid);
    let ambiguous = process.is_some_and(|found| found.name != name && !one(found));
    Attributed { process: process.cloned(), ambiguous }
}

impl Known {
    fn is_someone(&self) -> bool {
        self.who.process.is_some()
    }

    fn host_pid(&self) -> Option<u32> {
        Some(self.who.process.as_ref()?.pid)
    }

    /// What comes with its number is no more of it.
    fn is_over(&self, now_ns: u64) -> bool {
        self.ended_boot_ns.is_some_and(|ended| now_ns > ended.saturating_add(LATE_NS))
    }

    fn is_believed(&self, now_ns: u64) -> bool {
        let life = if self.is_someone() { BELIEVED_NS } else { ABSENCE_BELIEVED_NS };
        now_ns.saturating_sub(self.looked_boot_ns) < life
    }
}
