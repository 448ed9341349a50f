//! Where a message of the driver ends.
//!
//! A message is a line: at most [`MESSAGE_SIZE`]` - 1` bytes with its newline. One that did not fit the
//! driver's buffer comes without a newline, so that the next message is glued to it
//! (`kfd_smi_events.c: add_event_to_kfifo` and `kernel-facts`, section 2):
//!
//! * up to Linux 7.2 as 103 bytes: 95 of text, a NUL, seven bytes that are not the driver's to give;
//! * from 7.3 on as 95 bytes.
//!
//! The boundary depends on the bytes alone, so a stream decodes to the same messages wherever it is cut.

/// `KFD_SMI_EVENT_MSG_SIZE`: the driver's buffer for one message, its NUL included.
pub const MESSAGE_SIZE: usize = 96;
/// The most bytes that one message of a genuine driver takes in the FIFO.
pub const LONGEST_MESSAGE: usize = 103;
/// A line longer than this is cut into pieces: memory stays bounded whatever arrives.
pub const LONGEST_LINE: usize = 4096;

const TEXT: usize = MESSAGE_SIZE - 1;

/// The length in bytes of the first message in `bytes`, its newline included, or `None` where more bytes
/// are needed to tell. `drained` says that the driver holds no more for now: drivers queue whole messages,
/// so what has the length of an over-long message then is one.
#[must_use]
pub fn message_length(bytes: &[u8], drained: bool) -> Option<usize> {
    let newline = find_newline(bytes);
    match newline {
        Some(at) if at < TEXT => Some(at + 1),
        None if bytes.len() < TEXT => None,
        _ => over_long(bytes, newline, drained),
    }
}

/// As [`message_length`], where the first 95 bytes hold no newline.
fn over_long(bytes: &[u8], newline: Option<usize>, drained: bool) -> Option<usize> {
    if bytes.get(TEXT) == Some(&0) {
        return match bytes.len() {
            LONGEST_MESSAGE.. => Some(LONGEST_MESSAGE),
            length => drained.then_some(length),
        };
    }
    match newline {
        Some(at) if at < LONGEST_LINE => {
            // A later kernel may write longer lines: only where the end of this one reads as a message of
            // its own is the front an over-long message, or several.
            let glued = is_known(&bytes[at / TEXT * TEXT..at]);
            Some(if glued { TEXT } else { at + 1 })
        }
        _ if bytes.len() >= LONGEST_LINE => Some(LONGEST_LINE),
        _ => drained.then_some(TEXT),
    }
}

fn is_known(line: &[u8]) -> bool {
    !matches!(crate::decode(line).fields, crate::Fields::Unknown { .. })
}

/// The place of the first newline: eight bytes at a time, as lines are about fifty bytes long.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let zero_where_newline = u64::from_le_bytes(*word) ^ (ONES * 0x0a);
        let found = zero_where_newline.wrapping_sub(ONES) & !zero_where_newline & HIGHS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let start = words.len() * 8;
    rest.iter().position(|&byte| byte == b'\n').map(|at| start + at)
}

/// The message without its newline.
#[must_use]
pub fn line(message: &[u8]) -> &[u8] {
    message.strip_suffix(b"\n").unwrap_or(message)
}
