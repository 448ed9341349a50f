//! Sinks: what is promised arrives, in order and once under one id, whatever becomes of the other side.

mod fixture;

mod crash;
mod file;
mod outbox;
mod spool;
