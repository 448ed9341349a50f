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
mod playback;
mod player;
pub mod run;
mod scenario;
mod sensors;
mod stage;
mod transport;
mod tree;
mod truth;

pub use client::{ALL_PROCESS, Client};
pub use clock::boot_ns;
pub use engine::EventFileStats;
pub use event::{Comm, DriverEvent, LOCATION_UNDEFINED, Pid, ResetCause, throttler, trigger};
pub use gpu::SimGpu;
pub use health::{RasBlock, Sensor};
pub use kernel::{Kernel, UnknownKernel};
pub use machine::{Builder, SimMachine};
pub use playback::{Capture, Playback};
pub use player::Player;
pub use scenario::{MAX_RATE, Scenario, ScenarioEvent, ScenarioEvents, Story, UnknownScenario};
pub use tree::process::SimProcess;
pub use truth::{SpanKind, SpanTruth, Truth};
