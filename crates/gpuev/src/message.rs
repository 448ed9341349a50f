//! Events in words, for people, and the escaping that makes names fit to be shown.

use std::fmt::{self, Write};

use gpuev_kfd::{Access, EventType, FaultOutcome, Record, names};

use crate::event::{Event, EventData, Migration, pid_of};

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

/// Characters that a terminal obeys rather than shows: controls, and marks that turn the text's direction.
pub(crate) fn hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether `byte` is a printable ASCII character that no escaping touches: nearly all that the driver writes
/// is.
pub(crate) fn shown_as_is(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn write_escaped(out: &mut impl Write, bytes: &[u8], hide: fn(char) -> bool) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        write_text(out, chunk.valid(), hide)?;
        write_hex(out, chunk.invalid())?;
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
            write_hex(out, character.encode_utf8(&mut encoded).as_bytes())?;
        } else {
            out.write_char(character)?;
        }
    }
    Ok(())
}

fn write_hex(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
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

/// Which memory a KFD id means.
struct Place(u32);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("system memory"),
            node => write!(f, "GPU {node:#x}"),
        }
    }
}

/// `2.0 MiB`.
struct Size(u64);

impl fmt::Display for Size {
    #[allow(clippy::cast_precision_loss)] // shown with one digit
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 >> shift > 0 {
                return write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

/// A trigger's name, or its number where it has none.
struct Trigger(Option<&'static str>, i32);

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => f.write_str(name),
            None => write!(f, "trigger {}", self.1),
        }
    }
}

/// The names of the throttlers in a mask.
struct Throttlers(u64);

impl fmt::Display for Throttlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for name in names::throttlers(self.0) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        match (names::unnamed_throttlers(self.0), separator) {
            (0, "") => f.write_str("no reason given"),
            (0, _) => Ok(()),
            (bits, _) => write!(f, "{separator}mask {bits:#x}"),
        }
    }
}

/// ` by pid 4242 (python3)`, or nothing.
struct By<'a> {
    pid: Option<u32>,
    process: Option<&'a [u8]>,
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return Ok(()) };
        write!(f, " by pid {pid}")?;
        self.process.map_or(Ok(()), |name| write!(f, " ({})", Printable(name)))
    }
}

/// An event in one line. Its line was taken apart before: this is written for every event of a busy stream.
pub(crate) struct EventMessage<'a> {
    pub(crate) event: &'a Event,
    /// What the event's line decodes to.
    pub(crate) record: Record<'a>,
}

impl fmt::Display for EventMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, record } = self;
        let by = By { pid: pid_of(record), process: event.process_in(record) };
        write_data(f, event, EventData::of(record), &by)?;
        if event.doubtful {
            f.write_str(" [doubtful: a task name may have forged it]")
        } else {
            Ok(())
        }
    }
}

fn write_data(
    f: &mut fmt::Formatter<'_>,
    event: &Event,
    data: EventData<'_>,
    by: &By<'_>,
) -> fmt::Result {
    match data {
        EventData::VmFault => write!(f, "memory fault{by}"),
        EventData::ThermalThrottle { throttlers, count } => {
            write!(
                f,
                "throttling: {} (throttled {count} times since the driver was loaded)",
                Throttlers(throttlers)
            )
        }
        EventData::PreReset { sequence, cause } => write_reset(f, sequence, "begins", cause),
        EventData::PostReset { sequence, cause } => write_reset(f, sequence, "is over", cause),
        EventData::MigrateStart { migration, .. } => write_migration(f, "migration", migration, by),
        EventData::MigrateEnd { migration, error } => {
            write_migration(f, "migrated", migration, by)?;
            match error {
                None | Some(0) => Ok(()),
                Some(error) => write!(
                    f,
                    ": failed, {}",
                    std::io::Error::from_raw_os_error(error.saturating_neg())
                ),
            }
        }
        EventData::PageFaultStart { address, access, .. } => {
            let access = if access == Access::Write { "write" } else { "read" };
            write!(f, "page fault: {access} at {address:#x}{by}")
        }
        EventData::PageFaultEnd { address, outcome, .. } => {
            let outcome = if outcome == FaultOutcome::Migrated { "migrated" } else { "mapped" };
            write!(f, "page fault resolved: {outcome} at {address:#x}{by}")
        }
        EventData::QueueEviction { trigger, .. } => {
            write!(f, "queues evicted ({}){by}", Trigger(names::eviction_trigger(trigger), trigger))
        }
        EventData::QueueRestore { rescheduled: true, .. } => {
            write!(f, "queue restore rescheduled{by}")
        }
        EventData::QueueRestore { .. } => write!(f, "queues restored{by}"),
        EventData::UnmapFromGpu { address, size, trigger, .. } => {
            let trigger = Trigger(names::unmap_trigger(trigger), trigger);
            write!(f, "unmapped {} at {address:#x} ({trigger}){by}", Size(size))
        }
        EventData::ProcessStart => write!(f, "GPU process started{by}"),
        EventData::ProcessEnd => write!(f, "GPU process ended{by}"),
        EventData::Unknown { id: Some(id) } if EventType::from_id(id).is_none() => {
            write!(f, "unknown event {id}: {}", Printable(event.raw()))
        }
        EventData::Unknown { .. } => write!(f, "malformed line: {}", Printable(event.raw())),
    }
}

fn write_reset(
    f: &mut fmt::Formatter<'_>,
    sequence: u32,
    what: &str,
    cause: Option<&[u8]>,
) -> fmt::Result {
    write!(f, "GPU reset {sequence} {what}")?;
    cause.map_or(Ok(()), |cause| write!(f, ": {}", Printable(cause)))
}

fn write_migration(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    migration: Migration,
    by: &By<'_>,
) -> fmt::Result {
    let Migration { address, size, from, to, trigger } = migration;
    let trigger = Trigger(names::migrate_trigger(trigger), trigger);
    write!(
        f,
        "{what}: {} at {address:#x} from {} to {} ({trigger}){by}",
        Size(size),
        Place(from),
        Place(to)
    )
}
