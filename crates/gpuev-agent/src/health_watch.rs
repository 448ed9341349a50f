//! How GPUs are doing: read when something happens to them, and now and then.
//!
//! Reading is some dozen files of sysfs and takes about a millisecond, but a GPU in trouble may let its reader
//! wait. So a thread of its own reads; who asks waits for a bounded time and goes on without. A GPU that still
//! owes an answer is not waited for again. Counters of RAS errors are compared from reading to reading: a rise
//! is a thing that happened.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Instant;

use gpuev::health::{Health, RasErrors};
use gpuev::time::{Anchor, boot_now_ns};
use gpuev::{Bdf, Error, Gpu, GpuId, Result, Severity};

use crate::config::HealthSettings;
use crate::signal::{RasIncrease, RasKind};

/// Readings that may be asked for and not yet be under way. There are at most some dozen GPUs.
const ASKED: usize = 128;

/// What of a GPU outlives a change of its partitions.
type Key = (Bdf, u32);

fn key(gpu: GpuId) -> Key {
    (gpu.bdf, gpu.partition)
}

/// Asks GPUs how they are doing.
#[derive(Debug)]
pub struct HealthWatch {
    settings: HealthSettings,
    gpus: HashMap<Key, Watched>,
    asked: SyncSender<Asked>,
    answers: Receiver<Reading>,
    /// Read and not yet told.
    read: Vec<Reading>,
    round_boot_ns: Option<u64>,
}

#[derive(Debug)]
struct Watched {
    gpu: Arc<Gpu>,
    /// It is no partition, or the first that is listed of its GPU.
    speaks_for_gpu: bool,
    latest: Option<(u64, Arc<Health>)>,
    owes_since_boot_ns: Option<u64>,
    /// What the RAS counters were when they were last known.
    counters: HashMap<(String, RasKind), u64>,
}

#[derive(Debug)]
struct Asked {
    gpu: Arc<Gpu>,
    periodic: bool,
}

/// What a GPU answered.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which GPU.
    pub gpu: GpuId,
    /// When it was read.
    pub at: Anchor,
    /// What it said.
    pub health: Arc<Health>,
    /// Counters that rose since the last reading.
    pub ras: Vec<RasIncrease>,
    /// It was read because it was time to.
    pub periodic: bool,
}

