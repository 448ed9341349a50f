//! The agent's library through its public surface, on simulated machines.

#![allow(clippy::unwrap_used)]

mod agent;
mod aggregate;
mod alert_book;
mod alert_life;
mod attribution;
mod campaign;
mod config;
mod documents;
mod health;
mod http;
mod machine;
mod packaging;
mod quantity;
mod rule_files;
mod sandbox;
mod sink;
mod stage;
