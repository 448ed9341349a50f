//! What happens on AMD GPUs, as it happens.
//!
//! Events come from the Linux kernel's amdgpu driver (KFD SMI events); no ROCm library is needed. What
//! must hold everywhere: decoding never fails, nothing is lost without a [`Gap`] that says so, every clock
//! is named.

#![forbid(unsafe_code)]

pub mod advice;
mod buffered;
mod drain;
mod error;
mod event;
mod filter;
pub mod fork;
pub mod health;
mod hotplug;
mod identity;
pub mod json;
pub mod keeper;
mod lives;
mod loss;
mod machine;
pub mod message;
mod monitor;
mod pace;
pub mod process;
mod queue;
mod reader;
mod scope;
mod seam;
mod source;
pub mod span;
#[cfg(feature = "tokio")]
mod stream;
mod subscription;
mod sync;
pub mod time;
mod view;

pub use buffered::BufferedReader;
pub use error::{Error, ErrorKind, Result};
pub use event::{
    Clock, Comm, Event, EventData, EventFacts, EventTime, Gap, GapCause, Item, Migration, Severity,
    tid_of,
};
pub use filter::{Filter, FilterParts};
pub use gpuev_kfd::{
    Access, EventMask, EventType, FaultOutcome, KfdVersion, Record, codec, decode, names,
};
pub use identity::{Bdf, GpuId, UniqueId};
pub use lives::{Life, Lives};
pub use machine::{
    Caches, Card, ContainerEngine, DeniedNode, DriverInfo, GfxTarget, Gpu, GpuSelector, Inventory,
    Link, LinkKind, Machine, Route, UnreadableNode,
};
pub use monitor::{Monitor, MonitorBuilder};
pub use reader::EventReader;
pub use scope::Scope;
pub use source::{EventSource, KfdDevice, OnOpened, OpenWith, OpenedFiles};
#[cfg(feature = "tokio")]
pub use stream::EventStream;
pub use subscription::{DEFAULT_LIMIT, Subscription};
pub use view::{EventView, ItemView};
