//! Events as the vendor's library words them, for programs that take its messages apart.
//!
//! `KEY: VALUE`, two blanks, `KEY: VALUE`, under the vendor's own keys, misspelt ones included. The values are
//! the driver's: whole, and in pages as the driver has them. What the driver does not say has no key.

use std::fmt::{self, Write};

use gpuev::codec::{Access, FaultOutcome, Fields, Migration, Reset, RestoreFlag, Stamp, Task};
use gpuev::json::write_data;
use gpuev::message::Printable;
use gpuev::{EventData, Record, decode, pid_of};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{parsed, text};

/// Between an event's line and the name of its process, where it is kept: no line holds it.
pub(crate) const NAME_FOLLOWS: u8 = b'\n';

/// Appends the message that the vendor's library has for `record`.
pub(crate) fn write_message(out: &mut String, record: &Record<'_>) {
    // Nothing is written but into a string.
    let _infallible = write(out, record);
}

fn write(out: &mut String, record: &Record<'_>) -> fmt::Result {
    match record.fields {
        Fields::VmFault(task) => write_task(out, task, "task name"),
        Fields::ProcessStart(task) | Fields::ProcessEnd(task) => write_task(out, task, "task"),
        Fields::ThermalThrottle { throttlers, count } => {
            write!(out, "bitmask: {throttlers:#x}  counter: {count:#x}")
        }
        Fields::GpuPreReset(reset) => write_reset(out, reset),
        Fields::GpuPostReset(reset) => write!(out, "reset sequence number: {}", reset.sequence),
        Fields::MigrateStart { at, range, prefetch, preferred, trigger } => {
            write_migration(out, at, range)?;
            write!(out, "  prefetch_loc: {prefetch:#x}  preferred_loc: {preferred:#x}")?;
            write!(out, "  migrate_trigger: {trigger}")
        }
        Fields::MigrateEnd { at, range, trigger, error } => {
            write_migration(out, at, range)?;
            write!(out, "  migrate_trigger: {trigger}")?;
            error.map_or(Ok(()), |error| write!(out, "  error_code: {error}"))
        }
        _ => write_of_memory(out, record),
    }
}

fn write_of_memory(out: &mut String, record: &Record<'_>) -> fmt::Result {
    match record.fields {
        Fields::PageFaultStart { at, page, node, access } => {
            write_stamp(out, "ns", at)?;
            let access = if access == Access::Read { 'R' } else { 'W' };
            write!(out, "  addr: {page:#x}  node: {node:#x}  rw: {access}")
        }
        Fields::PageFaultEnd { at, page, node, outcome } => {
            write_stamp(out, "ns", at)?;
            let outcome = if outcome == FaultOutcome::Migrated { 'M' } else { 'U' };
            write!(out, "  addr: {page:#x}  node: {node:#x}  migrate_udpate: {outcome}")
        }
        Fields::QueueEviction { at, node, trigger } => {
            write_stamp(out, "ns", at)?;
            write!(out, "  node: {node:#x}  evict_trigger: {trigger}")
        }
        Fields::QueueRestore { at, node, flag } => {
            write_stamp(out, "ns", at)?;
            let again = if flag == RestoreFlag::Rescheduled { 'R' } else { '0' };
            write!(out, "  node: {node:#x}  rescheduled: {again}")
        }
        Fields::UnmapFromGpu { at, page, pages, node, trigger } => {
            write_stamp(out, "ns", at)?;
            write!(out, "  addr: {page:#x}  size: {pages:#x}  node: {node:#x}")?;
            write!(out, "  unmap_trigger: {trigger}")
        }
        _ => Ok(()),
    }
}

fn write_stamp(out: &mut String, key: &str, at: Stamp) -> fmt::Result {
    write!(out, "{key}: {}  pid: {}", at.boot_ns, at.pid)
}

fn write_migration(out: &mut String, at: Stamp, range: Migration) -> fmt::Result {
    write_stamp(out, "nd", at)?;
    let Migration { page, pages, from, to } = range;
    write!(out, "  start: {page:#x}  size: {pages:#x}  from: {from:#x}  to: {to:#x}")
}

fn write_task(out: &mut String, task: Task<'_>, key: &str) -> fmt::Result {
    write!(out, "PID: {}  {key}: ", task.pid)?;
    write_free(out, task.name)
}

fn write_reset(out: &mut String, reset: Reset<'_>) -> fmt::Result {
    write!(out, "reset sequence number: {}", reset.sequence)?;
    let Some(cause) = reset.cause else { return Ok(()) };
    out.push_str("  reset cause: ");
    write_free(out, cause)
}

/// Text from outside, behind the blank that follows a key: a blank behind another is escaped, so that it does not end
/// the value.
fn write_free(out: &mut String, bytes: &[u8]) -> fmt::Result {
    let begin = out.len() - 1;
    write!(out, "{}", Printable(bytes))?;
    while let Some(at) = out[begin..].find("  ") {
        out.replace_range(begin + at + 1..begin + at + 2, "\\x20");
    }
    Ok(())
}

/// The line of an event, without the name that may follow, and that name.
fn split(kept: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = kept.splitn(2, |byte| *byte == NAME_FOLLOWS);
    (parts.next().unwrap_or_default(), parts.next())
}

/// What an event's line says, typed: `pid`, `process` and what its type has.
#[pyfunction]
pub(crate) fn event_data<'py>(py: Python<'py>, kept: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let (line, name) = split(kept);
    let record = decode(line);
    let mut json = String::new();
    write_data(&mut json, EventData::of(&record));
    let data = parsed(py, &json)?;
    if let Some(pid) = pid_of(&record) {
        let name = record.task().map(|task| task.name).or(name).filter(|name| !name.is_empty());
        data.set_item("pid", pid)?;
        data.set_item("process", name.map(text))?;
    }
    Ok(data)
}

/// The message that the vendor's library has for an event's line.
#[pyfunction]
pub(crate) fn vendor_message(kept: &[u8]) -> String {
    let mut message = String::new();
    write_message(&mut message, &decode(split(kept).0));
    message
}
