//! A line of the driver as a [`Record`] and back.
//!
//! The grammar is that of the `KFD_EVENT_FMT_*` macros of `kfd_ioctl.h`, in every variant that Linux 5.8
//! to 7.3 writes: `id` in hex, a blank, the fields. Numbers are accepted only as the kernel prints them
//! (lower case, no leading zeros), so that encoding a record gives back its line to the byte. What follows
//! the last known field is kept as [`Record::tail`]: a later kernel may add fields. Any other line is
//! [`Fields::Unknown`]. Decoding cannot fail.
//!
//! Addresses and sizes are in the driver's pages of 4 KiB here; times in nanoseconds of `CLOCK_BOOTTIME`.

mod encode;

use crate::EventType;
use crate::framing::MESSAGE_SIZE;

/// One message of the driver, borrowed from the line it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record<'a> {
    /// What the driver says.
    pub fields: Fields<'a>,
    /// What stands behind the last known field, the separating blank or NUL included. Empty so far on
    /// every genuine kernel.
    pub tail: &'a [u8],
}

/// The fields of a message, by event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fields<'a> {
    /// `1 PID:NAME`.
    VmFault(Task<'a>),
    /// `2 THROTTLERS:COUNT`.
    ThermalThrottle {
        /// Why: `SMU_THROTTLER_*` bits, see [`crate::names::throttlers`].
        throttlers: u64,
        /// Throttle interrupts since the driver was loaded, those that gave no event included.
        count: u64,
    },
    /// `3 SEQUENCE[ CAUSE]`.
    GpuPreReset(Reset<'a>),
    /// `4 SEQUENCE[ CAUSE]`.
    GpuPostReset(Reset<'a>),
    /// `5 NS -PID @START(PAGES) FROM->TO PREFETCH:PREFERRED TRIGGER`.
    MigrateStart {
        /// When and whose.
        at: Stamp,
        /// What moves where.
        range: Migration,
        /// The range's prefetch location, a KFD GPU id; `0` is system memory, `ffffffff` undefined.
        prefetch: u32,
        /// The range's preferred location, likewise.
        preferred: u32,
        /// Why, see [`crate::names::migrate_trigger`].
        trigger: i32,
    },
    /// `6 NS -PID @START(PAGES) FROM->TO TRIGGER[ ERROR]`.
    MigrateEnd {
        /// When and whose.
        at: Stamp,
        /// What moved where.
        range: Migration,
        /// Why, see [`crate::names::migrate_trigger`].
        trigger: i32,
        /// `0` or a negative errno; absent before Linux 6.13, where a failed migration had no end at all.
        error: Option<i32>,
    },
    /// `7 NS -PID @PAGE(NODE) R|W`.
    PageFaultStart {
        /// When and whose.
        at: Stamp,
        /// The page that faulted.
        page: u64,
        /// KFD's id of the GPU that faulted.
        node: u32,
        /// Read or write.
        access: Access,
    },
    /// `8 NS -PID @PAGE(NODE) M|U`.
    PageFaultEnd {
        /// When and whose.
        at: Stamp,
        /// The page that faulted.
        page: u64,
        /// KFD's id of the GPU that faulted.
        node: u32,
        /// How it was resolved.
        outcome: FaultOutcome,
    },
    /// `9 NS -PID NODE TRIGGER`.
    QueueEviction {
        /// When and whose.
        at: Stamp,
        /// KFD's id of the GPU.
        node: u32,
        /// Why, see [`crate::names::eviction_trigger`].
        trigger: i32,
    },
    /// `a NS -PID NODE[ 0|R|NUL]`.
    QueueRestore {
        /// When and whose.
        at: Stamp,
        /// KFD's id of the GPU.
        node: u32,
        /// What stands at the end.
        flag: RestoreFlag,
    },
    /// `b NS -PID @START(PAGES) NODE TRIGGER`.
    UnmapFromGpu {
        /// When and whose.
        at: Stamp,
        /// First page.
        page: u64,
        /// How many pages.
        pages: u64,
        /// KFD's id of the GPU.
        node: u32,
        /// Why, see [`crate::names::unmap_trigger`].
        trigger: i32,
    },
    /// `c PID NAME`.
    ProcessStart(Task<'a>),
    /// `d PID NAME`.
    ProcessEnd(Task<'a>),
    /// An event of a later kernel, or a line that no kernel writes.
    Unknown {
        /// The event's number, where the line begins with one.
        id: Option<u32>,
        /// The whole line.
        line: &'a [u8],
    },
}

/// The process that a message without a time names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Task<'a> {
    /// Thread group id; whose numbering, depends on the kernel.
    pub pid: u32,
    /// The command name: up to 15 bytes of any value but NUL.
    pub name: &'a [u8],
}

/// A reset's number and cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reset<'a> {
    /// Counts the resets of this GPU; PRE adds one, POST repeats it.
    pub sequence: u32,
    /// Why; absent before Linux 6.11, empty where the driver was given none.
    pub cause: Option<&'a [u8]>,
}

/// When something happened and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Nanoseconds of `CLOCK_BOOTTIME`, taken by the driver.
    pub boot_ns: u64,
    /// Thread group id; 0 for none.
    pub pid: u32,
}

/// What may be a driver's count of the events that it dropped: see [`Record::drop_count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DropCount {
    /// The event's number.
    pub id: u32,
    /// When the driver says so, and to whom.
    pub at: Stamp,
    /// How many messages found the FIFO full.
    pub count: u32,
}

