//! What the driver has to tell, before it is written as a line.
//!
//! Each variant takes what the driver's own function takes; the GPU that speaks is given
//! when the event is emitted. Pages are 4 KiB.

/// A task's name as the kernel keeps it: at most 15 bytes, of any value but NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Comm {
    len: u8,
    bytes: [u8; 15],
}

impl Comm {
    /// Takes what `prctl(PR_SET_NAME)` would take: up to the first NUL, at most 15 bytes.
    #[must_use]
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let mut comm = Comm::default();
        for (slot, byte) in
            comm.bytes.iter_mut().zip(name.as_ref().iter().take_while(|byte| **byte != 0))
        {
            *slot = *byte;
            comm.len += 1;
        }
        comm
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl From<&str> for Comm {
    fn from(name: &str) -> Self {
        Comm::new(name)
    }
}

/// A process by both its numbers: the host's and that of its own PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Pid {
    /// The number in the initial namespace; 0 means no process.
    pub host: u32,
    /// The number that the process itself sees.
    pub namespaced: u32,
}

impl Pid {
    /// A process in a container: `namespaced` is what it sees as its own number.
    #[must_use]
    pub const fn in_namespace(host: u32, namespaced: u32) -> Self {
        Pid { host, namespaced }
    }
}

impl From<u32> for Pid {
    fn from(pid: u32) -> Self {
        Pid { host: pid, namespaced: pid }
    }
}

/// Why the driver resets a GPU (`amdgpu_reset.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetCause {
    /// `unknown`
    Unknown,
    /// `job hang`
    JobHang,
    /// `job hang on ring:NAME`
    JobHangOnRing(Comm),
    /// `RAS error`
    RasError,
    /// `MES hang`
    MesHang,
    /// `HWS hang`
    HwsHang,
    /// `user trigger`
    UserTrigger,
    /// `user queue trigger` (7.2 and later)
    UserQueueTrigger,
}

impl ResetCause {
    /// The text that precedes the ring's name, and the ring's name.
    #[must_use]
    pub fn text(&self) -> (&'static str, &[u8]) {
        match self {
            ResetCause::Unknown => ("unknown", b""),
            ResetCause::JobHang => ("job hang", b""),
            ResetCause::JobHangOnRing(ring) => ("job hang on ring:", ring.as_bytes()),
            ResetCause::RasError => ("RAS error", b""),
            ResetCause::MesHang => ("MES hang", b""),
            ResetCause::HwsHang => ("HWS hang", b""),
            ResetCause::UserTrigger => ("user trigger", b""),
            ResetCause::UserQueueTrigger => ("user queue trigger", b""),
        }
    }
}

/// What makes memory move, queues stop and mappings go (`kfd_ioctl.h`).
pub mod trigger {
    /// `KFD_MIGRATE_TRIGGER_PREFETCH`
    pub const MIGRATE_PREFETCH: i32 = 0;
    /// `KFD_MIGRATE_TRIGGER_PAGEFAULT_GPU`
    pub const MIGRATE_PAGEFAULT_GPU: i32 = 1;
    /// `KFD_MIGRATE_TRIGGER_PAGEFAULT_CPU`
    pub const MIGRATE_PAGEFAULT_CPU: i32 = 2;
    /// `KFD_MIGRATE_TRIGGER_TTM_EVICTION`
    pub const MIGRATE_TTM_EVICTION: i32 = 3;
    /// `KFD_QUEUE_EVICTION_TRIGGER_SVM`
    pub const EVICT_SVM: i32 = 0;
    /// `KFD_QUEUE_EVICTION_TRIGGER_USERPTR`
    pub const EVICT_USERPTR: i32 = 1;
    /// `KFD_QUEUE_EVICTION_TRIGGER_TTM`
    pub const EVICT_TTM: i32 = 2;
    /// `KFD_QUEUE_EVICTION_TRIGGER_SUSPEND`
    pub const EVICT_SUSPEND: i32 = 3;
    /// `KFD_QUEUE_EVICTION_CRIU_CHECKPOINT`
    pub const EVICT_CRIU_CHECKPOINT: i32 = 4;
    /// `KFD_QUEUE_EVICTION_CRIU_RESTORE`
    pub const EVICT_CRIU_RESTORE: i32 = 5;
    /// `KFD_SVM_UNMAP_TRIGGER_MMU_NOTIFY`
    pub const UNMAP_MMU_NOTIFY: i32 = 0;
    /// `KFD_SVM_UNMAP_TRIGGER_MMU_NOTIFY_MIGRATE`
    pub const UNMAP_MMU_NOTIFY_MIGRATE: i32 = 1;
    /// `KFD_SVM_UNMAP_TRIGGER_UNMAP_FROM_CPU`
    pub const UNMAP_FROM_CPU: i32 = 2;
}

/// Bits of the thermal mask, independent of the chip (`amdgpu_smu.h`).
pub mod throttler {
    /// `SMU_THROTTLER_PPT0_BIT`: the package power limit.
    pub const PPT0: u64 = 1 << 0;
    /// `SMU_THROTTLER_TDC_GFX_BIT`: the current limit of the GFX rail.
    pub const TDC_GFX: u64 = 1 << 16;
    /// `SMU_THROTTLER_TEMP_MEM_BIT`
    pub const TEMP_MEM: u64 = 1 << 34;
    /// `SMU_THROTTLER_TEMP_EDGE_BIT`
    pub const TEMP_EDGE: u64 = 1 << 35;
    /// `SMU_THROTTLER_TEMP_HOTSPOT_BIT`
    pub const TEMP_HOTSPOT: u64 = 1 << 36;
}

