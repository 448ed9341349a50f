//! The driver of which kernel is imitated, and in what the kernels differ.
//!
//! One place for every difference that a reader can see; the rest of the crate asks.

use std::fmt;
use std::str::FromStr;

use rustix::io::Errno;

use crate::event::DriverEvent;

/// The driver that a simulated machine imitates.
///
/// The first digits name a Linux release; what was measured on the genuine driver of that
/// release is what the simulator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Kernel {
    /// A driver like those of Linux 5.8 to 5.16: events 1 to 4 only, resets without a cause,
    /// and `read()` gives at most 8 bytes whatever the buffer.
    Oldest,
    /// Linux 6.1 (KFD 1.11): events 1 to 11, a FIFO of 1024 bytes.
    V6_1,
    /// Linux 6.12 from 6.12.64 on (KFD 1.17): resets name their cause.
    V6_12,
    /// Linux 6.12.0 to 6.12.63: a plain `QUEUE_RESTORE` holds a NUL byte.
    V6_12Nul,
    /// Linux 7.2 (KFD 1.23): a FIFO of 8192 bytes, process start and end, error codes.
    V7_2,
    /// Linux 7.3 (KFD 1.23): as 7.2, and every event with a process reaches its owner only.
    #[default]
    V7_3,
    /// AMD's out-of-tree driver: as 7.2, and it reports drops with a `DROPPED_EVENT` line.
    Dkms,
}

impl Kernel {
    /// Every profile, oldest first.
    pub const ALL: [Kernel; 7] = [
        Kernel::Oldest,
        Kernel::V6_1,
        Kernel::V6_12,
        Kernel::V6_12Nul,
        Kernel::V7_2,
        Kernel::V7_3,
        Kernel::Dkms,
    ];

    /// Bytes that one event file holds (`MAX_KFIFO_SIZE`), and so the most one `read()` returns.
    #[must_use]
    pub const fn fifo_bytes(self) -> usize {
        match self {
            Kernel::Oldest | Kernel::V6_1 | Kernel::V6_12 | Kernel::V6_12Nul => 1024,
            Kernel::V7_2 | Kernel::V7_3 | Kernel::Dkms => 8192,
        }
    }

    /// Bytes that one `read()` gives at most: the FIFO, but for the oldest drivers, which took the
    /// size of a pointer for that of their buffer.
    pub(crate) const fn read_bytes(self) -> usize {
        match self {
            Kernel::Oldest => 8,
            _ => self.fifo_bytes(),
        }
    }

    /// What `AMDKFD_IOC_GET_VERSION` answers: major, minor.
    #[must_use]
    pub const fn kfd_version(self) -> (u32, u32) {
        match self {
            Kernel::Oldest => (1, 3),
            Kernel::V6_1 => (1, 11),
            Kernel::V6_12 | Kernel::V6_12Nul => (1, 17),
            Kernel::Dkms => (1, 18),
            Kernel::V7_2 | Kernel::V7_3 => (1, 23),
        }
    }

