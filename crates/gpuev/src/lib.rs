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
mod machine;

pub use error::{Error, ErrorKind, Result};
pub use event::Gap;
pub use gpuev_kfd::{EventMask, EventType, KfdVersion};
pub use identity::{Bdf, GpuId, UniqueId};
pub use machine::{DeniedNode, GfxTarget, Gpu, Inventory, Machine};
