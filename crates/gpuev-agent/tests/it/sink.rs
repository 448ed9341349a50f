//! Sinks: what is promised arrives, in order and once under one id, whatever becomes of the other side.

pub(crate) mod fixture;

mod alertmanager;
mod chaos;
mod crash;
mod exec;
mod file;
mod journald;
mod kept;
mod otlp;
mod outbox;
mod people;
pub(crate) mod smtp;
mod tls;
mod webhook;