    /// The name used on command lines: `6.1`, `6.12`, `6.12-nul`, `7.2`, `7.3`, `oldest`, `dkms`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Oldest => "oldest",
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
            Kernel::V6_12Nul => "6.12-nul",
            Kernel::V7_2 => "7.2",
            Kernel::V7_3 => "7.3",
            Kernel::Dkms => "dkms",
        }
    }

    /// What `uname -r` and `/proc/sys/kernel/osrelease` say on such a machine.
    #[must_use]
    pub const fn release(self) -> &'static str {
        match self {
            Kernel::Oldest => "5.10.0-33-amd64",
            Kernel::V6_1 => "6.1.0-50-amd64",
            Kernel::V6_12 => "6.12.95+deb12-amd64",
            Kernel::V6_12Nul => "6.12.48+deb13-amd64",
            Kernel::V7_2 => "7.2.13+deb14-amd64",
            Kernel::V7_3 => "7.3.4+deb13-amd64",
            Kernel::Dkms => "6.8.0-60-generic",
        }
    }

    /// Whether this driver has the event with this number at all.
    #[must_use]
    pub const fn has_event(self, id: u32) -> bool {
        let last = match self {
            Kernel::Oldest => 4,
            Kernel::V6_1 | Kernel::V6_12 | Kernel::V6_12Nul => 11,
            Kernel::V7_2 | Kernel::V7_3 => 13,
            Kernel::Dkms => 14,
        };
        id >= 1 && id <= last
    }

    /// Whether this driver says anything of such an event. One that writes no error code does not
    /// tell of the end of a migration that failed.
    pub(crate) const fn raises(self, event: &DriverEvent) -> bool {
        match event {
            DriverEvent::MigrateEnd { error, .. } => *error == 0 || self.migration_has_error(),
            event => self.has_event(event.id()),
        }
    }

    pub(crate) const fn reset_has_cause(self) -> bool {
        !matches!(self, Kernel::Oldest | Kernel::V6_1)
    }

    /// What follows the node in a plain `QUEUE_RESTORE`.
    pub(crate) const fn plain_restore(self) -> &'static [u8] {
        match self {
            Kernel::Oldest | Kernel::V6_1 => b"",
            Kernel::V6_12Nul => b" \0",
            _ => b" 0",
        }
    }

    pub(crate) const fn migration_has_error(self) -> bool {
        matches!(self, Kernel::V7_2 | Kernel::V7_3 | Kernel::Dkms)
    }

    /// Whether an over-long message is cut (`scnprintf`) rather than sent with what lies
    /// behind its buffer.
    pub(crate) const fn cuts_long_messages(self) -> bool {
        matches!(self, Kernel::V7_3)
    }

    /// Whether the privileged see everything only with bit 63 (`ALL_PROCESS`) in their mask.
    pub(crate) const fn needs_all_process_bit(self) -> bool {
        matches!(self, Kernel::Oldest | Kernel::V6_1 | Kernel::V6_12 | Kernel::V6_12Nul)
    }

    /// Whether memory faults and process starts are kept from other users.
    pub(crate) const fn hides_faults_of_others(self) -> bool {
        matches!(self, Kernel::V7_3)
    }

    /// Whether lines carry the pid of the process's own namespace.
    pub(crate) const fn prints_namespaced_pid(self) -> bool {
        matches!(self, Kernel::V7_2 | Kernel::V7_3 | Kernel::Dkms)
    }

    /// Whether the filter compares namespaced numbers, and so mistakes containers.
    pub(crate) const fn filters_by_namespaced_pid(self) -> bool {
        matches!(self, Kernel::V7_2 | Kernel::Dkms)
    }

    /// What `open("/dev/kfd")` gives while KFD is locked; the check moved in 6.5.
    pub(crate) const fn locked_errno(self) -> Errno {
        match self {
            Kernel::Oldest | Kernel::V6_1 => Errno::AGAIN,
            _ => Errno::INVAL,
        }
    }

    /// Whether `/dev/kfd` cannot be opened where there is no GPU.
    pub(crate) const fn needs_gpu_to_open(self) -> bool {
        matches!(self, Kernel::V7_2 | Kernel::V7_3)
    }

    /// Whether a process may ask for GPUs that came after it opened `/dev/kfd` (up to 5.17).
    pub(crate) const fn knows_later_gpus(self) -> bool {
        matches!(self, Kernel::Oldest)
    }

    pub(crate) const fn reports_drops(self) -> bool {
        matches!(self, Kernel::Dkms)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel name that no profile has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKernel(String);

impl fmt::Display for UnknownKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no kernel profile '{}'; there are:", self.0)?;
        Kernel::ALL.iter().try_for_each(|kernel| write!(f, " {kernel}"))
    }
}

impl std::error::Error for UnknownKernel {}

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownKernel(name.to_owned()))
    }
}
