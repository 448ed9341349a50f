//! The program, as its users run it.

#![allow(clippy::unwrap_used)]

mod agent;
mod agent_yields;
mod chaos;
mod docs_commands;
mod documents;
mod ends;
mod exchange;
mod faults;
mod generate;
mod golden;
mod history;
mod keeper;
mod listeners;
mod machine;
mod machine_state;
mod modprobe;
mod operate;
mod pod;
mod program;
mod rules;
mod supervisor;
mod systemd;
mod times;
mod watch;
mod yielding;
mod yields_all;
mod zoo;
