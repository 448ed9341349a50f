//! A simulated machine with AMD GPUs, for tests, demos and other people's programs.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! let machine = gpuev_sim::SimMachine::new()?;
//! # let _ = machine.root();
//! # Ok(())
//! # }
//! ```

mod board;
mod client;
mod clock;
mod engine;
mod event;
mod gpu;
mod health;
mod kernel;
mod line;
mod machine;
mod metrics;
mod sensors;
mod transport;
mod tree;

pub use client::{ALL_PROCESS, Client};
pub use clock::boot_ns;
pub use engine::EventFileStats;
pub use event::{Comm, DriverEvent, LOCATION_UNDEFINED, Pid, ResetCause, throttler, trigger};
pub use gpu::SimGpu;
pub use health::{RasBlock, Sensor};
pub use kernel::{Kernel, UnknownKernel};
pub use machine::{Builder, SimMachine};
pub use tree::process::SimProcess;
