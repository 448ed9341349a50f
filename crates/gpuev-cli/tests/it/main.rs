//! The program, as its users run it.

#![allow(clippy::unwrap_used)]

mod faults;
mod golden;
mod machine;
mod program;
mod watch;
