//! The kernel interface, through its public surface.

#![allow(clippy::unwrap_used)]

mod allocation;
mod captures;
mod codec;
mod event_file;
mod framing;
mod header;
