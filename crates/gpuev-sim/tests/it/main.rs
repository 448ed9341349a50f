//! Tests of the simulator through its public interface.
//!
//! `lines`, `read`, `mask`, `overflow`, `poll`, `files`, `scope` and `close` hold a test for each
//! statement that was measured on the genuine driver and that a socket can imitate; those that it
//! cannot are listed in the crate's documentation.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use gpuev_sim::{Builder, SimMachine};

/// How the machines of these tests are made.
fn builder() -> Builder {
    SimMachine::builder()
}

mod captures;
mod client;
mod close;
mod files;
mod kfd;
mod lines;
mod machine;
mod mask;
mod model;
mod overflow;
mod playback;
mod poll;
mod read;
mod scenarios;
mod scope;
mod socket;
