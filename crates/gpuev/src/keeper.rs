//! The keeper: the one small process that opens `/dev/kfd`.
//!
//! Opening `/dev/kfd` makes a KFD process of the opener, until that process ends (`kfd_process.c`):
//!
//! * As long as one exists, the driver refuses to change partitions.
//! * The driver shows it only the GPUs that were there when it first opened the device.
//! * Newer drivers end it when a GPU is removed.
//! * The event files that it opens show what it may see: all processes need `CAP_SYS_ADMIN`.
//!
//! So a program that watches for long does not open the device itself. A keeper serves one client over a connected
//! socket: it opens the event files of one look at the machine with one open of the device, passes them, keeps none
//! itself, and ends when the client hangs up. A GPU that appears later gets another keeper. [`serve`] is the keeper's
//! side, [`KeeperSource`] the client's:
//!
//! ```no_run
//! use gpuev::{Machine, Monitor, keeper::KeeperSource};
//!
//! let keeper = KeeperSource::of_program("/usr/bin/gpuev".as_ref(), &["keeper"]);
//! let monitor = Monitor::start(&Machine::host().with_event_source(keeper))?;
//! # Ok::<(), gpuev::Error>(())
//! ```
//!
//! The keeper stays while the files that it opened are in use, although it is not needed for reading them. A
//! client of KFD's events holds its GPU's node without a reference (`kfd_smi_events.c`): partitions that
//! changed below an open event file would leave it with freed memory. The KFD process that the keeper is keeps
//! the driver from that. So the order is fixed: event files are closed first, then the keeper ends. Where the driver
//! itself ends the keeper, the client closes the files at once.
//!
//! [`listen`] starts a keeper for each client that connects, where no service manager does
//! (`Accept=yes` in a systemd socket is the same). It never opens the device itself.

#[cfg(feature = "keeper-server")]
mod listen;
#[cfg(feature = "keeper-server")]
mod peer;
mod protocol;
#[cfg(feature = "keeper-server")]
mod serve;
mod source;

#[cfg(feature = "keeper-server")]
pub use listen::listen;
#[cfg(feature = "keeper-server")]
pub use serve::{Allowed, serve};
pub(crate) use source::Keeper;
pub use source::KeeperSource;
