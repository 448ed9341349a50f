//! The keeper: the one small process that needs privileges.
//!
//! Event files that show all processes must be opened by someone with `CAP_SYS_ADMIN`, and opening `/dev/kfd`
//! makes a KFD process of whoever does it, until that process ends (`kfd_process.c`): as long as one exists,
//! the driver refuses to change partitions. So neither is done by the agent. A keeper serves one agent over a
//! connected socket: it opens event files and passes them, keeps none itself, and ends when the agent hangs
//! up. [`serve`] is its side, [`KeeperSource`] is the agent's.
//!
//! The keeper stays while the files that it opened are in use, although it is not needed for reading them. A
//! client of KFD's events holds its GPU's node without a reference (`kfd_smi_events.c`): partitions that
//! changed below an open event file would leave it with freed memory. The KFD process that the keeper is keeps
//! the driver from that. So the order is fixed: event files are closed first, then the keeper ends.
//!
//! [`listen`] starts a keeper for each agent that connects, where no service manager does
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
pub use source::KeeperSource;
