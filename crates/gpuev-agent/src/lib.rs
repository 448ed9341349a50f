//! The node service: it watches the GPUs of one machine for years, and wakes the right person.
//!
//! What happens becomes a [`Signal`]: an event, a gap, a span or a reading, with the process and the GPU's
//! health of that moment. Rules turn signals into [`Alert`]s; signals and alerts go to the sinks, which are
//! bounded and cannot hurt one another.

#![forbid(unsafe_code)]

pub mod alert;
pub mod signal;

pub use alert::{Alert, AlertChange, AlertState};
pub use signal::{Signal, What};
