//! What older versions left waiting: a folder for each sink with segments of records, taken over once.
//!
//! | segment `N.spool` (N of 16 hex digits, rising) | `GPUEVSP1`, then records |
//! |---|---|
//! | record | length of the payload (u32), its CRC-32 (u32), payload |
//! | payload | kind, severity, notify (a byte each), time (i64), length of the id (u16), id, JSON |
//! | `position` | segment (u64), offset (u64), CRC-32 of both (u32): what is before it was delivered |
//!
//! Numbers are little-endian. A record whose sum is wrong is passed over and counted; a length that cannot be ends its
//! segment. Without a sound `position` all is taken over: what was delivered comes again under its old id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuev::Severity;

use super::file::QueueFile;
use crate::sink::message::{Kind, Message};

const MAGIC: &[u8] = b"GPUEVSP1";
/// Length and sum before a payload.
const HEAD: usize = 8;
/// Before the id in a payload.
const FIXED: usize = 13;
/// A segment was never longer than 4 MiB and one message.
const LONGEST: u64 = 128 << 20;
/// The kinds by their numbers in records.
const KINDS: [Kind; 9] = [
    Kind::Event,
    Kind::Gap,
    Kind::Span,
    Kind::Health,
    Kind::Ras,
    Kind::Aggregate,
    Kind::Gpu,
    Kind::Alert,
    Kind::Lost,
];

/// Takes over the folders below `spools`; how many messages they had, and how many records were damaged. `None` where
/// there was nothing.
///
/// # Errors
/// What is there cannot be written to `file`; the folders stay.
pub(super) fn take_over(spools: &Path, file: &mut QueueFile) -> Result<Option<(u64, u64)>, String> {
    let Ok(folders) = fs::read_dir(spools) else { return Ok(None) };
    let mut found = None;
    for folder in folders.flatten() {
        let name = folder.file_name();
        let (Some(sink), path) = (name.to_str(), folder.path()) else { continue };
        let Ok(segments) = segments(&path) else { continue };
        if segments.is_empty() {
            continue;
        }
        let (messages, damaged) = messages(&path, &segments);
        file.take_over(sink, &messages)?;
        for (_, segment) in &segments {
            fs::remove_file(segment).map_err(|error| format!("{}: {error}", segment.display()))?;
        }
        for rest in ["position", "lock"] {
            let _none = fs::remove_file(path.join(rest));
        }
        // Dead letters stay for who wants to read them.
        let _not_empty = fs::remove_dir(&path);
        let (all, bad) = found.unwrap_or((0, 0));
        found = Some((all + u64::try_from(messages.len()).unwrap_or(0), bad + damaged));
    }
    Ok(found)
}

/// Segments with their numbers, the oldest first.
fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.strip_suffix(".spool"));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// What was not delivered, in order, and how many records are damaged.
fn messages(folder: &Path, segments: &[(u64, PathBuf)]) -> (Vec<Message>, u64) {
    let position = fs::read(folder.join("position")).ok();
    let (segment, offset) = position.as_deref().and_then(position_of).unwrap_or((0, 0));
    let (mut found, mut damaged) = (Vec::new(), 0);
    for (number, path) in segments.iter().filter(|(number, _)| *number >= segment) {
        let from = if *number == segment { usize::try_from(offset).unwrap_or(0) } else { 0 };
        let small = fs::metadata(path).is_ok_and(|file| file.len() <= LONGEST);
        let Some(bytes) = small.then(|| fs::read(path).ok()).flatten() else { continue };
        let Some(rest) = bytes.strip_prefix(MAGIC) else { continue };
        let mut rest = rest.get(from.saturating_sub(MAGIC.len())..).unwrap_or_default();
        while let Some((message, after)) = record(rest) {
            match message {
                Some(message) => found.push(message),
                None => damaged += 1,
            }
            rest = after;
        }
    }
    (found, damaged)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn position_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let sum = u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?);
    (crc32(bytes.get(..16)?) == sum).then_some(())?;
    Some((number(bytes, 0)?, number(bytes, 8)?))
}

/// The first record, `None` where it is damaged, and what is behind it. Nothing at the end, also where that is torn.
fn record(bytes: &[u8]) -> Option<(Option<Message>, &[u8])> {
    let head = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (length, sum) = (usize::try_from(head(0)?).ok()?, head(4)?);
    let payload = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    (length >= FIXED).then_some(())?;
    let sound = crc32(payload) == sum;
    Some((sound.then(|| decode(payload)).flatten(), &bytes[HEAD + length..]))
}

fn decode(payload: &[u8]) -> Option<Message> {
    let (fixed, rest) = payload.split_at_checked(FIXED)?;
    let length = usize::from(u16::from_le_bytes(fixed[11..].try_into().ok()?));
    let (id, json) = rest.split_at_checked(length)?;
    let text = |bytes: &[u8]| Some(Arc::from(std::str::from_utf8(bytes).ok()?));
    Some(Message::kept(
        text(id)?,
        *KINDS.get(usize::from(fixed[0]))?,
        *Severity::ALL.get(usize::from(fixed[1]))?,
        fixed[2] != 0,
        i64::from_le_bytes(fixed[3..11].try_into().ok()?),
        text(json)?,
    ))
}

/// CRC-32 as in zlib and Ethernet (polynomial 0xEDB88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sum_is_the_one_that_everybody_means() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(super::crc32(b""), 0);
    }
}