/// `KFD_IOCTL_SVM_LOCATION_UNDEFINED`: no preferred or prefetch location was given.
pub const LOCATION_UNDEFINED: u32 = 0xffff_ffff;

/// One event as the driver's code raises it (`kfd_smi_events.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverEvent {
    /// 1, `kfd_smi_event_update_vmfault`. A pid of 0 writes nothing, as in the driver.
    VmFault {
        /// The faulting process.
        pid: Pid,
        /// Its name.
        comm: Comm,
    },
    /// 2, `kfd_smi_event_update_thermal_throttling`.
    Thermal {
        /// Bits of [`throttler`].
        throttlers: u64,
        /// Throttle interrupts since the driver was loaded.
        count: u64,
    },
    /// 3, `kfd_smi_event_update_gpu_reset` before the reset.
    PreReset {
        /// Number of resets of this node.
        sequence: u32,
        /// Written from 6.11 on.
        cause: Option<ResetCause>,
    },
    /// 4, the same function after the reset; the driver passes no cause here.
    PostReset {
        /// The number of the reset that ended.
        sequence: u32,
        /// `None` in every driver known.
        cause: Option<ResetCause>,
    },
    /// 5, `kfd_smi_event_migration_start`.
    MigrateStart {
        /// Whose memory.
        pid: Pid,
        /// First page.
        page: u64,
        /// Number of pages.
        pages: u64,
        /// From the GPU with this id; 0 is system memory.
        from: u32,
        /// To the GPU with this id; 0 is system memory.
        to: u32,
        /// Where a prefetch wants it, [`LOCATION_UNDEFINED`] if nowhere.
        prefetch: u32,
        /// Where the program prefers it, [`LOCATION_UNDEFINED`] if nowhere.
        preferred: u32,
        /// `MIGRATE_*` of [`trigger`].
        trigger: i32,
    },
    /// 6, `kfd_smi_event_migration_end`.
    MigrateEnd {
        /// Whose memory.
        pid: Pid,
        /// First page.
        page: u64,
        /// Number of pages.
        pages: u64,
        /// From the GPU with this id; 0 is system memory.
        from: u32,
        /// To the GPU with this id; 0 is system memory.
        to: u32,
        /// `MIGRATE_*` of [`trigger`].
        trigger: i32,
        /// 0 or a negative errno; written from 6.13 on.
        error: i32,
    },
    /// 7, `kfd_smi_event_page_fault_start`.
    PageFaultStart {
        /// Whose memory.
        pid: Pid,
        /// The page.
        page: u64,
        /// A write, else a read.
        write: bool,
    },
    /// 8, `kfd_smi_event_page_fault_end`.
    PageFaultEnd {
        /// Whose memory.
        pid: Pid,
        /// The page.
        page: u64,
        /// The page was migrated, else its mapping was updated.
        migrated: bool,
    },
    /// 9, `kfd_smi_event_queue_eviction`.
    QueueEviction {
        /// Whose queues.
        pid: Pid,
        /// `EVICT_*` of [`trigger`].
        trigger: i32,
    },
    /// 10, `kfd_smi_event_queue_restore`.
    QueueRestore {
        /// Whose queues.
        pid: Pid,
        /// The restore failed and will be tried again.
        rescheduled: bool,
    },
    /// 11, `kfd_smi_event_unmap_from_gpu`.
    UnmapFromGpu {
        /// Whose memory.
        pid: Pid,
        /// First page.
        page: u64,
        /// Number of pages.
        pages: u64,
        /// `UNMAP_*` of [`trigger`].
        trigger: i32,
    },
    /// 12, `kfd_smi_event_process` with start.
    ProcessStart {
        /// The process.
        pid: Pid,
        /// Its name.
        comm: Comm,
    },
    /// 13, `kfd_smi_event_process` with end.
    ProcessEnd {
        /// The process.
        pid: Pid,
        /// Its name.
        comm: Comm,
    },
}

impl DriverEvent {
    /// The number of the event (`enum kfd_smi_event`).
    #[must_use]
    pub const fn id(&self) -> u32 {
        match self {
            DriverEvent::VmFault { .. } => 1,
            DriverEvent::Thermal { .. } => 2,
            DriverEvent::PreReset { .. } => 3,
            DriverEvent::PostReset { .. } => 4,
            DriverEvent::MigrateStart { .. } => 5,
            DriverEvent::MigrateEnd { .. } => 6,
            DriverEvent::PageFaultStart { .. } => 7,
            DriverEvent::PageFaultEnd { .. } => 8,
            DriverEvent::QueueEviction { .. } => 9,
            DriverEvent::QueueRestore { .. } => 10,
            DriverEvent::UnmapFromGpu { .. } => 11,
            DriverEvent::ProcessStart { .. } => 12,
            DriverEvent::ProcessEnd { .. } => 13,
        }
    }

    /// The process that the event is about, if it is about one.
    #[must_use]
    pub const fn pid(&self) -> Option<Pid> {
        match *self {
            DriverEvent::Thermal { .. }
            | DriverEvent::PreReset { .. }
            | DriverEvent::PostReset { .. } => None,
            DriverEvent::VmFault { pid, .. }
            | DriverEvent::MigrateStart { pid, .. }
            | DriverEvent::MigrateEnd { pid, .. }
            | DriverEvent::PageFaultStart { pid, .. }
            | DriverEvent::PageFaultEnd { pid, .. }
            | DriverEvent::QueueEviction { pid, .. }
            | DriverEvent::QueueRestore { pid, .. }
            | DriverEvent::UnmapFromGpu { pid, .. }
            | DriverEvent::ProcessStart { pid, .. }
            | DriverEvent::ProcessEnd { pid, .. } => Some(pid),
        }
    }
}
