//! Tests of the simulator through its public interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod captures;
mod client;
mod machine;
mod playback;
mod rules;
mod scenarios;
