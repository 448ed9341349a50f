//! The agent's library through its public surface, on simulated machines.

#![allow(clippy::unwrap_used)]

mod agent;
mod aggregate;
mod alert_book;
mod alert_life;
mod attribution;
mod blind;
mod campaign;
mod config;
mod dashboard;
mod disk;
mod documents;
mod health;
mod http;
mod machine;
mod metrics;
mod packaging;
mod panics;
mod quantity;
mod receiver;
mod rule_files;
mod sandbox;
mod servers;
mod sink;
mod stage;
mod states;
