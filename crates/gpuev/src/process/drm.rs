//! What processes use of one GPU: memory and engines from the DRM fdinfo, compute from KFD.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::{KfdUse, Processes, kfd, numbered};
use crate::health::{Bytes, Percent};
use crate::machine::files;
use crate::{Bdf, Comm, Gpu};

const FDINFO_LIMIT: usize = 16 << 10;

/// A process that uses a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuProcess {
    /// Its pid.
    pub pid: u32,
    /// Its task name; none where it has just ended or is hidden from us.
    pub name: Comm,
    /// Memory that it has.
    pub memory: ProcessMemory,
    /// How long it kept the engines busy, in order of name.
    pub engines: Vec<EngineTime>,
    /// The share of compute units that it keeps busy now.
    pub compute_occupancy: Option<Percent>,
    /// How long its queues were evicted.
    pub evicted: Option<Duration>,
}

impl GpuProcess {
    /// Busy time of one engine, such as `gfx`, `compute`, `dma`, `enc`, `dec`.
    #[must_use]
    pub fn engine(&self, name: &str) -> Duration {
        self.engines.iter().find(|engine| engine.name == name).map_or(Duration::ZERO, |e| e.busy)
    }
}

/// Memory of a process, by where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessMemory {
    /// In the GPU's own memory.
    pub vram: Bytes,
    /// In host memory, mapped for the GPU.
    pub gtt: Bytes,
    /// In host memory, not mapped for the GPU.
    pub cpu: Bytes,
}

/// How long an engine was busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTime {
    /// The engine.
    pub name: String,
    /// Since the process opened the GPU.
    pub busy: Duration,
}

/// One open file of a GPU.
struct Client {
    id: u64,
    pdev: Bdf,
    memory: [u64; 3],
    engines: BTreeMap<String, u64>,
}

impl Processes {
    /// Who uses `gpu`, in order of pid: processes that have device files of it open, and by KFD's list those
    /// that have memory of it or compute on it. KFD's list has every compute process under every GPU, used or
    /// not. Other users' processes may not be looked into without privileges; of them there is what KFD says. In a
    /// container, whose `/proc` counts otherwise than KFD, there is only what `/proc` says.
    #[must_use]
    pub fn using(&self, gpu: &Gpu) -> Vec<GpuProcess> {
        let list = self.machine.path("sys/class/kfd/kfd/proc");
        let list = Some(list).filter(|_| self.have_machine_numbers());
        let mut seen = BTreeSet::new();
        let look = |pid: u32| {
            let clients = self.clients(pid, gpu, &mut seen);
            let compute = match &list {
                Some(list) => kfd::read_use(&list.join(pid.to_string()), gpu.id.kfd_id),
                None => KfdUse::nothing(gpu.id.kfd_id),
            };
            let uses = compute.is_used() || !clients.is_empty();
            uses.then(|| self.account(pid, gpu, &clients, compute))
        };
        // `/proc` may hide the processes of others (hidepid).
        let mut pids: BTreeSet<u32> = self.pids().into_iter().collect();
        pids.extend(list.iter().flat_map(|list| numbered(list)));
        pids.into_iter().filter_map(look).collect()
    }

    fn account(&self, pid: u32, gpu: &Gpu, clients: &[Client], compute: KfdUse) -> GpuProcess {
        let sum =
            |place: usize| clients.iter().fold(0_u64, |sum, c| sum.saturating_add(c.memory[place]));
        // Both count what was allocated for compute, fdinfo only where it may be read.
        let vram = sum(0).max(compute.vram.map_or(0, |bytes| bytes.0));
        let mut engines = BTreeMap::new();
        for (name, busy) in clients.iter().flat_map(|client| &client.engines) {
            let total: &mut u64 = engines.entry(name.clone()).or_default();
            *total = total.saturating_add(*busy);
        }
        let engine = |(name, busy)| EngineTime { name, busy: Duration::from_nanos(busy) };
        GpuProcess {
            pid,
            name: self.name(pid).unwrap_or(Comm::NONE),
            memory: ProcessMemory { vram: Bytes(vram), gtt: Bytes(sum(1)), cpu: Bytes(sum(2)) },
            engines: engines.into_iter().map(engine).collect(),
            compute_occupancy: compute.busy_compute_units.and_then(|busy| share(busy, gpu)),
            evicted: compute.evicted,
        }
    }

    /// The files of `gpu` that `pid` has open. Several descriptors may be one file, also in several
    /// processes: `seen` holds the clients that are counted.
    fn clients(&self, pid: u32, gpu: &Gpu, seen: &mut BTreeSet<u64>) -> Vec<Client> {
        let dir = self.dir(pid);
        let Ok(fds) = std::fs::read_dir(dir.join("fd")) else { return Vec::new() };
        fds.flatten()
            .filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| may_be(gpu, &file)))
            .filter_map(|fd| {
                let info =
                    files::read(&dir.join("fdinfo").join(fd.file_name()), FDINFO_LIMIT).ok()?;
                Client::parse(&String::from_utf8_lossy(&info))
            })
            .filter(|client| client.pdev == gpu.id.bdf && seen.insert(client.id))
            .collect()
    }
}

/// Whether `file` may be a device file of `gpu`. All partitions have one PCI address, but each has device
/// files of its own.
fn may_be(gpu: &Gpu, file: &Path) -> bool {
    let Ok(name) = file.strip_prefix("/dev/dri") else { return false };
    let is = |kind, own: Option<u32>| {
        own.is_some() && name.to_str().and_then(|name| name.strip_prefix(kind)?.parse().ok()) == own
    };
    gpu.partitions == 1
        || gpu.render_minor.is_none()
        || is("renderD", gpu.render_minor)
        || is("card", gpu.card)
}

fn share(busy: u32, gpu: &Gpu) -> Option<Percent> {
    let percent = busy.checked_mul(100)?.checked_div(gpu.compute_units?)?;
    u8::try_from(percent.min(100)).ok().map(Percent)
}

impl Client {
    fn parse(info: &str) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for (key, value) in info.lines().filter_map(|line| line.split_once(':')) {
            fields.entry(key.trim()).or_insert(value.trim());
        }
        let memory = |region: &str| {
            let keys = [format!("drm-memory-{region}"), format!("drm-resident-{region}")];
            keys.iter().find_map(|key| bytes(fields.get(key.as_str())?)).unwrap_or(0)
        };
        let engine = |(key, value): (&&str, &&str)| {
            let name =
                key.strip_prefix("drm-engine-").filter(|name| !name.starts_with("capacity-"))?;
            Some((name.to_owned(), value.strip_suffix("ns")?.trim().parse().ok()?))
        };
        Some(Self {
            id: fields.get("drm-client-id")?.parse().ok()?,
            pdev: fields.get("drm-pdev")?.parse().ok()?,
            memory: ["vram", "gtt", "cpu"].map(memory),
            engines: fields.iter().filter_map(engine).collect(),
        })
    }
}

/// `1024 KiB`; a bare number is bytes.
fn bytes(value: &str) -> Option<u64> {
    let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
    let shift = match unit.trim() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
