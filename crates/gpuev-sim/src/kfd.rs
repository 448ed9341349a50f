//! What the driver keeps of a process that opened `/dev/kfd` (`kfd_chardev.c`, `kfd_process.c`).
//!
//! A process is told of the GPUs that are there when it opens the device for the first time, and of
//! no others until it ends. Nobody may open the device while KFD is locked: while any GPU of the
//! machine is being reset, repartitioned or removed.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::client::Client;
use crate::clock::boot_ns;
use crate::machine::SimMachine;

/// So many opens of `/dev/kfd` are remembered, the newest.
const MOST_OPENS: usize = 65_536;

/// One `open("/dev/kfd")`, as the driver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KfdOpen {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Who, by the host's number.
    pub pid: u32,
    /// Whether this made it a KFD process; else it had been one before, or was refused.
    pub first: bool,
    /// Generation of the topology at that time.
    pub generation: u64,
    /// The errno that it was refused with.
    pub refused: Option<i32>,
}

/// Why nobody may open `/dev/kfd`, and who did.
#[derive(Debug, Default)]
pub(crate) struct Kfd {
    locks: usize,
    /// Indices of the GPUs that are being reset.
    resets: BTreeSet<usize>,
    opens: VecDeque<KfdOpen>,
}

impl Kfd {
    fn is_locked(&self) -> bool {
        self.locks > 0 || !self.resets.is_empty()
    }

    fn note(&mut self, open: KfdOpen) {
        if self.opens.len() == MOST_OPENS {
            self.opens.pop_front();
        }
        self.opens.push_back(open);
    }
}

/// KFD is locked as long as this lives; see [`SimMachine::lock_kfd`].
#[derive(Debug)]
#[must_use = "it unlocks when it is dropped"]
pub struct KfdLock {
    machine: SimMachine,
}

impl Drop for KfdLock {
    fn drop(&mut self) {
        self.machine.kfd().locks -= 1;
    }
}

/// A process that opened `/dev/kfd`: it knows the GPUs of that moment, until it ends.
#[derive(Clone)]
pub struct KfdProcess {
    machine: SimMachine,
    /// KFD's id, and which of its lives: a GPU that went and came back is another to this process.
    known: Vec<(u32, u64)>,
    generation: u64,
}

impl SimMachine {
    /// What `open("/dev/kfd")` is to a process that has not opened it before.
    ///
    /// # Errors
    /// `EINVAL` while KFD is locked, `EAGAIN` on kernels before 6.5; `EINVAL` from 7.2 on when
    /// there is no GPU.
    pub fn open_kfd(&self, client: &Client) -> io::Result<KfdProcess> {
        self.may_open(client, true)?;
        let (known, generation) = self.known_gpus();
        Ok(KfdProcess { machine: self.clone(), known, generation })
    }

    /// Locks KFD until the result is dropped, as a reset, a change of partitions or the removal of
    /// any GPU does: whoever opens `/dev/kfd` is refused. Event files that are open go on.
    pub fn lock_kfd(&self) -> KfdLock {
        self.kfd().locks += 1;
        KfdLock { machine: self.clone() }
    }

    /// Whether KFD is locked.
    #[must_use]
    pub fn kfd_is_locked(&self) -> bool {
        self.kfd().is_locked()
    }

    /// Who opened `/dev/kfd` or was refused, in order of time; the newest 65,536 of them.
    #[must_use]
    pub fn kfd_opens(&self) -> Vec<KfdOpen> {
        self.kfd().opens.iter().copied().collect()
    }

    /// A GPU is being reset, or is not any more: KFD is locked meanwhile.
    pub(crate) fn set_in_reset(&self, gpu_index: usize, in_reset: bool) {
        let mut kfd = self.kfd();
        if in_reset {
            kfd.resets.insert(gpu_index);
        } else {
            kfd.resets.remove(&gpu_index);
        }
    }

    fn may_open(&self, client: &Client, first: bool) -> io::Result<()> {
        let (known, generation) = self.known_gpus();
        let kernel = self.kernel();
        let mut kfd = self.kfd();
        let refused = if kfd.is_locked() {
            Some(kernel.locked_errno())
        } else if known.is_empty() && kernel.needs_gpu_to_open() {
            Some(Errno::INVAL)
        } else {
            None
        };
        kfd.note(KfdOpen {
            boot_ns: boot_ns(),
            pid: client.pid.host,
            first: first && refused.is_none(),
            generation,
            refused: refused.map(Errno::raw_os_error),
        });
        refused.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl KfdProcess {
    /// What `open("/dev/kfd")` is to this process from the second time on: it learns nothing new.
    ///
    /// # Errors
    /// As [`SimMachine::open_kfd`].
    pub fn open_again(&self, client: &Client) -> io::Result<()> {
        self.machine.may_open(client, false)
    }

    /// What `AMDKFD_IOC_SMI_EVENTS` does: a new event file of a GPU, with a FIFO of its own, a
    /// mask of 0, and without `FD_CLOEXEC`. KFD may be locked.
    ///
    /// # Errors
    /// `EINVAL` for an id that is no GPU's, and for a GPU that came after this process first
    /// opened `/dev/kfd`; those of making a file.
    pub fn open_events(&self, kfd_gpu_id: u32, client: &Client) -> io::Result<OwnedFd> {
        if !self.gpu_ids().contains(&kfd_gpu_id) {
            return Err(Errno::INVAL.into());
        }
        self.machine.new_events(kfd_gpu_id, client)
    }

    /// KFD's ids of the GPUs that this process may ask for.
    #[must_use]
    pub fn gpu_ids(&self) -> Vec<u32> {
        let (mut present, _) = self.machine.known_gpus();
        if !self.machine.kernel().knows_later_gpus() {
            // A GPU that came back under its old id: the driver keeps a pointer to the one that is
            // gone. What it does with that is nothing to rely on.
            present.retain(|gpu| self.known.contains(gpu));
        }
        present.into_iter().map(|(id, _)| id).collect()
    }

    /// Generation of the topology when it first opened `/dev/kfd`.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for KfdProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, generation, .. } = self;
        f.debug_struct("KfdProcess")
            .field("known", known)
            .field("generation", generation)
            .finish_non_exhaustive()
    }
}