/// A range of pages and its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Migration {
    /// First page.
    pub page: u64,
    /// How many pages.
    pub pages: u64,
    /// KFD's id of the GPU it comes from; 0 is system memory.
    pub from: u32,
    /// KFD's id of the GPU it goes to; 0 is system memory.
    pub to: u32,
}

/// What the faulting instruction wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `R`.
    Read,
    /// `W`.
    Write,
}

/// How a page fault was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultOutcome {
    /// `M`: the page was moved.
    Migrated,
    /// `U`: the GPU's page table was updated, the page stayed.
    Mapped,
}

/// What stands at the end of `QUEUE_RESTORE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreFlag {
    /// Nothing: a plain restore, before Linux 6.12.
    Absent,
    /// `0`: a plain restore.
    Plain,
    /// `R`: the restore failed and was scheduled again.
    Rescheduled,
    /// A NUL byte: a plain restore of Linux 6.12.0 to 6.12.63 and 6.13 to 6.18.
    Nul,
}

/// Decodes one line, without its newline. One that is too long for the driver's buffer was cut by the
/// driver and is [`Fields::Unknown`].
#[must_use]
pub fn decode(line: &[u8]) -> Record<'_> {
    let mut cursor = Cursor { rest: line };
    let Some(id) = cursor.hex_u32() else { return unknown(None, line) };
    if line.len() >= MESSAGE_SIZE - 1 {
        // It did not fit the driver's buffer: its last field may be the front of a longer number.
        return unknown(Some(id), line);
    }
    let after_id = cursor.rest;
    if !cursor.skip(b' ') {
        let id = after_id.is_empty().then_some(id);
        return unknown(id, line);
    }
    let fields = match id {
        1 => cursor.vm_fault(),
        2 => cursor.thermal_throttle(),
        3 => cursor.reset_after_blank().map(Fields::GpuPreReset),
        4 => cursor.reset_after_blank().map(Fields::GpuPostReset),
        5 => cursor.migrate_start(),
        6 => cursor.migrate_end(),
        7 => cursor.page_fault_start(),
        8 => cursor.page_fault_end(),
        9 => cursor.queue_eviction(),
        10 => cursor.queue_restore(),
        11 => cursor.unmap_from_gpu(),
        12 => cursor.task(b" ").map(Fields::ProcessStart),
        13 => cursor.task(b" ").map(Fields::ProcessEnd),
        _ => None,
    };
    match fields {
        Some(fields) if cursor.at_field_end() => Record { fields, tail: cursor.rest },
        _ => unknown(Some(id), line),
    }
}

