//! Sinks: what is promised arrives, in order and once under one id, whatever becomes of the other side.

pub(crate) mod fixture;

mod alertmanager;
mod chaos;
mod crash;
mod exec;
mod file;
mod journald;
mod otlp;
mod outbox;
mod smtp;
mod spool;
mod tls;
mod webhook;
