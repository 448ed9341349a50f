//! What happened: events, the gaps between them, and what both say.
//!
//! An [`Event`] keeps facts: the driver's line, the GPU, both clocks, the sequence number. What the line
//! means is read from it when asked ([`Event::data`]), so nothing is stored that could disagree with it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use gpuev_kfd::{Access, EventType, FaultOutcome, Fields, Record, RestoreFlag, framing};

use crate::GpuId;
use crate::message::EventMessage;
use crate::view::EventView;

/// What a stream of events consists of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Something happened.
    Event(Event),
    /// Something may have happened and is not here.
    Gap(Gap),
}

impl Item {
    /// The GPU that it is about.
    #[must_use]
    pub fn gpu(&self) -> GpuId {
        match self {
            Self::Event(event) => event.gpu,
            Self::Gap(gap) => gap.gpu,
        }
    }
}

/// One event of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which GPU.
    pub gpu: GpuId,
    /// Counts what the reader of this GPU delivered, from 0, without holes: a hole is a lost event.
    pub seq: u64,
    /// When, by which clock.
    pub time: EventTime,
    /// A task name may have forged it: a process may be called `a\n3 1 HWS`, which the driver writes as two
    /// lines. What `/proc` could not decide is marked so.
    pub doubtful: bool,
    event_type: Option<EventType>,
    thread_of: Option<u32>,
    comm: Comm,
    raw: RawLine,
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// Nanoseconds of `CLOCK_BOOTTIME`: the driver's own time where the line carries it, else that of
    /// receipt; [`clock`](Self::clock) says which.
    pub boot_ns: u64,
    /// Whose time `boot_ns` is.
    pub clock: Clock,
    /// Nanoseconds of `CLOCK_BOOTTIME` at which the line was read from the driver.
    pub received_boot_ns: u64,
    /// `boot_ns` as nanoseconds since 1970, by an anchor between the two clocks taken at receipt.
    pub unix_ns: i64,
}

/// Whose time an event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The driver's, taken when it happened: page faults, migrations, queues, unmaps.
    Driver,
    /// Ours, taken when the line was read: the driver writes no time for the rest.
    Receipt,
}

impl Clock {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Receipt => "receipt",
        }
    }
}

/// How much an event matters by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Normal working.
    Info,
    /// Costs performance, or says that something is over.
    Warning,
    /// A job is lost or about to be.
    Critical,
}

impl Severity {
    /// All, the mildest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity with this name, upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name().eq_ignore_ascii_case(name))
    }
}

/// What an event says beside time, GPU and process. Addresses and sizes are bytes; `node`, `from` and `to`
/// are KFD's GPU ids, 0 being system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventData<'a> {
    /// A fault that ends the process, as a rule.
    VmFault,
    /// Lower clocks.
    ThermalThrottle {
        /// Why, as `SMU_THROTTLER_*` bits; [`gpuev_kfd::names::throttlers`] names them.
        throttlers: u64,
        /// Throttle interrupts since the driver was loaded.
        count: u64,
    },
    /// A reset begins.
    PreReset {
        /// Counts this GPU's resets.
        sequence: u32,
        /// Why; `None` where the kernel does not say.
        cause: Option<&'a [u8]>,
    },
    /// A reset is over.
    PostReset {
        /// That of its beginning.
        sequence: u32,
        /// Why; `None` where the kernel does not say, which is usual.
        cause: Option<&'a [u8]>,
    },
    /// Memory begins to move.
    MigrateStart {
        /// What moves where and why.
        migration: Migration,
        /// Where the range wants to be fetched to; `None` where that is undefined.
        prefetch: Option<u32>,
        /// Where the range prefers to be; `None` where that is undefined.
        preferred: Option<u32>,
    },
    /// Memory has moved.
    MigrateEnd {
        /// What moved where and why.
        migration: Migration,
        /// 0 or a negative errno; `None` before Linux 6.13.
        error: Option<i32>,
    },
    /// A recoverable page fault begins.
    PageFaultStart {
        /// First byte of the page.
        address: u64,
        /// GPU.
        node: u32,
        /// Read or write.
        access: Access,
    },
    /// A recoverable page fault is resolved.
    PageFaultEnd {
        /// First byte of the page.
        address: u64,
        /// GPU.
        node: u32,
        /// How.
        outcome: FaultOutcome,
    },
    /// A process's queues leave the GPU.
    QueueEviction {
        /// GPU.
        node: u32,
        /// Why, see [`gpuev_kfd::names::eviction_trigger`].
        trigger: i32,
    },
    /// A process's queues run again.
    QueueRestore {
        /// GPU.
        node: u32,
        /// It did not succeed and was scheduled again.
        rescheduled: bool,
    },
    /// Memory was taken from the GPU's page table.
    UnmapFromGpu {
        /// First byte.
        address: u64,
        /// Bytes.
        size: u64,
        /// GPU.
        node: u32,
        /// Why, see [`gpuev_kfd::names::unmap_trigger`].
        trigger: i32,
    },
    /// A process began to use the GPU.
    ProcessStart,
    /// A process stopped using the GPU.
    ProcessEnd,
    /// An event of a later kernel or a malformed line; the bytes are in [`Event::raw`].
    Unknown {
        /// The driver's number, where the line begins with one.
        id: Option<u32>,
    },
}

