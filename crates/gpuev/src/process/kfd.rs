//! Compute processes, as KFD lists them, and who keeps its device open.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{MOST_ENTRIES, Processes, numbered};
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
    /// How many queues it has, on all GPUs, of all its contexts.
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
    /// How long its queues were evicted: those of the context that was longest without.
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
    /// As long as nothing is known.
    pub(super) fn nothing(kfd_id: u32) -> Self {
        Self { kfd_id, vram: None, evicted: None, busy_compute_units: None, pages: None }
    }

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
        if !self.have_machine_numbers() {
            return None;
        }
        let dir = self.machine.path(format!("sys/class/kfd/kfd/proc/{pid}"));
        let file = format!("sdma_{}", gpu.id.kfd_id);
        let busy = contexts(&dir).filter_map(|context| files::number(&context.join(&file)));
        busy.reduce(u64::saturating_add).map(Duration::from_micros)
    }

    /// All compute processes, in order of pid: the machine's numbers, also where `/proc` has those of a container.
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

/// The folders of a process's contexts: the first is the process's own, each later one lies in it as `context_N`
/// (since Linux 6.18, `kfd_process.c: kfd_create_process_sysfs`).
fn contexts(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let is_context = |name: &OsStr| {
        let number = name.to_str().and_then(|name| name.strip_prefix("context_"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let later = std::fs::read_dir(dir).into_iter().flatten().flatten().take(MOST_ENTRIES);
    let later = later.filter(move |entry| is_context(&entry.file_name()));
    std::iter::once(dir.to_owned()).chain(later.map(|entry| entry.path()))
}

fn read(pid: u32, dir: &Path) -> KfdProcess {
    let named = |context: &PathBuf| {
        std::fs::read_dir(context).into_iter().flatten().flatten().filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("vram_")?.parse::<u32>().ok()
        })
    };
    let contexts: Vec<PathBuf> = contexts(dir).collect();
    let ids: BTreeSet<u32> = contexts.iter().flat_map(named).collect();
    let gpus = ids.into_iter().map(|kfd_id| read_use(dir, kfd_id)).collect();
    let queues = contexts.iter().map(|context| numbered(&context.join("queues")).len()).sum();
    KfdProcess { pid, queues, gpus }
}

/// What a process uses of one GPU, by all its contexts.
pub(super) fn read_use(dir: &Path, kfd_id: u32) -> KfdUse {
    contexts(dir).map(|context| use_of_context(&context, kfd_id)).fold(
        KfdUse::nothing(kfd_id),
        |all, one| KfdUse {
            kfd_id,
            vram: sum(all.vram, one.vram, |a, b| Bytes(a.0.saturating_add(b.0))),
            evicted: sum(all.evicted, one.evicted, Duration::max),
            busy_compute_units: sum(
                all.busy_compute_units,
                one.busy_compute_units,
                u32::saturating_add,
            ),
            pages: sum(all.pages, one.pages, PageCounters::plus),
        },
    )
}

/// Of two where both are known, else the one that is.
fn sum<T>(a: Option<T>, b: Option<T>, add: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(add(a, b)),
        (a, b) => a.or(b),
    }
}

impl PageCounters {
    fn plus(self, other: Self) -> Self {
        Self {
            faults: self.faults.saturating_add(other.faults),
            page_in: self.page_in.saturating_add(other.page_in),
            page_out: self.page_out.saturating_add(other.page_out),
        }
    }
}

fn use_of_context(dir: &Path, kfd_id: u32) -> KfdUse {
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
