//! A simulated machine with AMD GPUs: for tests, demos, and other people's programs.
//!
//! It pretends to be the amdgpu driver of a Linux kernel of one's choice: a tree of files as under
//! `/sys`, `/proc`, `/dev` and `/etc`, and event files (KFD SMI events) that keep the driver's
//! rules. It shares no code with what it judges, and needs no privileges.
//!
//! ```
//! use gpuev_sim::{Client, DriverEvent, SimMachine, throttler};
//!
//! let machine = SimMachine::new()?;
//!
//! let gpu = &machine.gpus()[0];
//! let events = machine.open_events(gpu.kfd_gpu_id, &Client::root())?;
//! rustix::io::write(&events, &u64::MAX.to_ne_bytes())?;
//!
//! machine.emit(0, &DriverEvent::Thermal { throttlers: throttler::TEMP_HOTSPOT, count: 1 });
//!
//! let mut buffer = [0; 8192];
//! let taken = rustix::io::read(&events, &mut buffer)?;
//! assert_eq!(&buffer[..taken], b"2 1000000000:1\n");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`SimMachine::root`] is the folder to give to whatever reads `sys` and `proc`;
//! [`SimMachine::play`] plays a [`Scenario`]; [`SimMachine::play_capture`] plays recorded bytes;
//! [`SimMachine::event_files`] tells what became of every line, which is what a reader's own
//! account is held against.
//!
//! # What is imitated
//!
//! * **Lines**, byte by byte, as each [`Kernel`] writes them, with what is odd in them: the NUL in
//!   `QUEUE_RESTORE`, over-long messages, names with newlines.
//! * **The FIFO**: 1024 or 8192 bytes for each file; a line goes in whole or not at all; the oldest
//!   stay; nothing tells of drops, but for AMD's own driver.
//! * **Who sees what**: mask, process, capability at open, PID namespaces, by kernel.
//! * **Files** that sysfs readers of the field ask for, with the driver's units.
//!
//! # What a socket cannot imitate
//!
//! An event file is by default one end of a Unix socket pair, which works everywhere. In these
//! points it differs from the genuine file:
//!
//! | the driver's file | a socket | why |
//! |---|---|---|
//! | reading never blocks, with or without `O_NONBLOCK` | blocks once a program clears `O_NONBLOCK` | the flag is the file's, and the program's to change |
//! | a read of 0 bytes gives `EAGAIN` | 0 | the kernel answers before the socket is asked |
//! | a read into a bad address loses the bytes | keeps them | so do sockets |
//! | a mask of less than 8 bytes, or at a bad address, gives `EFAULT` | is taken, and ignored | whoever writes to a socket learns nothing |
//! | of a longer write 8 bytes are used and 8 returned | all are taken; the last whole 8 are the mask | the same |
//! | `FIONREAD` gives `ENOTTY`, the name is `anon_inode:kfd_smi_ev` | the unread bytes, `socket:` | it is a socket |
//! | never `POLLOUT`; `POLLHUP` never | `POLLOUT` always, `POLLHUP` when the GPU goes | it is a socket |
//! | the FIFO is locked while it is read | a read may see a line that is written during it | the simulator waits for reads that are under way, and a read that brings more than the FIFO holds is so all but impossible |
//! | the oldest driver reads 8 bytes at a time | all at once | a socket's reads cannot be cut short |
//! | AMD's own driver puts its `DROPPED_EVENT` line in at the read | at the first event after the read | the read is not seen |
//!
//! Where the kernel has no `sock_diag`, the simulator holds a duplicate of the client's end: then
//! its closing is not noticed. Where neither `CAP_NET_ADMIN` nor `net.core.wmem_max` allow a large
//! buffer, a FIFO with very many short lines becomes readable in parts.
//!
//! # Exact event files
//!
//! [`Builder::exact_files`] makes event files by FUSE. They need access to `/dev/fuse`, and root or a
//! user namespace, and cost some microseconds for each read and some tens for each wake-up. Of the
//! table above these remain:
//!
//! | the driver's file | an exact file |
//! |---|---|
//! | a read or write of 0 bytes gives `EAGAIN`, `EFAULT` | 0 |
//! | a read into a bad address loses the bytes | keeps them |
//! | `writev` is a row of writes | one write |
//! | `FIONREAD` gives `ENOTTY`, the name is `anon_inode:kfd_smi_ev` | a number, `/kfd_smi_ev.N` |
//! | `POLLHUP` never | when the GPU goes |
//! | AMD's own driver puts its `DROPPED_EVENT` line in at the read | at the first event after it |
//!
//! # What is not as in life
//!
//! The cards: one that is not partitioned is a Radeon PRO W7900 with partition files that a
//! genuine one has not; a partitioned one is an Instinct MI300X with the sensors of the former.
//! Files are replaced, not rewritten: a program that keeps one open sees the old value.
//! Throttling and resets come far more often than they should.

mod board;
mod client;
mod clock;
mod engine;
mod event;
mod gpu;
mod health;
mod kernel;
mod kfd;
mod line;
mod machine;
mod metrics;
mod playback;
mod player;
pub mod run;
mod scenario;
mod sensors;
mod stage;
mod transport;
mod tree;
mod truth;
mod userns;
mod zoo;

pub use client::{ALL_PROCESS, Client};
pub use clock::boot_ns;
pub use engine::{EventFileStats, Fate, FileLine};
pub use event::{Comm, DriverEvent, LOCATION_UNDEFINED, Pid, ResetCause, throttler, trigger};
pub use gpu::SimGpu;
pub use health::{RasBlock, Sensor};
pub use kernel::{Kernel, UnknownKernel};
pub use kfd::{KfdLock, KfdOpen, KfdProcess};
pub use machine::{Builder, SimMachine};
pub use playback::{Capture, Playback};
pub use player::{Player, Raised};
pub use scenario::{MAX_RATE, Scenario, ScenarioEvent, ScenarioEvents, Story, UnknownScenario};
pub use tree::process::SimProcess;
pub use truth::{SpanKind, SpanTruth, Truth};
pub use zoo::{FoundMachine, UnknownMachine};