/// Memory on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// From which GPU; 0 is system memory.
    pub from: u32,
    /// To which GPU; 0 is system memory.
    pub to: u32,
    /// Why, see [`gpuev_kfd::names::migrate_trigger`].
    pub trigger: i32,
}

/// A driver's page is 4 KiB on every machine. A number that no address space holds saturates; the line
/// itself is kept.
fn bytes_of_pages(pages: u64) -> u64 {
    pages.saturating_mul(4096)
}

/// `KFD_IOCTL_SVM_LOCATION_UNDEFINED`.
const LOCATION_UNDEFINED: u32 = u32::MAX;

fn location(node: u32) -> Option<u32> {
    (node != LOCATION_UNDEFINED).then_some(node)
}

fn migration(range: gpuev_kfd::codec::Migration, trigger: i32) -> Migration {
    Migration {
        address: bytes_of_pages(range.page),
        size: bytes_of_pages(range.pages),
        from: range.from,
        to: range.to,
        trigger,
    }
}

impl<'a> EventData<'a> {
    /// What `record` says, in bytes.
    #[must_use]
    pub fn of(record: &Record<'a>) -> Self {
        match record.fields {
            Fields::VmFault(_) => Self::VmFault,
            Fields::ThermalThrottle { throttlers, count } => {
                Self::ThermalThrottle { throttlers, count }
            }
            Fields::GpuPreReset(reset) => {
                Self::PreReset { sequence: reset.sequence, cause: given(reset.cause) }
            }
            Fields::GpuPostReset(reset) => {
                Self::PostReset { sequence: reset.sequence, cause: given(reset.cause) }
            }
            Fields::MigrateStart { range, prefetch, preferred, trigger, .. } => {
                Self::MigrateStart {
                    migration: migration(range, trigger),
                    prefetch: location(prefetch),
                    preferred: location(preferred),
                }
            }
            Fields::MigrateEnd { range, trigger, error, .. } => {
                Self::MigrateEnd { migration: migration(range, trigger), error }
            }
            Fields::PageFaultStart { page, node, access, .. } => {
                Self::PageFaultStart { address: bytes_of_pages(page), node, access }
            }
            Fields::PageFaultEnd { page, node, outcome, .. } => {
                Self::PageFaultEnd { address: bytes_of_pages(page), node, outcome }
            }
            Fields::QueueEviction { node, trigger, .. } => Self::QueueEviction { node, trigger },
            Fields::QueueRestore { node, flag, .. } => {
                Self::QueueRestore { node, rescheduled: flag == RestoreFlag::Rescheduled }
            }
            Fields::UnmapFromGpu { page, pages, node, trigger, .. } => Self::UnmapFromGpu {
                address: bytes_of_pages(page),
                size: bytes_of_pages(pages),
                node,
                trigger,
            },
            Fields::ProcessStart(_) => Self::ProcessStart,
            Fields::ProcessEnd(_) => Self::ProcessEnd,
            Fields::Unknown { id, .. } => Self::Unknown { id },
            _ => Self::Unknown { id: None },
        }
    }
}