fn unknown(id: Option<u32>, line: &[u8]) -> Record<'_> {
    Record { fields: Fields::Unknown { id, line }, tail: b"" }
}

impl<'a> Record<'a> {
    /// The event's type; `None` for unknown lines.
    #[must_use]
    pub fn event_type(&self) -> Option<EventType> {
        Some(match self.fields {
            Fields::VmFault(_) => EventType::VmFault,
            Fields::ThermalThrottle { .. } => EventType::ThermalThrottle,
            Fields::GpuPreReset(_) => EventType::GpuPreReset,
            Fields::GpuPostReset(_) => EventType::GpuPostReset,
            Fields::MigrateStart { .. } => EventType::MigrateStart,
            Fields::MigrateEnd { .. } => EventType::MigrateEnd,
            Fields::PageFaultStart { .. } => EventType::PageFaultStart,
            Fields::PageFaultEnd { .. } => EventType::PageFaultEnd,
            Fields::QueueEviction { .. } => EventType::QueueEviction,
            Fields::QueueRestore { .. } => EventType::QueueRestore,
            Fields::UnmapFromGpu { .. } => EventType::UnmapFromGpu,
            Fields::ProcessStart(_) => EventType::ProcessStart,
            Fields::ProcessEnd(_) => EventType::ProcessEnd,
            Fields::Unknown { .. } => return None,
        })
    }

    /// The driver's own time and process, where the message carries them.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        match self.fields {
            Fields::MigrateStart { at, .. }
            | Fields::MigrateEnd { at, .. }
            | Fields::PageFaultStart { at, .. }
            | Fields::PageFaultEnd { at, .. }
            | Fields::QueueEviction { at, .. }
            | Fields::QueueRestore { at, .. }
            | Fields::UnmapFromGpu { at, .. } => Some(at),
            _ => None,
        }
    }

    /// `ID NS -PID COUNT`, where no known event has that shape: so drivers have told how many events they dropped, a
    /// patch of 2024 as number 12, AMD's own driver's header as number 14. No released kernel is known to, and a patch
    /// of 2026 has another event in this shape under number 14: the line alone cannot tell.
    #[must_use]
    pub fn drop_count(&self) -> Option<DropCount> {
        let Fields::Unknown { id: Some(id @ FIRST_FREE_ID..), line } = self.fields else {
            return None;
        };
        let mut cursor = Cursor { rest: line };
        cursor.hex_u32()?;
        cursor.expect(b" ")?;
        let at = cursor.stamp()?;
        let count = u32::try_from(cursor.decimal()?).ok()?;
        cursor.rest.is_empty().then_some(DropCount { id, at, count })
    }

    /// The process and its name, where the message carries both.
    #[must_use]
    pub fn task(&self) -> Option<Task<'a>> {
        match self.fields {
            Fields::VmFault(task) | Fields::ProcessStart(task) | Fields::ProcessEnd(task) => {
                Some(task)
            }
            _ => None,
        }
    }
}

/// Up to the number before it, Linux 5.8 to 7.3 agree on what a line says.
const FIRST_FREE_ID: u32 = 12;
/// `PID_MAX_LIMIT`: no process of any kernel has a larger number.
const LARGEST_PID: u32 = 1 << 22;

fn is_pid(number: &u32) -> bool {
    *number <= LARGEST_PID
}

/// The value of a lower-case hex digit; 255 for any other byte.
const HEX_DIGITS: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// The number that eight decimal digits make, pairs first, then fours, then all; `None` where one is no digit.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let digits = u64::from_le_bytes(text) ^ u64::from_le_bytes([b'0'; 8]);
    // A byte above 9 has its high bit set, now or once 0x76 is added.
    let no_digit = digits | digits.wrapping_add(0x7676_7676_7676_7676);
    if no_digit & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

