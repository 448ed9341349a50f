//! The agent's local socket, for the programs of this machine: one JSON object a line asks, one answers.
//!
//! ```json
//! {"do":"yield","who":"amd-smi set ...","seconds":600,"held":true}
//! {"ok":true,"lease":1,"took_ms":2.4}
//! ```
//!
//! Every process that may connect, may ask: the socket's mode is the only check (owner and group of the agent). `gpuev
//! watch` and `record` listen in the same way, each for its own user ([`runtime`]).

mod client;
pub mod runtime;
mod server;

pub use client::Client;
pub use server::{Served, Server};

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Request {
    /// Let go of every GPU.
    Yield {
        /// For whom, as the log and other users are to read it.
        who: String,
        /// At most for so long.
        seconds: f64,
        /// It ends with this connection; else with `resume`.
        #[serde(default)]
        held: bool,
    },
    /// Take the GPUs back that were let go with nobody holding the lease.
    Resume {},
    /// Who has the GPUs?
    Leases {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Response {
    /// It could not be done.
    Failed {
        /// `false`.
        ok: bool,
        /// Why.
        error: String,
    },
    /// Answers [`Request::Yield`].
    Yielded {
        /// `true`.
        ok: bool,
        /// The lease's number.
        lease: u64,
        /// How long letting go took, in milliseconds.
        took_ms: f64,
    },
    /// Answers [`Request::Resume`] and [`Request::Leases`].
    Leases {
        /// `true`.
        ok: bool,
        /// How many ended now.
        ended: usize,
        /// Those that run.
        running: Vec<RunningLease>,
    },
}

/// A lease, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningLease {
    /// Its number.
    pub lease: u64,
    /// Who has it.
    pub who: String,
    /// Whether somebody holds it who ends it himself.
    pub held: bool,
    /// When it ends by itself, in seconds from now.
    pub left_s: f64,
}
