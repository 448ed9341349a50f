//! Events as the vendor's library words them, for programs that take its messages apart.
//!
//! `KEY: VALUE`, two blanks, `KEY: VALUE`, under the vendor's own keys, misspelt ones included. The values are
//! the driver's: whole, and in pages as the driver has them. What the driver does not say has no key.

use std::fmt::{self, Write};
use std::io;

use gpuev::codec::{Access, FaultOutcome, Fields, Migration, Reset, RestoreFlag, Stamp, Task};
use gpuev::json::write_data;
use gpuev::message::Printable;
use gpuev::{EventData, EventView, Record, decode};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{parsed, text};

/// Between an event's line and what is kept with it: no line holds it.
const REST_FOLLOWS: u8 = b'\n';

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

/// Appends an event's line, and behind it what the line does not say: the process's name, and before it the process's
/// number where the line has a thread's.
pub(crate) fn keep(out: &mut Vec<u8>, event: &EventView<'_>) {
    out.extend_from_slice(event.facts.raw);
    let name = event.facts.comm.bytes();
    let pid = event.record.task().and_then(|_| event.facts.pid_in(&event.record));
    if pid.is_none() && name.is_none() {
        return;
    }
    out.push(REST_FOLLOWS);
    if let Some(pid) = pid {
        // A vector takes everything.
        let _infallible = io::Write::write_fmt(out, format_args!("{pid} "));
    }
    out.extend_from_slice(name.unwrap_or_default());
}

/// The line of an event, and what [`keep`] put behind it.
fn split(kept: &[u8]) -> (&[u8], &[u8]) {
    let end = kept.iter().position(|byte| *byte == REST_FOLLOWS);
    end.map_or((kept, &[]), |end| (&kept[..end], &kept[end + 1..]))
}

/// What an event's line says, typed: `pid`, `process`, `tid` and `thread` where they are known, and what its type has.
#[pyfunction]
pub(crate) fn event_data<'py>(py: Python<'py>, kept: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let (line, rest) = split(kept);
    let record = decode(line);
    let mut json = String::new();
    write_data(&mut json, EventData::of(&record));
    let data = parsed(py, &json)?;
    let shown = |name: &[u8]| (!name.is_empty()).then(|| text(name));
    if let Some(task) = record.task() {
        let (pid, name) = number_and_name(rest);
        data.set_item("pid", pid)?;
        data.set_item("process", shown(name))?;
        data.set_item("tid", task.pid)?;
        data.set_item("thread", shown(task.name))?;
    } else if let Some(stamp) = record.stamp().filter(|stamp| stamp.pid != 0) {
        data.set_item("pid", stamp.pid)?;
        data.set_item("process", shown(rest))?;
    }
    Ok(data)
}

fn number_and_name(rest: &[u8]) -> (Option<u32>, &[u8]) {
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let number = std::str::from_utf8(&rest[..end]).ok().and_then(|digits| digits.parse().ok());
    (number, rest.get(end + 1..).unwrap_or_default())
}

/// The message that the vendor's library has for an event's line.
#[pyfunction]
pub(crate) fn vendor_message(kept: &[u8]) -> String {
    let mut message = String::new();
    write_message(&mut message, &decode(split(kept).0));
    message
}
