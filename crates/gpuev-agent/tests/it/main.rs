//! The agent's library through its public surface, on simulated machines.

#![allow(clippy::unwrap_used)]

mod agent;
mod aggregate;
mod attribution;
mod campaign;
mod config;
mod documents;
mod health;
mod http;
mod machine;
mod quantity;
mod sink;
mod stage;