impl HealthWatch {
    /// Starts the reading thread. It ends some time after this is dropped; nobody waits for it, as it may be
    /// waiting for a GPU.
    ///
    /// # Errors
    /// Where no thread is left.
    pub fn start(settings: HealthSettings) -> Result<Self> {
        let (asked, to_do) = mpsc::sync_channel::<Asked>(ASKED);
        let (answer, answers) = mpsc::channel();
        std::thread::Builder::new()
            .name("gpuev-health".to_owned())
            .spawn(move || {
                for Asked { gpu, periodic } in to_do {
                    let health = Arc::new(gpu.health());
                    let at = Anchor::now();
                    let reading = Reading { gpu: gpu.id, at, health, ras: Vec::new(), periodic };
                    if answer.send(reading).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| Error::io("start the thread that reads GPUs", error))?;
        let gpus = HashMap::new();
        Ok(Self { settings, gpus, asked, answers, read: Vec::new(), round_boot_ns: None })
    }

    /// Other settings from now on.
    pub fn set(&mut self, settings: HealthSettings) {
        self.settings = settings;
    }

    /// The GPUs that there are. One that is gone is forgotten, its counters too: they begin anew with its driver.
    pub fn set_gpus(&mut self, gpus: &[Gpu]) {
        let mut watched = HashMap::new();
        for gpu in gpus {
            let key = key(gpu.id);
            let first = gpus.iter().filter(|other| other.id.bdf == gpu.id.bdf);
            let first = first.map(|other| other.id.partition).min();
            let new = Watched {
                gpu: Arc::new(gpu.clone()),
                speaks_for_gpu: first == Some(gpu.id.partition),
                latest: None,
                owes_since_boot_ns: None,
                counters: HashMap::new(),
            };
            let watched_now = match self.gpus.remove(&key) {
                Some(old) => Watched { gpu: new.gpu, speaks_for_gpu: new.speaks_for_gpu, ..old },
                None => new,
            };
            watched.insert(key, watched_now);
        }
        self.gpus = watched;
    }

    /// How `gpu` is doing now that something this severe happened to it; `None` where nobody wants to know or
    /// the GPU does not answer in time.
    pub fn on_event(&mut self, gpu: GpuId, severity: Severity) -> Option<Arc<Health>> {
        if !self.settings.on_events.includes(severity) {
            return None;
        }
        let now_ns = boot_now_ns();
        self.take_answers();
        let fresh_ns = self.settings.fresh.as_nanos();
        let watched = self.gpus.get(&key(gpu))?;
        if let Some((at_ns, health)) = &watched.latest
            && now_ns.saturating_sub(*at_ns) <= fresh_ns
        {
            return Some(Arc::clone(health));
        }
        let deadline = Instant::now().checked_add(self.settings.wait.0)?;
        match watched.owes_since_boot_ns {
            None => {}
            Some(since) if self.is_overdue(since, now_ns) => return None,
            // What was asked before may be of before.
            Some(_) => drop(self.wait_for(key(gpu), deadline)?),
        }
        if self.ask(key(gpu), now_ns, false) { self.wait_for(key(gpu), deadline) } else { None }
    }

    /// Whether who owes an answer since then owes it for longer than an event waits.
    fn is_overdue(&self, since_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(since_ns) > self.settings.wait.as_nanos()
    }

    /// Asks all where it is time to.
    pub fn tick(&mut self, now_ns: u64) {
        self.take_answers();
        let interval_ns = self.settings.interval.as_nanos();
        let due = match self.round_boot_ns {
            // The first reading is what later ones are compared to.
            None => !self.gpus.is_empty(),
            Some(last) => interval_ns > 0 && now_ns.saturating_sub(last) >= interval_ns,
        };
        if !due {
            return;
        }
        self.round_boot_ns = Some(now_ns);
        let keys: Vec<Key> = self.gpus.keys().copied().collect();
        for key in keys {
            if self.gpus.get(&key).is_some_and(|gpu| gpu.owes_since_boot_ns.is_none()) {
                self.ask(key, now_ns, true);
            }
        }
    }

    /// What was read since this was last asked.
    pub fn take_readings(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.read)
    }

    /// GPUs that owe an answer for longer than an event waits.
    #[must_use]
    pub fn silent(&self, now_ns: u64) -> Vec<GpuId> {
        let is_silent = |gpu: &&Watched| {
            gpu.owes_since_boot_ns.is_some_and(|since| self.is_overdue(since, now_ns))
        };
        self.gpus.values().filter(is_silent).map(|watched| watched.gpu.id).collect()
    }

    fn ask(&mut self, key: Key, now_ns: u64, periodic: bool) -> bool {
        let Some(watched) = self.gpus.get_mut(&key) else { return false };
        let asked = Asked { gpu: Arc::clone(&watched.gpu), periodic };
        let sent = self.asked.try_send(asked).is_ok();
        if sent {
            watched.owes_since_boot_ns = Some(now_ns);
        }
        sent
    }

    fn wait_for(&mut self, wanted: Key, deadline: Instant) -> Option<Arc<Health>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reading = self.answers.recv_timeout(left).ok()?;
            let (of, health) = (key(reading.gpu), Arc::clone(&reading.health));
            self.take(reading);
            if of == wanted {
                return Some(health);
            }
        }
    }

    fn take_answers(&mut self) {
        while let Ok(reading) = self.answers.try_recv() {
            self.take(reading);
        }
    }

    fn take(&mut self, mut reading: Reading) {
        let Some(watched) = self.gpus.get_mut(&key(reading.gpu)) else { return };
        watched.owes_since_boot_ns = None;
        // Errors are counted by the whole GPU: the first of its partitions speaks for it.
        if watched.speaks_for_gpu {
            reading.ras = watched.increases(&reading.health.of_gpu().ras);
        }
        watched.latest = Some((reading.at.boot_ns, Arc::clone(&reading.health)));
        self.read.push(reading);
    }
}

impl Watched {
    /// The counters that are higher than when they were last known: a GPU that sleeps or is being reset does
    /// not tell them. One that is lower began anew.
    fn increases(&mut self, now: &[RasErrors]) -> Vec<RasIncrease> {
        let mut found = Vec::new();
        for block in now {
            let kinds = [
                (RasKind::Uncorrectable, block.uncorrectable),
                (RasKind::Correctable, block.correctable),
                (RasKind::Deferred, block.deferred),
            ];
            for (kind, total) in kinds {
                let Some(total) = total else { continue };
                let block = block.block.clone();
                let before = self.counters.insert((block.clone(), kind), total);
                let increase = total.saturating_sub(before.unwrap_or(total));
                if increase > 0 {
                    found.push(RasIncrease { block, kind, increase, total });
                }
            }
        }
        found
    }
}