/// The rest of a line. Each method takes its field off the front, or gives `None` where it is not there.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn vm_fault(&mut self) -> Option<Fields<'a>> {
        self.task(b":").map(Fields::VmFault)
    }

    /// `PID:NAME` or `PID NAME`. A larger number is no pid: another event once had the number 12, and its time here.
    fn task(&mut self, between: &[u8; 1]) -> Option<Task<'a>> {
        let pid = self.hex_u32().filter(is_pid)?;
        self.expect(between)?;
        Some(Task { pid, name: self.take_rest() })
    }

    fn thermal_throttle(&mut self) -> Option<Fields<'a>> {
        let throttlers = self.hex()?;
        self.expect(b":")?;
        Some(Fields::ThermalThrottle { throttlers, count: self.hex()? })
    }

    fn reset_after_blank(&mut self) -> Option<Reset<'a>> {
        let sequence = self.hex_u32()?;
        let cause = self.skip(b' ').then(|| self.take_rest());
        Some(Reset { sequence, cause })
    }

    fn migrate_start(&mut self) -> Option<Fields<'a>> {
        let (at, range) = self.migration()?;
        let prefetch = self.hex_u32()?;
        self.expect(b":")?;
        let preferred = self.hex_u32()?;
        let trigger = self.blank_signed()?;
        Some(Fields::MigrateStart { at, range, prefetch, preferred, trigger })
    }

    fn migrate_end(&mut self) -> Option<Fields<'a>> {
        let (at, range) = self.migration()?;
        let trigger = self.signed()?;
        let before_error = self.rest;
        let error = self.blank_signed();
        if error.is_none() || !self.at_field_end() {
            self.rest = before_error;
            return Some(Fields::MigrateEnd { at, range, trigger, error: None });
        }
        Some(Fields::MigrateEnd { at, range, trigger, error })
    }

    fn page_fault_start(&mut self) -> Option<Fields<'a>> {
        let (at, page, node) = self.page_fault()?;
        let access = match self.byte()? {
            b'R' => Access::Read,
            b'W' => Access::Write,
            _ => return None,
        };
        Some(Fields::PageFaultStart { at, page, node, access })
    }

    fn page_fault_end(&mut self) -> Option<Fields<'a>> {
        let (at, page, node) = self.page_fault()?;
        let outcome = match self.byte()? {
            b'M' => FaultOutcome::Migrated,
            b'U' => FaultOutcome::Mapped,
            _ => return None,
        };
        Some(Fields::PageFaultEnd { at, page, node, outcome })
    }

    fn queue_eviction(&mut self) -> Option<Fields<'a>> {
        let at = self.stamp()?;
        let node = self.hex_u32()?;
        Some(Fields::QueueEviction { at, node, trigger: self.blank_signed()? })
    }

    fn queue_restore(&mut self) -> Option<Fields<'a>> {
        let at = self.stamp()?;
        let node = self.hex_u32()?;
        let flag = match self.rest {
            [b' ', b'0', ..] => RestoreFlag::Plain,
            [b' ', b'R', ..] => RestoreFlag::Rescheduled,
            [b' ', 0, ..] => RestoreFlag::Nul,
            _ => RestoreFlag::Absent,
        };
        if flag != RestoreFlag::Absent {
            self.rest = &self.rest[2..];
        }
        Some(Fields::QueueRestore { at, node, flag })
    }

    fn unmap_from_gpu(&mut self) -> Option<Fields<'a>> {
        let at = self.stamp()?;
        let (page, pages) = self.range()?;
        self.expect(b" ")?;
        let node = self.hex_u32()?;
        let trigger = self.blank_signed()?;
        Some(Fields::UnmapFromGpu { at, page, pages, node, trigger })
    }

    /// `NS -PID @START(PAGES) FROM->TO `.
    fn migration(&mut self) -> Option<(Stamp, Migration)> {
        let at = self.stamp()?;
        let (page, pages) = self.range()?;
        self.expect(b" ")?;
        let from = self.hex_u32()?;
        self.expect(b"->")?;
        let to = self.hex_u32()?;
        self.expect(b" ")?;
        Some((at, Migration { page, pages, from, to }))
    }

    /// `NS -PID @PAGE(NODE) `.
    fn page_fault(&mut self) -> Option<(Stamp, u64, u32)> {
        let at = self.stamp()?;
        let (page, node) = self.range()?;
        self.expect(b" ")?;
        Some((at, page, u32::try_from(node).ok()?))
    }

    /// `NS -PID `.
    fn stamp(&mut self) -> Option<Stamp> {
        let boot_ns = self.decimal()?;
        self.expect(b" -")?;
        let pid = u32::try_from(self.decimal()?).ok().filter(is_pid)?;
        self.expect(b" ")?;
        Some(Stamp { boot_ns, pid })
    }

    /// `@HEX(HEX)`.
    fn range(&mut self) -> Option<(u64, u64)> {
        self.expect(b"@")?;
        let first = self.hex()?;
        self.expect(b"(")?;
        let second = self.hex()?;
        self.expect(b")")?;
        Some((first, second))
    }

    fn hex_u32(&mut self) -> Option<u32> {
        u32::try_from(self.hex()?).ok()
    }

    /// A number as `%llx` prints it: up to 16 lower-case digits without leading zeros.
    #[inline]
    fn hex(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut digits = 0;
        for &byte in self.rest {
            let digit = HEX_DIGITS[usize::from(byte)];
            if digit > 15 {
                break;
            }
            value = value << 4 | u64::from(digit);
            digits += 1;
        }
        self.take_number(value, digits, digits <= 16)
    }

    /// A number as `%llu` prints it, without leading zeros.
    fn decimal(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut digits = 0;
        // A time in nanoseconds has some fourteen digits: the first eight go at once.
        if let Some(eight) = self.rest.first_chunk().and_then(|chunk| eight_digits(*chunk)) {
            value = eight;
            digits = 8;
        }
        for &byte in &self.rest[digits..] {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            // Nineteen digits always fit; only the twentieth can overflow.
            value = if digits < 19 {
                value * 10 + u64::from(digit)
            } else {
                value.checked_mul(10)?.checked_add(u64::from(digit))?
            };
            digits += 1;
        }
        self.take_number(value, digits, true)
    }

    #[inline]
    fn take_number(&mut self, value: u64, digits: usize, fits: bool) -> Option<u64> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        let leading_zero = digits > 1 && number[0] == b'0';
        if digits == 0 || leading_zero || !fits {
            return None;
        }
        self.rest = rest;
        Some(value)
    }

    /// A number as `%d` prints it.
    fn signed(&mut self) -> Option<i32> {
        let negative = self.skip(b'-');
        let magnitude = i64::try_from(self.decimal()?).ok()?;
        if negative && magnitude == 0 {
            return None;
        }
        i32::try_from(if negative { -magnitude } else { magnitude }).ok()
    }

    fn blank_signed(&mut self) -> Option<i32> {
        self.expect(b" ")?;
        self.signed()
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    #[inline]
    fn expect<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        let (front, rest) = self.rest.split_first_chunk()?;
        if front != text {
            return None;
        }
        self.rest = rest;
        Some(())
    }

    fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether a field may end here: what follows is nothing, or set apart.
    fn at_field_end(&self) -> bool {
        matches!(self.rest.first(), None | Some(b' ' | 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_digits_are_told_as_the_obvious_way_tells_them() {
        for base in [*b"12345678", *b"00000000", *b"99999999"] {
            for place in 0..8 {
                for byte in 0..=u8::MAX {
                    let mut text = base;
                    text[place] = byte;
                    let obvious = text.iter().all(u8::is_ascii_digit).then(|| {
                        text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
                    });
                    assert_eq!(eight_digits(text), obvious, "{}", text.escape_ascii());
                }
            }
        }
    }
}
