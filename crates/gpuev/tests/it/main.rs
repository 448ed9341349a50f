//! The library, through its public surface.

#![allow(clippy::unwrap_used)]

mod driver;
mod json;
mod monitor;
mod reader;
