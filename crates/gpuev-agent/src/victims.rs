//! Who used a GPU when its reset began.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gpuev::process::Processes;
use gpuev::span::{Cause, Span, SpanData};
use gpuev::{Bdf, Comm, Event, EventData, EventType, Gap, GapCause, Gpu, GpuId, Machine};

use crate::attribution::Attribution;
use crate::signal::{ResetFacts, Victim};

/// Processes of a GPU that are remembered; the lowest numbers go last.
const MOST: usize = 256;

/// Notes who uses which GPU, by its events and where the machine can be asked by KFD's own list, and what is known of
/// resets that have begun.
#[derive(Debug)]
pub(crate) struct Victims {
    processes: Processes,
    /// A recording is not asked who is there now.
    is_live: bool,
    users: HashMap<(Bdf, u32), BTreeMap<u32, Comm>>,
    hives: HashMap<Bdf, u64>,
    /// The latest reset of each GPU that was seen to begin.
    begun: HashMap<(Bdf, u32), Begun>,
}

/// A reset that was seen to begin.
#[derive(Debug)]
struct Begun {
    sequence: u32,
    cause: Cause,
    victims: Vec<Victim>,
}

impl Victims {
    pub(crate) fn new(machine: &Machine) -> Self {
        Self {
            processes: Processes::of(machine),
            is_live: false,
            users: HashMap::new(),
            hives: HashMap::new(),
            begun: HashMap::new(),
        }
    }

    /// From now on the machine is asked, too.
    pub(crate) fn is_live(&mut self) {
        self.is_live = true;
    }

    /// The GPUs that are there.
    pub(crate) fn set_gpus(&mut self, gpus: &[Gpu]) {
        self.hives = gpus.iter().filter_map(|gpu| Some((gpu.id.bdf, gpu.hive?))).collect();
    }

    /// Something happened. `attribution` knows who is behind numbers.
    pub(crate) fn notice(&mut self, event: &Event, attribution: &mut Attribution) {
        let key = (event.gpu.bdf, event.gpu.partition);
        match event.event_type() {
            Some(EventType::GpuPreReset) => {
                let EventData::PreReset { sequence, cause } = event.data() else { return };
                let cause = Cause::new(cause.unwrap_or_default());
                let victims = self.on(event.gpu, attribution, event.time.received_boot_ns);
                self.begun.insert(key, Begun { sequence, cause, victims });
            }
            Some(EventType::ProcessEnd) => {
                if let Some(users) = self.users.get_mut(&key) {
                    users.retain(|number, _| {
                        Some(*number) != event.pid() && Some(*number) != event.tid()
                    });
                }
            }
            Some(EventType::ProcessStart) => {
                if let Some(pid) = event.pid().or_else(|| event.tid()) {
                    let users = self.users.entry(key).or_default();
                    users.insert(pid, event.process().map_or(Comm::NONE, Comm::new));
                    if users.len() > MOST {
                        users.pop_first();
                    }
                }
            }
            _ => {}
        }
    }

    /// What is known of the reset that `span` tells of. A span whose start lies before a gap learns its cause.
    pub(crate) fn of_reset(&self, span: &mut Span) -> ResetFacts {
        let gpu = span.gpu;
        let hive = self.hives.get(&gpu.bdf).copied();
        let SpanData::Reset { sequence, cause } = &mut span.data else {
            return ResetFacts { hive, victims: None };
        };
        let begun = self.begun.get(&(gpu.bdf, gpu.partition));
        let begun = begun.filter(|begun| begun.sequence == *sequence);
        if let Some(begun) = begun.filter(|_| cause.bytes().is_none()) {
            *cause = begun.cause;
        }
        ResetFacts { hive, victims: begun.map(|begun| begun.victims.clone()) }
    }

    /// Nobody looked for a while. The driver may have been loaded again: then it counts its resets anew.
    pub(crate) fn gap(&mut self, gap: &Gap) {
        if !matches!(gap.cause, GapCause::DriverFifoFull | GapCause::SubscriberSlow) {
            self.begun.remove(&(gap.gpu.bdf, gap.gpu.partition));
        }
    }

    fn on(&self, gpu: GpuId, attribution: &mut Attribution, now_ns: u64) -> Vec<Victim> {
        let users = self.users.get(&(gpu.bdf, gpu.partition)).into_iter().flatten();
        let mut found: BTreeMap<u32, Victim> = users
            .map(|(pid, name)| {
                let process = attribution.find(*pid, *name, now_ns).process;
                (*pid, Victim { pid: *pid, process })
            })
            .collect();
        if self.is_live {
            let on_it = self
                .processes
                .kfd()
                .into_iter()
                .filter(|process| process.gpus.iter().any(|used| used.kfd_id == gpu.kfd_id));
            let known: Vec<u32> =
                found.values().filter_map(|victim| Some(victim.process.as_ref()?.pid)).collect();
            for process in on_it.filter(|process| !known.contains(&process.pid)).take(MOST) {
                let who = self.processes.describe(process.pid).map(Arc::new);
                found.insert(process.pid, Victim { pid: process.pid, process: who });
            }
        }
        found.into_values().collect()
    }
}
