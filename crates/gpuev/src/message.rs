//! Events in words, for people, and the escaping that makes names fit to be shown.

use std::fmt::{self, Write};

use gpuev_kfd::{Access, EventType, FaultOutcome, names};

use crate::event::{EventData, Migration, thread_of, tid_of};
use crate::view::EventView;

/// Bytes as text: valid UTF-8 stays, a backslash and all else become `\xNN`, so that the bytes can be had
/// back. Control characters stay: use [`Printable`] for a terminal.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, |_| false)
    }
}

/// As [`Escaped`], with control characters escaped too: nothing in a name can move a terminal's cursor.
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, hidden)
    }
}

/// Characters that a terminal obeys or hides rather than shows: controls, marks that turn the text's direction, separators,
/// blanks that look like nothing or like a blank, and what no font has. That is what Rust's `escape_debug` escapes: Unicode's
/// classes Cc, Cf, Cn, Co, Zl, Zp, and Zs but for the blank itself.
pub(crate) fn hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_control();
    }
    // Behind a letter, so that an accent, which joins it, is none.
    let mut text = [b'a'; 5];
    let length = character.encode_utf8(&mut text[1..]).len();
    let text = std::str::from_utf8(&text[..=length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some('\\')
}

/// Whether `byte` is a printable ASCII character that no escaping touches: nearly all that the driver writes
/// is.
pub(crate) fn shown_as_is(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn write_escaped(out: &mut impl Write, bytes: &[u8], hide: fn(char) -> bool) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        write_text(out, chunk.valid(), hide)?;
        write_escape(out, chunk.invalid())?;
    }
    Ok(())
}

fn write_text(out: &mut impl Write, text: &str, hide: fn(char) -> bool) -> fmt::Result {
    if text.bytes().all(shown_as_is) {
        return out.write_str(text);
    }
    for character in text.chars() {
        if character == '\\' || hide(character) {
            let mut encoded = [0; 4];
            write_escape(out, character.encode_utf8(&mut encoded).as_bytes())?;
        } else {
            out.write_char(character)?;
        }
    }
    Ok(())
}

fn write_escape(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))
}

/// The bytes that [`Escaped`] or [`Printable`] wrote as `text`.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.strip_prefix(b"x").and_then(|digits| hex_byte(digits.get(..2)?));
        match escaped {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 16).ok()
}

/// The digits of `number`, in base 10 or 16: a message is written for every event of a busy stream, and
/// `write!` takes several times as long for a number.
fn write_digits<const BASE: u64>(out: &mut impl Write, mut number: u64) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // `u64::MAX` has twenty.
    let mut text = [0; 20];
    let mut first = text.len();
    loop {
        first -= 1;
        text[first] = DIGITS[usize::try_from(number % BASE).unwrap_or(0)];
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    out.write_str(std::str::from_utf8(&text[first..]).unwrap_or_default())
}

/// ` at 0x7fff00000000`.
fn write_address(out: &mut impl Write, address: u64) -> fmt::Result {
    out.write_str(" at 0x")?;
    write_digits::<16>(out, address)
}

/// Which memory a KFD id means.
fn write_place(out: &mut impl Write, node: u32) -> fmt::Result {
    if node == 0 {
        return out.write_str("system memory");
    }
    out.write_str("GPU 0x")?;
    write_digits::<16>(out, node.into())
}

/// `2.0 MiB`.
#[allow(clippy::cast_precision_loss)] // shown with one digit
fn write_size(out: &mut impl Write, size: u64) -> fmt::Result {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in UNITS {
        if size >> shift > 0 {
            return write!(out, "{:.1} {unit}", size as f64 / (1_u64 << shift) as f64);
        }
    }
    write!(out, "{size} bytes")
}

/// ` (pagefault_gpu)`: a trigger's name, or its number where it has none.
fn write_trigger(
    out: &mut impl Write,
    name: fn(i32) -> Option<&'static str>,
    trigger: i32,
) -> fmt::Result {
    match name(trigger) {
        Some(name) => write_all(out, [" (", name, ")"]),
        None => write!(out, " (trigger {trigger})"),
    }
}

/// The names of the throttlers in `mask`.
fn write_throttlers(out: &mut impl Write, mask: u64) -> fmt::Result {
    let mut separator = "";
    for name in names::throttlers(mask) {
        write_all(out, [separator, name])?;
        separator = ", ";
    }
    match (names::unnamed_throttlers(mask), separator) {
        (0, "") => out.write_str("no reason given"),
        (0, _) => Ok(()),
        (bits, _) => write!(out, "{separator}mask {bits:#x}"),
    }
}

fn write_all<const N: usize>(out: &mut impl Write, pieces: [&str; N]) -> fmt::Result {
    pieces.into_iter().try_for_each(|piece| out.write_str(piece))
}

/// An event in one line. Its line was taken apart before.
pub(crate) struct EventMessage<'a>(pub(crate) EventView<'a>);

impl fmt::Display for EventMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_message(f, &self.0)
    }
}

