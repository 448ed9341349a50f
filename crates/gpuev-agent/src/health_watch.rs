//! How GPUs are doing: read when something happens to them, and now and then.
//!
//! Reading is some dozen files of sysfs and takes about a millisecond, but a GPU in trouble may let its reader
//! wait, even for ever. So each GPU has a thread that reads it, and a GPU that does not answer is alone in that; who asks
//! waits for a bounded time and goes on without. A GPU that still owes an answer is not waited for again. Counters of RAS
//! errors are compared from reading to reading, also over restarts: a rise is a thing that happened.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Instant;

use gpuev::health::Health;
use gpuev::time::{Anchor, boot_now_ns};
use gpuev::{Bdf, Gpu, GpuId, Severity};

use crate::config::HealthSettings;
use crate::inventory::Counters;
use crate::signal::RasIncrease;

/// Readings of a GPU that may be asked for and not yet be under way: of each of its partitions one, or two.
const ASKED: usize = 32;
/// A GPU that has not answered for so long is silent.
const SILENT_AFTER_NS: u64 = 5_000_000_000;
/// Threads that read, with those that hang for ever and were left behind.
const MOST_READERS: usize = 128;

/// What of a GPU outlives a change of its partitions.
type Key = (Bdf, u32);

fn key(gpu: GpuId) -> Key {
    (gpu.bdf, gpu.partition)
}

/// How a GPU is read: it may hang.
type Read = fn(&Gpu) -> Health;

/// Asks GPUs how they are doing.
#[derive(Debug)]
pub struct HealthWatch {
    settings: HealthSettings,
    gpus: HashMap<Key, Watched>,
    readers: HashMap<Bdf, SyncSender<Asked>>,
    running: Arc<AtomicUsize>,
    read_gpu: Read,
    answer: Sender<Reading>,
    answers: Receiver<Reading>,
    /// By the whole GPU, also where it is partitioned.
    counters: HashMap<Bdf, Counters>,
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
    /// With no GPU yet.
    #[must_use]
    pub fn new(settings: HealthSettings) -> Self {
        Self::with_reader(settings, Gpu::health)
    }

    /// As [`new`](Self::new), with GPUs that are read so.
    pub(crate) fn with_reader(settings: HealthSettings, read_gpu: Read) -> Self {
        let (answer, answers) = mpsc::channel();
        Self {
            settings,
            gpus: HashMap::new(),
            readers: HashMap::new(),
            running: Arc::default(),
            read_gpu,
            answer,
            answers,
            counters: HashMap::new(),
            read: Vec::new(),
            round_boot_ns: None,
        }
    }

    /// The thread that reads `gpu`. It ends some time after this is dropped; nobody waits for it, as it may be waiting for
    /// the GPU. `None` where no thread is left.
    fn reader(&mut self, gpu: Bdf) -> Option<&SyncSender<Asked>> {
        if !self.readers.contains_key(&gpu) {
            if self.running.load(Ordering::Relaxed) >= MOST_READERS {
                return None;
            }
            let (asked, to_do) = mpsc::sync_channel::<Asked>(ASKED);
            let (answer, running) = (self.answer.clone(), Arc::clone(&self.running));
            let read_gpu = self.read_gpu;
            let name = format!("gpu-{gpu}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                read_each(&to_do, &answer, read_gpu);
                running.fetch_sub(1, Ordering::Relaxed);
            });
            thread.ok()?;
            self.running.fetch_add(1, Ordering::Relaxed);
            self.readers.insert(gpu, asked);
        }
        self.readers.get(&gpu)
    }

    /// What the counters of `gpu` were when an earlier run read them.
    pub(crate) fn remember(&mut self, gpu: GpuId, counters: Counters) {
        self.counters.entry(gpu.bdf).or_insert(counters);
    }

    /// What the counters of `gpu` are.
    pub(crate) fn counters(&self, gpu: GpuId) -> Option<&Counters> {
        self.counters.get(&gpu.bdf)
    }

    /// Other settings from now on.
    pub fn set(&mut self, settings: HealthSettings) {
        self.settings = settings;
    }

    /// The GPUs that there are. One that is gone is forgotten, but for its counters.
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
            };
            let watched_now = match self.gpus.remove(&key) {
                Some(old) => Watched { gpu: new.gpu, speaks_for_gpu: new.speaks_for_gpu, ..old },
                None => new,
            };
            watched.insert(key, watched_now);
        }
        self.gpus = watched;
        let gpus = &self.gpus;
        self.readers.retain(|bdf, _| gpus.keys().any(|(watched, _)| watched == bdf));
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

    /// GPUs that have not answered for five seconds: longer than one takes to wake up.
    #[must_use]
    pub fn silent(&self, now_ns: u64) -> Vec<GpuId> {
        let is_silent = |gpu: &&Watched| {
            let owes = |since: u64| now_ns.saturating_sub(since) > SILENT_AFTER_NS;
            gpu.owes_since_boot_ns.is_some_and(owes)
        };
        self.gpus.values().filter(is_silent).map(|watched| watched.gpu.id).collect()
    }

    fn ask(&mut self, key: Key, now_ns: u64, periodic: bool) -> bool {
        let Some(watched) = self.gpus.get(&key) else { return false };
        let asked = Asked { gpu: Arc::clone(&watched.gpu), periodic };
        let sent = self.reader(key.0).is_some_and(|reader| reader.try_send(asked).is_ok());
        // One that cannot even be asked does not answer either.
        if let Some(watched) = self.gpus.get_mut(&key) {
            watched.owes_since_boot_ns = watched.owes_since_boot_ns.or(Some(now_ns));
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
            let counters = self.counters.entry(reading.gpu.bdf).or_default();
            reading.ras = counters.increases(&reading.health.of_gpu().ras);
        }
        watched.latest = Some((reading.at.boot_ns, Arc::clone(&reading.health)));
        self.read.push(reading);
    }
}

fn read_each(to_do: &Receiver<Asked>, answer: &Sender<Reading>, read_gpu: Read) {
    for Asked { gpu, periodic } in to_do {
        let health = Arc::new(read_gpu(&gpu));
        let at = Anchor::now();
        let reading = Reading { gpu: gpu.id, at, health, ras: Vec::new(), periodic };
        if answer.send(reading).is_err() {
            return;
        }
    }
}
