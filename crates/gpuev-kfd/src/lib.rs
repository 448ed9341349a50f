//! The Linux kernel's AMD GPU event interface in Rust: what `kfd_ioctl.h` says of SMI events, no more.
//!
//! * [`ioctl`] opens the event file of a GPU and asks for the driver's version;
//! * [`EventFile`] owns that file: its mask, reads into one reused buffer, the torn tail carried over;
//! * [`codec`] turns a line of the driver into a [`Record`] and back. It never fails, never allocates and
//!   holds no `unsafe`; what it does not know is [`Fields::Unknown`] and keeps its bytes;
//! * [`framing`] finds where a message ends, over-long ones without a newline included;
//! * [`names`] says what the numbers mean: triggers, reset causes, reasons for throttling.
//!
//! Most programs want the crate `gpuev`, which builds typed events of a whole machine on this.
//!
//! Sources: `include/uapi/linux/kfd_ioctl.h` and `drivers/gpu/drm/amd/amdkfd/kfd_smi_events.c`,
//! Linux 5.8 to 7.3.

#![deny(unsafe_code)]

pub mod codec;
mod event_file;
mod event_type;
pub mod framing;
pub mod ioctl;
pub mod names;

pub use codec::{Access, FaultOutcome, Fields, Record, RestoreFlag, decode};
pub use event_file::EventFile;
pub use event_type::{EventMask, EventType};
pub use ioctl::KfdVersion;
