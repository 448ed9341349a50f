//! Histories, through the public surface.

#![allow(clippy::unwrap_used)]

mod crash;
mod driver;
mod export;
mod histories;
mod import;
mod import_logs;
mod items;
mod log;
mod moment;
mod notes;
mod refused;
mod replay;
mod report;
mod retention;
mod session;
mod versions;
