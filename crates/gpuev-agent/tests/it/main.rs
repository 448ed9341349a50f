//! The agent's library through its public surface, on simulated machines.

#![allow(clippy::unwrap_used)]

mod aggregate;
mod attribution;
mod campaign;
mod config;
mod health;
mod machine;
mod quantity;
mod sink;
mod stage;
