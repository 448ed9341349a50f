//! The events that the driver knows, and the mask that chooses among them.

use std::fmt;

/// What happened, as the driver numbers it (`enum kfd_smi_event`). Kernels before 7.2 end at
/// [`EventType::UnmapFromGpu`]; a number that is not here reaches the user as unknown, not as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventType {
    /// A GPU virtual memory fault that the driver could not resolve. Since Linux 5.8.
    VmFault = 1,
    /// The GPU lowered its clocks to protect itself. Since Linux 5.9.
    ThermalThrottle = 2,
    /// The GPU is about to be reset. Since Linux 5.9.
    GpuPreReset = 3,
    /// The GPU has been reset. Since Linux 5.9.
    GpuPostReset = 4,
    /// Pages start to move between system memory and a GPU. Since Linux 6.0.
    MigrateStart = 5,
    /// Pages have moved. Since Linux 6.0; with an error code since 6.13.
    MigrateEnd = 6,
    /// A recoverable GPU page fault is being handled. Since Linux 6.0.
    PageFaultStart = 7,
    /// A recoverable GPU page fault has been handled. Since Linux 6.0.
    PageFaultEnd = 8,
    /// A process's queues were taken off the GPU. Since Linux 6.0.
    QueueEviction = 9,
    /// A process's queues run again. Since Linux 6.0.
    QueueRestore = 10,
    /// A range was unmapped from the GPU. Since Linux 6.0.
    UnmapFromGpu = 11,
    /// A process began to use the GPU. Since Linux 6.16.
    ProcessStart = 12,
    /// A process stopped using the GPU. Since Linux 6.16.
    ProcessEnd = 13,
}

impl EventType {
    /// Every type, in the driver's order.
    pub const ALL: [Self; 13] = [
        Self::VmFault,
        Self::ThermalThrottle,
        Self::GpuPreReset,
        Self::GpuPostReset,
        Self::MigrateStart,
        Self::MigrateEnd,
        Self::PageFaultStart,
        Self::PageFaultEnd,
        Self::QueueEviction,
        Self::QueueRestore,
        Self::UnmapFromGpu,
        Self::ProcessStart,
        Self::ProcessEnd,
    ];

    /// The type with the driver's number `id`.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
    }

    /// The driver's number, 1 to 13.
    #[must_use]
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The documented name, e.g. `VMFAULT`, the same in every output of gpuev.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VmFault => "VMFAULT",
            Self::ThermalThrottle => "THERMAL_THROTTLE",
            Self::GpuPreReset => "GPU_PRE_RESET",
            Self::GpuPostReset => "GPU_POST_RESET",
            Self::MigrateStart => "MIGRATE_START",
            Self::MigrateEnd => "MIGRATE_END",
            Self::PageFaultStart => "PAGE_FAULT_START",
            Self::PageFaultEnd => "PAGE_FAULT_END",
            Self::QueueEviction => "QUEUE_EVICTION",
            Self::QueueRestore => "QUEUE_RESTORE",
            Self::UnmapFromGpu => "UNMAP_FROM_GPU",
            Self::ProcessStart => "PROCESS_START",
            Self::ProcessEnd => "PROCESS_END",
        }
    }

    /// The type with the documented name `name`, upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which events the driver shall put into an event file: bit `1 << (id - 1)` for each type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EventMask(u64);

impl EventMask {
    /// No event.
    pub const NONE: Self = Self(0);
    /// Every type that [`EventType`] names and every number that a later kernel may add.
    pub const ALL: Self = Self(!Self::ALL_PROCESSES_BIT);
    /// `KFD_SMI_EVENT_ALL_PROCESS`: events of other processes too. Needed up to Linux 6.15 and only with
    /// `CAP_SYS_ADMIN`; without effect, and harmless, everywhere else.
    pub const ALL_PROCESSES_BIT: u64 = 1 << 63;

    /// Every number that no [`EventType`] has.
    pub const UNNAMED: Self = Self(Self::ALL.0 & !((1 << EventType::ALL.len()) - 1));

    /// The number under which AMD's own driver is said to tell how many events it dropped.
    pub const DROPPED_EVENTS_ID: u32 = 14;
    /// The bit of [`DROPPED_EVENTS_ID`](Self::DROPPED_EVENTS_ID).
    pub const DROPPED_EVENTS: Self = Self(1 << (Self::DROPPED_EVENTS_ID - 1));

    /// The mask with exactly these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits as the driver takes them.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This mask and `event`.
    #[must_use]
    pub const fn with(self, event: EventType) -> Self {
        Self(self.0 | 1 << (event.id() - 1))
    }

    /// This mask with the events of all processes asked for.
    #[must_use]
    pub const fn of_all_processes(self) -> Self {
        Self(self.0 | Self::ALL_PROCESSES_BIT)
    }

    /// The events of either mask.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `event` is let through.
    #[must_use]
    pub const fn contains(self, event: EventType) -> bool {
        self.contains_id(event.id())
    }

    /// Whether the event with the driver's number `id` is let through. The mask has bits for 1 to 63.
    #[must_use]
    pub const fn contains_id(self, id: u32) -> bool {
        id >= 1 && id < 64 && self.0 & 1 << (id - 1) != 0
    }
}

impl FromIterator<EventType> for EventMask {
    fn from_iter<I: IntoIterator<Item = EventType>>(events: I) -> Self {
        events.into_iter().fold(Self::NONE, Self::with)
    }
}