/// Appends what [`Event::message`](crate::Event::message) says. To a `String` it is several times as fast as
/// by `write!`.
pub(crate) fn write_message(out: &mut impl Write, view: &EventView<'_>) -> fmt::Result {
    let data = EventData::of(&view.record);
    write_data(out, view.facts.raw, data)?;
    if !matches!(data, EventData::Unknown { .. }) {
        write_by(out, view)?;
    }
    if let EventData::MigrateEnd { error: Some(error), .. } = data
        && error != 0
    {
        // An errno is negative; a positive number was seen too and can only be the same.
        let error = std::io::Error::from_raw_os_error(error.saturating_abs());
        write!(out, ": failed, {error}")?;
    }
    if view.facts.doubtful {
        out.write_str(" [doubtful: a task name may have forged it]")?;
    }
    Ok(())
}

/// ` by pid 4242 (python3)`, ` by pid 4242 (python3), thread 4250 (worker)` where the line names a thread that is
/// not the process's first, ` by thread 4250 (worker)` where only that is known, or nothing.
fn write_by(out: &mut impl Write, view: &EventView<'_>) -> fmt::Result {
    let (pid, tid) = (view.facts.pid_in(&view.record), tid_of(&view.record));
    let process = view.facts.process_in(&view.record);
    if let Some(pid) = pid {
        write_numbered(out, " by pid ", pid, process)?;
    }
    let Some(tid) = tid else { return Ok(()) };
    let thread = thread_of(&view.record);
    match pid {
        None => write_numbered(out, " by thread ", tid, thread),
        Some(pid) if pid != tid || thread != process => {
            write_numbered(out, ", thread ", tid, thread)
        }
        Some(_) => Ok(()),
    }
}

/// ` by pid 4242 (python3)`.
fn write_numbered(
    out: &mut impl Write,
    what: &str,
    number: u32,
    name: Option<&[u8]>,
) -> fmt::Result {
    out.write_str(what)?;
    write_digits::<10>(out, number.into())?;
    let Some(name) = name else { return Ok(()) };
    out.write_str(" (")?;
    write_escaped(out, name, hidden)?;
    out.write_str(")")
}

fn write_data(out: &mut impl Write, line: &[u8], data: EventData<'_>) -> fmt::Result {
    match data {
        EventData::VmFault => out.write_str("memory fault"),
        EventData::ThermalThrottle { throttlers, count } => {
            out.write_str("throttling: ")?;
            write_throttlers(out, throttlers)?;
            out.write_str(" (throttled ")?;
            write_digits::<10>(out, count)?;
            out.write_str(" times since the driver was loaded)")
        }
        EventData::PreReset { sequence, cause } => write_reset(out, sequence, " begins", cause),
        EventData::PostReset { sequence, cause } => write_reset(out, sequence, " is over", cause),
        EventData::MigrateStart { migration, .. } => write_migration(out, "migration: ", migration),
        EventData::MigrateEnd { migration, .. } => write_migration(out, "migrated: ", migration),
        EventData::PageFaultStart { address, access, .. } => {
            let access = if access == Access::Write { "write" } else { "read" };
            write_all(out, ["page fault: ", access])?;
            write_address(out, address)
        }
        EventData::PageFaultEnd { address, outcome, .. } => {
            let outcome = if outcome == FaultOutcome::Migrated { "migrated" } else { "mapped" };
            write_all(out, ["page fault resolved: ", outcome])?;
            write_address(out, address)
        }
        EventData::QueueEviction { trigger, .. } => {
            out.write_str("queues evicted")?;
            write_trigger(out, names::eviction_trigger, trigger)
        }
        EventData::QueueRestore { rescheduled: true, .. } => {
            out.write_str("queue restore rescheduled")
        }
        EventData::QueueRestore { .. } => out.write_str("queues restored"),
        EventData::UnmapFromGpu { address, size, trigger, .. } => {
            out.write_str("unmapped ")?;
            write_size(out, size)?;
            write_address(out, address)?;
            write_trigger(out, names::unmap_trigger, trigger)
        }
        EventData::ProcessStart => out.write_str("GPU process started"),
        EventData::ProcessEnd => out.write_str("GPU process ended"),
        EventData::Unknown { id: Some(id) } if EventType::from_id(id).is_none() => {
            write!(out, "unknown event {id}: {}", Printable(line))?;
            write_drop_count(out, line)
        }
        EventData::Unknown { .. } => {
            write!(out, "malformed line: {}", Printable(line))?;
            write_drop_count(out, line)
        }
    }
}

/// What a line of no known type may say.
fn write_drop_count(out: &mut impl Write, line: &[u8]) -> fmt::Result {
    match gpuev_kfd::decode(line).drop_count() {
        Some(_) => out.write_str(" (the driver may tell that it dropped events)"),
        None => Ok(()),
    }
}

fn write_reset(
    out: &mut impl Write,
    sequence: u32,
    what: &str,
    cause: Option<&[u8]>,
) -> fmt::Result {
    out.write_str("GPU reset ")?;
    write_digits::<10>(out, sequence.into())?;
    out.write_str(what)?;
    let Some(cause) = cause else { return Ok(()) };
    out.write_str(": ")?;
    write_escaped(out, cause, hidden)
}

fn write_migration(out: &mut impl Write, what: &str, migration: Migration) -> fmt::Result {
    let Migration { address, size, from, to, trigger } = migration;
    out.write_str(what)?;
    write_size(out, size)?;
    write_address(out, address)?;
    out.write_str(" from ")?;
    write_place(out, from)?;
    out.write_str(" to ")?;
    write_place(out, to)?;
    write_trigger(out, names::migrate_trigger, trigger)
}