/// An empty cause is none: the driver was given no context.
fn given(cause: Option<&[u8]>) -> Option<&[u8]> {
    cause.filter(|text| !text.is_empty())
}

/// The facts that an [`Event`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct EventFacts<'a> {
    /// Which GPU.
    pub gpu: GpuId,
    /// See [`Event::seq`].
    pub seq: u64,
    /// When.
    pub time: EventTime,
    /// See [`Event::doubtful`].
    pub doubtful: bool,
    /// The process whose thread the line names (memory faults, process starts and ends), as `/proc` had it at
    /// receipt; `None` where nobody could tell, and for all other lines, which name the process themselves.
    pub pid: Option<u32>,
    /// The process's name, as `/proc` had it at receipt.
    pub comm: Comm,
    /// The driver's line without its newline.
    pub raw: &'a [u8],
}

impl Event {
    /// The event of these facts.
    #[must_use]
    pub fn from_facts(facts: EventFacts<'_>) -> Self {
        EventView::of(facts).into()
    }

    /// The facts it was made of.
    #[must_use]
    pub fn facts(&self) -> EventFacts<'_> {
        let Self { gpu, seq, time, doubtful, thread_of: pid, comm, .. } = *self;
        EventFacts { gpu, seq, time, doubtful, pid, comm, raw: self.raw() }
    }

    /// What kind of event; `None` where the driver's line is unknown.
    #[must_use]
    pub fn event_type(&self) -> Option<EventType> {
        self.event_type
    }

    /// The name of its type in every output: a documented one, or `UNKNOWN`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.event_type.map_or("UNKNOWN", EventType::name)
    }

    /// The driver's line without its newline, byte for byte.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.raw.bytes()
    }

    /// The driver's line, taken apart.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        gpuev_kfd::decode(self.raw())
    }

    /// What the line says.
    #[must_use]
    pub fn data(&self) -> EventData<'_> {
        EventData::of(&self.record())
    }

    /// The process; `None` for an event of no process, and where only a thread's number is known: see
    /// [`tid`](Self::tid). It is the machine's number, but from Linux 7.0 on lines other than those with a thread
    /// have that of the process's own pid namespace.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.facts().pid_in(&self.record())
    }

    /// The thread that the line names, by the machine's number: memory faults, process starts and ends have one,
    /// that of the thread which last submitted work.
    #[must_use]
    pub fn tid(&self) -> Option<u32> {
        tid_of(&self.record())
    }

    /// The process's name as raw bytes, as `/proc` had it at receipt, or as the line says it of the process's first
    /// thread.
    #[must_use]
    pub fn process(&self) -> Option<&[u8]> {
        let is_first = || self.thread_of.is_some() && self.thread_of == self.tid();
        self.comm.bytes().or_else(|| self.thread().filter(|_| is_first()))
    }

    /// The name of the thread that the line names, as raw bytes. A thread may be called otherwise than its process.
    #[must_use]
    pub fn thread(&self) -> Option<&[u8]> {
        thread_of(&self.record())
    }

    /// How much it matters by itself.
    #[must_use]
    pub fn severity(&self) -> Severity {
        severity_of(&self.record())
    }

    /// What happened, in one line for people. Names are escaped: it may be printed on a terminal.
    #[must_use]
    pub fn message(&self) -> impl fmt::Display + '_ {
        EventMessage(EventView::of(self.facts()))
    }
}

impl From<EventView<'_>> for Event {
    fn from(view: EventView<'_>) -> Self {
        let EventFacts { gpu, seq, time, doubtful, pid, comm, raw } = view.facts;
        let event_type = view.record.event_type();
        let raw = RawLine::new(raw);
        Self { gpu, seq, time, doubtful, event_type, thread_of: pid, comm, raw }
    }
}

