//! Histories, through the public surface.

#![allow(clippy::unwrap_used)]

mod driver;
mod items;
mod refused;
mod retention;
