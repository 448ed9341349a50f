//! The node service: it watches the GPUs of one machine for years, and wakes the right person.
//!
//! What happens becomes a [`Signal`]: an event, a gap, a span or a reading, with the process and the GPU's
//! health of that moment. Rules turn signals into [`Alert`]s; signals and alerts go to the sinks, which are
//! bounded and cannot hurt one another.

#![forbid(unsafe_code)]

pub mod agent;
pub mod aggregate;
pub mod alert;
pub mod attribution;
mod backoff;
pub mod blind;
pub mod config;
pub mod control;
mod detached;
pub mod health_watch;
pub mod http;
pub mod inventory;
mod kept_file;
mod latest;
pub mod live;
pub mod metrics;
pub mod notify;
pub mod panics;
pub mod pipeline;
pub mod problem;
pub mod quantity;
pub mod rule;
pub mod sandbox;
pub mod signal;
pub mod sink;
mod victims;
pub mod yielding;

pub use agent::Agent;
pub use alert::{Alert, AlertChange, AlertState};
pub use config::{Config, ConfigError};
pub use metrics::Metrics;
pub use pipeline::Pipeline;
pub use signal::{Signal, What};
