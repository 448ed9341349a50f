//! Compute processes, as KFD lists them, and who keeps its device open.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Processes, numbered};
use crate::health::Bytes;
use crate::machine::files;
use crate::{Comm, Gpu};

/// What a symbolic link of `/proc/<pid>/fd` says of an event file.
const EVENT_FILE: &str = "anon_inode:kfd_smi_ev";
const DEVICE: &str = "/dev/kfd";

/// A process that has opened `/dev/kfd`. It stays one until it ends, also when it has closed it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KfdProcess {
    /// Its pid on the host.
    pub pid: u32,
    /// How many queues it has, on all GPUs.
    pub queues: usize,
    /// What it uses, by GPU, in order of KFD's id.
    pub gpus: Vec<KfdUse>,
}

/// What a process uses of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KfdUse {
    /// KFD's number of the GPU.
    pub kfd_id: u32,
    /// VRAM that it has allocated through KFD.
    pub vram: Option<Bytes>,
    /// How long its queues were evicted.
    pub evicted: Option<Duration>,
    /// Compute units that it keeps busy now.
    pub busy_compute_units: Option<u32>,
    /// What became of its pages; newer kernels only.
    pub pages: Option<PageCounters>,
}

/// Counts since the process came to the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageCounters {
    /// Page faults.
    pub faults: u64,
    /// Pages moved to the GPU.
    pub page_in: u64,
    /// Pages moved from it.
    pub page_out: u64,
}

/// A process that has KFD's device or event files open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its task name.
    pub name: Comm,
    /// How many times it has `/dev/kfd` open.
    pub devices: usize,
    /// How many event files it has open.
    pub event_files: usize,
}

/// Who has KFD's files open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holders {
    /// Those found, in order of pid.
    pub found: Vec<Holder>,
    /// How many processes may not be looked into: any of them may be a holder, too.
    pub hidden: usize,
}

impl KfdUse {
    /// Whether the process has anything of the GPU: KFD lists every process under every GPU.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.vram.is_some_and(|vram| vram.0 > 0)
            || self.busy_compute_units.is_some_and(|units| units > 0)
    }
}

impl Processes {
    /// How long the SDMA queues of `pid` on `gpu` were busy. Unlike everything else it is not for free: the
    /// driver has a worker read each of the process's queues for it.
    #[must_use]
    pub fn sdma_busy(&self, pid: u32, gpu: &Gpu) -> Option<Duration> {
        let file = format!("sys/class/kfd/kfd/proc/{pid}/sdma_{}", gpu.id.kfd_id);
        files::number(&self.machine.path(file)).map(Duration::from_micros)
    }

    /// All compute processes, in order of pid.
    #[must_use]
    pub fn kfd(&self) -> Vec<KfdProcess> {
        let list = self.machine.path("sys/class/kfd/kfd/proc");
        numbered(&list).into_iter().map(|pid| read(pid, &list.join(pid.to_string()))).collect()
    }

    /// Who has `/dev/kfd` or an event file open: they keep the driver from being unloaded.
    #[must_use]
    pub fn holders(&self) -> Holders {
        let mut holders = Holders::default();
        for pid in self.pids() {
            match count(&self.dir(pid).join("fd")) {
                Ok((0, 0)) => {}
                Ok((devices, event_files)) => {
                    let name = self.name(pid).unwrap_or(Comm::NONE);
                    holders.found.push(Holder { pid, name, devices, event_files });
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    holders.hidden += 1;
                }
                Err(_gone) => {}
            }
        }
        holders
    }
}

/// Device and event files among the open ones of a process.
fn count(fds: &Path) -> io::Result<(usize, usize)> {
    let (mut devices, mut event_files) = (0, 0);
    for fd in std::fs::read_dir(fds)?.flatten() {
        let Ok(target) = std::fs::read_link(fd.path()) else { continue };
        devices += usize::from(target.as_os_str() == DEVICE);
        event_files += usize::from(is_event_file(target.as_os_str()));
    }
    Ok((devices, event_files))
}

/// Some kernels put the names of anonymous files into brackets.
fn is_event_file(target: &OsStr) -> bool {
    target == EVENT_FILE || target == "anon_inode:[kfd_smi_ev]"
}

fn read(pid: u32, dir: &Path) -> KfdProcess {
    let mut ids: Vec<u32> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vram_")?.parse().ok())
        .collect();
    ids.sort_unstable();
    let gpus = ids.into_iter().map(|kfd_id| read_use(dir, kfd_id)).collect();
    KfdProcess { pid, queues: numbered(&dir.join("queues")).len(), gpus }
}

pub(super) fn read_use(dir: &Path, kfd_id: u32) -> KfdUse {
    let stats = dir.join(format!("stats_{kfd_id}"));
    KfdUse {
        kfd_id,
        vram: files::number(&dir.join(format!("vram_{kfd_id}"))).map(Bytes),
        evicted: files::number(&stats.join("evicted_ms")).map(Duration::from_millis),
        busy_compute_units: files::number(&stats.join("cu_occupancy")).filter(|n| *n < 1 << 16),
        pages: page_counters(&dir.join(format!("counters_{kfd_id}"))),
    }
}

fn page_counters(dir: &Path) -> Option<PageCounters> {
    Some(PageCounters {
        faults: files::number(&dir.join("faults"))?,
        page_in: files::number(&dir.join("page_in"))?,
        page_out: files::number(&dir.join("page_out"))?,
    })
}
