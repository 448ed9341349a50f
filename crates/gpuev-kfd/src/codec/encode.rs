//! A [`Record`] as the line that it was decoded from.

use super::{Access, FaultOutcome, Fields, Migration, Record, Reset, RestoreFlag, Stamp, Task};

impl Record<'_> {
    /// Appends the line, without a newline: the bytes that [`decode`](super::decode) was given.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_fields(&self.fields, out);
        out.extend_from_slice(self.tail);
    }
}

/// Appends formatted text; a `Vec` takes any amount, so this cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {{
        use std::io::Write as _;
        let _infallible = write!($out, $($format)*);
    }};
}

fn encode_fields(fields: &Fields<'_>, out: &mut Vec<u8>) {
    match *fields {
        Fields::VmFault(task) => encode_task(out, "1", task, ":"),
        Fields::ThermalThrottle { throttlers, count } => put!(out, "2 {throttlers:x}:{count:x}"),
        Fields::GpuPreReset(reset) => encode_reset(out, "3", reset),
        Fields::GpuPostReset(reset) => encode_reset(out, "4", reset),
        Fields::MigrateStart { at, range, prefetch, preferred, trigger } => {
            encode_migration(out, "5", at, range);
            put!(out, " {prefetch:x}:{preferred:x} {trigger}");
        }
        Fields::MigrateEnd { at, range, trigger, error } => {
            encode_migration(out, "6", at, range);
            put!(out, " {trigger}");
            if let Some(error) = error {
                put!(out, " {error}");
            }
        }
        Fields::PageFaultStart { at, page, node, access } => {
            let access = if access == Access::Read { 'R' } else { 'W' };
            put!(out, "7 {} -{} @{page:x}({node:x}) {access}", at.boot_ns, at.pid);
        }
        Fields::PageFaultEnd { at, page, node, outcome } => {
            let outcome = if outcome == FaultOutcome::Migrated { 'M' } else { 'U' };
            put!(out, "8 {} -{} @{page:x}({node:x}) {outcome}", at.boot_ns, at.pid);
        }
        Fields::QueueEviction { at, node, trigger } => {
            put!(out, "9 {} -{} {node:x} {trigger}", at.boot_ns, at.pid);
        }
        Fields::QueueRestore { at, node, flag } => {
            put!(out, "a {} -{} {node:x}", at.boot_ns, at.pid);
            out.extend_from_slice(match flag {
                RestoreFlag::Absent => b"",
                RestoreFlag::Plain => b" 0",
                RestoreFlag::Rescheduled => b" R",
                RestoreFlag::Nul => b" \0",
            });
        }
        Fields::UnmapFromGpu { at, page, pages, node, trigger } => {
            put!(out, "b {} -{} @{page:x}({pages:x}) {node:x} {trigger}", at.boot_ns, at.pid);
        }
        Fields::ProcessStart(task) => encode_task(out, "c", task, " "),
        Fields::ProcessEnd(task) => encode_task(out, "d", task, " "),
        Fields::Unknown { line, .. } => out.extend_from_slice(line),
    }
}

fn encode_task(out: &mut Vec<u8>, id: &str, task: Task<'_>, separator: &str) {
    put!(out, "{id} {:x}{separator}", task.pid);
    out.extend_from_slice(task.name);
}

fn encode_reset(out: &mut Vec<u8>, id: &str, reset: Reset<'_>) {
    put!(out, "{id} {:x}", reset.sequence);
    if let Some(cause) = reset.cause {
        out.push(b' ');
        out.extend_from_slice(cause);
    }
}

fn encode_migration(out: &mut Vec<u8>, id: &str, at: Stamp, range: Migration) {
    let Migration { page, pages, from, to } = range;
    put!(out, "{id} {} -{} @{page:x}({pages:x}) {from:x}->{to:x}", at.boot_ns, at.pid);
}
