//! The library, through its public surface.

#![allow(clippy::unwrap_used)]

mod allocation;
mod bounds;
mod driver;
mod examples;
mod faults;
mod health;
mod json;
mod links;
mod machine;
mod masks;
mod message;
mod monitor;
mod names;
mod opening;
mod overload;
mod process;
mod reader;
mod real;
mod simulated;
mod span;
mod table;
mod tree;
mod waiting;