impl EventFacts<'_> {
    /// The process, `record` being what the line decodes to; see [`Event::pid`].
    #[must_use]
    pub fn pid_in(&self, record: &Record<'_>) -> Option<u32> {
        match record.stamp() {
            Some(stamp) => Some(stamp.pid).filter(|pid| *pid != 0),
            None => self.pid.filter(|_| record.task().is_some()),
        }
    }

    /// The process's name, `record` being what the line decodes to. The first thread of a process bears its number and
    /// its name.
    #[must_use]
    pub fn process_in<'a>(&'a self, record: &Record<'a>) -> Option<&'a [u8]> {
        let of_thread = || thread_of(record).filter(|_| self.pid_in(record) == tid_of(record));
        self.comm.bytes().or_else(of_thread)
    }

    /// By which number to tell processes apart, `record` being what the line decodes to: the process's, or that of
    /// a thread whose process is not known.
    #[must_use]
    pub fn owner_in(&self, record: &Record<'_>) -> Option<u32> {
        self.pid_in(record).or_else(|| tid_of(record))
    }
}

/// The thread that `record` names; see [`Event::tid`].
#[must_use]
pub fn tid_of(record: &Record<'_>) -> Option<u32> {
    record.task().map(|task| task.pid).filter(|tid| *tid != 0)
}

/// The name of the thread that `record` names.
pub(crate) fn thread_of<'a>(record: &Record<'a>) -> Option<&'a [u8]> {
    record.task().map(|task| task.name).filter(|name| !name.is_empty())
}

/// The severity of `record`: as the documented alerting example has it; a failed migration is a warning.
pub(crate) fn severity_of(record: &Record<'_>) -> Severity {
    match record.fields {
        Fields::VmFault(_) | Fields::GpuPreReset(_) => Severity::Critical,
        Fields::ThermalThrottle { .. } | Fields::GpuPostReset(_) => Severity::Warning,
        Fields::MigrateEnd { error: Some(error), .. } if error != 0 => Severity::Warning,
        _ => Severity::Info,
    }
}

/// The highest severity that an event of this type can have: see [`severity_of`].
pub(crate) fn highest_severity_of(event_type: EventType) -> Severity {
    match event_type {
        EventType::VmFault | EventType::GpuPreReset => Severity::Critical,
        EventType::ThermalThrottle | EventType::GpuPostReset | EventType::MigrateEnd => {
            Severity::Warning
        }
        _ => Severity::Info,
    }
}

