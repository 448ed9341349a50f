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
mod operate;
pub mod runtime;
mod server;

pub use client::Client;
pub use server::{Served, Server};

use serde::{Deserialize, Serialize};

use crate::agent::Overview;
use crate::alert::{Alert, NewSilence, Silence};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 16 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
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
    /// How is the agent?
    Status {},
    /// What is wrong?
    Alerts {},
    /// Somebody knows of an alert.
    Acknowledge {
        /// Its id, or as much of it as names one.
        id: String,
        /// Who; without: nobody does any more.
        #[serde(default)]
        by: Option<String>,
    },
    /// Nobody wants to be told of alerts for a while.
    Silence {
        /// Which, and why.
        what: NewSilence,
        /// Only tell what it would cover.
        #[serde(default)]
        dry: bool,
    },
    /// End a silence.
    EndSilence {
        /// Its number.
        id: u64,
    },
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
    /// Answers [`Request::Status`].
    Status {
        /// `true`.
        ok: bool,
        /// How the agent is.
        overview: Box<Overview>,
    },
    /// Answers [`Request::Alerts`].
    Alerts {
        /// `true`.
        ok: bool,
        /// How many are not over.
        total: usize,
        /// The worst of these.
        alerts: Vec<Alert>,
        /// The latest that are over.
        ended: Vec<Alert>,
        /// The silences in force.
        silences: Vec<Silence>,
    },
    /// Answers [`Request::Silence`].
    Silenced {
        /// `true`.
        ok: bool,
        /// The silence, where one was made.
        silence: Option<Silence>,
        /// The alerts of now that it covers.
        covers: Vec<Alert>,
    },
    /// Answers [`Request::Acknowledge`] and [`Request::EndSilence`].
    Done {
        /// `true`.
        ok: bool,
        /// The whole id.
        done: String,
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
