//! Lines of the driver, maybe behind the PCI address of the GPU.
//!
//! ```text
//! 7 1810035809094 -4242 @7fff00000(1b11) W
//! 0000:03:00.0 3 1 job hang on ring:gfx_0.0.0
//! ```
//!
//! Lines with the driver's time are like no other text. Those without one (`c 7 python3`) are like many, so they
//! count only where something shows that the text is the driver's; see [`Kind`].

use gpuev::codec::Fields;
use gpuev::names::reset_cause;
use gpuev::{Bdf, Record, decode};

use super::View;

/// A line of the driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DriverLine<'a> {
    /// The GPU's address, where the text has it.
    pub(super) bdf: Option<Bdf>,
    pub(super) raw: &'a [u8],
    pub(super) kind: Kind,
}

/// How sure it is that a text is the driver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No other program writes that.
    Certain,
    /// It has the shape, and so has `3 2 of 8 done`: if other lines of its writer are certain, so is this one.
    Likely,
    /// It begins like an event of a later kernel.
    Unknown,
    /// It begins like a line of the driver and is none: one that is cut or damaged.
    Damaged,
}

/// The highest number that an event can have: they are bits of a mask of 64 bits, but that some drivers go on
/// counting in a byte.
const LAST_ID: u32 = 0xff;
/// Linux's `TASK_COMM_LEN` without the NUL.
const LONGEST_NAME: usize = 15;
/// Linux's `PID_MAX_LIMIT`.
const LAST_PID: u32 = 1 << 22;

/// What `text` is as a line of the driver, if it looks like one.
pub(super) fn line_of<'v>(view: &'v View<'_>) -> Option<DriverLine<'v>> {
    let text: &[u8] = &view.text;
    let (bdf, raw) = match address(text) {
        Some((bdf, raw)) => (Some(bdf), raw),
        None => (None, text),
    };
    let kind = kind_of(&decode(raw), raw)?;
    let kind = match kind {
        Kind::Likely if bdf.is_some() => Kind::Certain,
        kind => kind,
    };
    Some(DriverLine { bdf, raw, kind })
}

fn kind_of(record: &Record<'_>, raw: &[u8]) -> Option<Kind> {
    let sure = |certain| Some(if certain { Kind::Certain } else { Kind::Likely });
    let is_task =
        |pid: u32, name: &[u8]| (1..=LAST_PID).contains(&pid) && name.len() <= LONGEST_NAME;
    match record.fields {
        Fields::VmFault(task) if is_task(task.pid, task.name) => {
            // "1 12:30 lunch" is a time of day.
            let first = task.name.first().is_some_and(|byte| !byte.is_ascii_digit());
            sure(first && !task.name.contains(&b' '))
        }
        Fields::ProcessStart(task) | Fields::ProcessEnd(task) if is_task(task.pid, task.name) => {
            sure(false)
        }
        Fields::GpuPreReset(reset) | Fields::GpuPostReset(reset) => {
            sure(reset.cause.is_some_and(|cause| reset_cause(cause).is_some()))
        }
        Fields::ThermalThrottle { .. } => sure(false),
        Fields::Unknown { .. } if record.drop_count().is_some() => sure(true),
        Fields::Unknown { .. } => unknown(raw),
        // A later kernel may add fields.
        _ if record.stamp().is_some() && record.tail.split(|&byte| byte == b' ').all(is_field) => {
            sure(true)
        }
        _ => Some(Kind::Damaged),
    }
}

/// A text that begins with the number of an event, and is none that is known.
fn unknown(raw: &[u8]) -> Option<Kind> {
    let (id, rest) = number(raw)?;
    let rest = rest.strip_prefix(b" ")?;
    let follows = rest.split(|&byte| byte == b' ').next().unwrap_or(rest);
    let like_fields = !follows.is_empty() && is_field(follows);
    match id {
        1..=14 => like_fields.then_some(Kind::Damaged),
        15..=LAST_ID => Some(Kind::Unknown),
        _ => None,
    }
}

/// Whether a word is of the characters that the driver's fields have.
fn is_field(word: &[u8]) -> bool {
    let of_field = |byte: &u8| byte.is_ascii_hexdigit() || b":@()->RWMU\0".contains(byte);
    word.iter().all(of_field)
}

/// A number in hex at the front, as the driver writes it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let is_digit = |byte: &&u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(*byte);
    let (digits, rest) = text.split_at(text.iter().take_while(is_digit).count());
    let id = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (digits[0] != b'0').then_some((id, rest))
}

/// A PCI address at the front, and what follows it.
fn address(text: &[u8]) -> Option<(Bdf, &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ')?;
    let (word, rest) = text.split_at(end);
    let word = std::str::from_utf8(word.strip_suffix(b":").unwrap_or(word)).ok()?;
    Some((word.parse().ok()?, rest.trim_ascii_start()))
}