/// A stretch of time in which events of one GPU were, or may have been, lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Which GPU.
    pub gpu: GpuId,
    /// Where they were lost.
    pub cause: GapCause,
    /// How many, where that is known.
    pub count: Option<u64>,
    /// Nanoseconds of `CLOCK_BOOTTIME`: nothing was lost before.
    pub from_boot_ns: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`: nothing was lost after, for this cause.
    pub to_boot_ns: u64,
    /// `to_boot_ns` as nanoseconds since 1970.
    pub unix_ns: i64,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapCause {
    /// The driver's FIFO was, or may have been, full. The driver drops silently: where it does not count,
    /// this is inferred from how full the FIFO was, and misses no loss.
    DriverFifoFull,
    /// A subscriber did not take its events and its queue was full.
    SubscriberSlow,
    /// The GPU was let go on request.
    Yielded,
    /// The event file was closed and opened again, e.g. after the GPU came back.
    Reopened,
    /// The GPU is gone: nothing follows until it comes back.
    GpuRemoved,
    /// The event file cannot be opened: KFD is locked while a GPU is reset, repartitioned or removed. Nothing follows
    /// until it is.
    Locked,
    /// The event file cannot be opened by this process: the GPU appeared after it first opened `/dev/kfd`. Nothing
    /// follows.
    AppearedLater,
    /// The event file cannot be opened for another reason, which the monitor's `failures` tell. Nothing follows until
    /// it is.
    OpenFailed,
    /// One that this version does not know: a later gpuev wrote it.
    Other(OtherCause),
}

/// The name of a cause of gaps that a later gpuev writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtherCause(&'static str);

impl OtherCause {
    /// The name, which is kept for as long as the program runs. There are few causes: of more than some, the name is
    /// not told any more, nor that of one that is no name of ours.
    fn of(name: &str) -> Self {
        static KNOWN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
        const MOST: usize = 64;
        const LONGEST: usize = 64;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(plain) {
            return Self("unknown");
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(|known| **known == name) {
            return Self(known);
        }
        if known.len() >= MOST {
            return Self("unknown");
        }
        let kept: &'static str = Box::leak(name.into());
        known.push(kept);
        Self(kept)
    }
}

impl GapCause {
    /// All that this version knows.
    pub const ALL: [Self; 8] = [
        Self::DriverFifoFull,
        Self::SubscriberSlow,
        Self::Yielded,
        Self::Reopened,
        Self::GpuRemoved,
        Self::Locked,
        Self::AppearedLater,
        Self::OpenFailed,
    ];

    /// Whether it tells that nothing is seen from now on, rather than for how long nothing was: that, the gap tells
    /// with which the GPU's events go on.
    #[must_use]
    pub const fn begins_blindness(self) -> bool {
        matches!(self, Self::GpuRemoved | Self::Locked | Self::AppearedLater | Self::OpenFailed)
    }

    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DriverFifoFull => "driver_fifo_full",
            Self::SubscriberSlow => "subscriber_slow",
            Self::Yielded => "yielded",
            Self::Reopened => "reopened",
            Self::GpuRemoved => "gpu_removed",
            Self::Locked => "locked",
            Self::AppearedLater => "appeared_later",
            Self::OpenFailed => "open_failed",
            Self::Other(OtherCause(name)) => name,
        }
    }

    /// The cause with this name. One that this version does not know is what a later one writes.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let known = Self::ALL.into_iter().find(|cause| cause.name() == name);
        known.unwrap_or_else(|| Self::Other(OtherCause::of(name)))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = std::time::Duration::from_nanos(
            self.to_boot_ns - self.from_boot_ns.min(self.to_boot_ns),
        );
        match (self.count, self.cause) {
            (_, cause) if cause.begins_blindness() => f.write_str(reason(cause)),
            (Some(count), cause) => {
                write!(f, "{count} events lost in {seconds:.1?}: {}", reason(cause))
            }
            (None, cause) => write!(f, "events may be lost in {seconds:.1?}: {}", reason(cause)),
        }
    }
}

fn reason(cause: GapCause) -> &'static str {
    match cause {
        GapCause::DriverFifoFull => "the driver's FIFO was full",
        GapCause::SubscriberSlow => "the subscriber was too slow",
        GapCause::Yielded => "the GPU was let go on request",
        GapCause::Reopened => "the event file was opened again",
        GapCause::GpuRemoved => "the GPU is gone",
        GapCause::Locked => {
            "not watched: KFD is locked while a GPU is reset, repartitioned or removed; it is tried again"
        }
        GapCause::AppearedLater => {
            "not watched: it appeared after this process first opened /dev/kfd, and the driver shows it only to              processes that start later"
        }
        GapCause::OpenFailed => "not watched: its event file cannot be opened",
        GapCause::Other(OtherCause(name)) => name,
    }
}

/// A task name as the kernel keeps it: up to 15 bytes of any value, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Comm {
    length: u8,
    bytes: [u8; 15],
}

impl Comm {
    /// No name.
    pub const NONE: Self = Self { length: 0, bytes: [0; 15] };

    /// The first 15 bytes of `name`.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 15];
        let taken = name.len().min(bytes.len());
        bytes[..taken].copy_from_slice(&name[..taken]);
        Self { length: u8::try_from(taken).unwrap_or(15), bytes }
    }

    /// The name, if there is one.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        (self.length > 0).then(|| &self.bytes[..usize::from(self.length)])
    }
}

/// A line of the driver, in place: genuine ones are never longer than [`framing::LONGEST_MESSAGE`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum RawLine {
    InPlace { length: u8, bytes: [u8; framing::LONGEST_MESSAGE] },
    Longer(Box<[u8]>),
}

impl RawLine {
    fn new(line: &[u8]) -> Self {
        let mut bytes = [0; framing::LONGEST_MESSAGE];
        match (bytes.get_mut(..line.len()), u8::try_from(line.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(line);
                Self::InPlace { length, bytes }
            }
            _ => Self::Longer(line.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace { length, bytes } => &bytes[..usize::from(*length)],
            Self::Longer(bytes) => bytes,
        }
    }
}
