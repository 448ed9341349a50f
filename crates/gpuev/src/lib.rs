//! What happens on AMD GPUs, as it happens.
//!
//! Events come from the Linux kernel's amdgpu driver (KFD SMI events); no ROCm library is needed. What
//! must hold everywhere: decoding never fails, nothing is lost without a [`Gap`] that says so, every clock
//! is named.

#![forbid(unsafe_code)]

mod error;
mod event;
pub mod health;
mod identity;
pub mod json;
mod machine;
pub mod message;
pub mod time;

pub use error::{Error, ErrorKind, Result};
pub use event::{
    Clock, Comm, Event, EventData, EventFacts, EventTime, Gap, GapCause, Item, Migration, Severity,
};
pub use gpuev_kfd::{Access, EventMask, EventType, FaultOutcome, KfdVersion, names};
pub use identity::{Bdf, GpuId, UniqueId};
pub use machine::{DeniedNode, GfxTarget, Gpu, Inventory, Machine};
