//! One file of a spool: records behind one another.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuev::Severity;

use super::SyncPolicy;
use crate::sink::message::{Kind, Message};

const MAGIC: &[u8; 8] = b"GPUEVSP1";
/// Length and sum before a payload.
const HEAD: usize = 8;
/// Before the id in a payload.
const FIXED: usize = 13;
/// No message is that long: a length over it is damage.
const LONGEST: usize = 64 << 20;

/// A segment that may be read.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    number: u64,
    bytes: u64,
}

/// What a place of a segment holds.
#[derive(Debug)]
pub(super) struct ReadRecord {
    /// `None` where it is damaged.
    pub(super) message: Option<Message>,
    /// Where the next one begins.
    pub(super) end: u64,
}

impl Segment {
    /// All segments of a folder, the oldest first.
    pub(super) fn all_in(folder: &Path) -> io::Result<VecDeque<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(".spool"));
            let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                let bytes = fs::metadata(&path)?.len();
                found.push(Self { path, number, bytes });
            }
        }
        found.sort_by_key(|segment| segment.number);
        Ok(found.into())
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The records from `offset` on; 0 is the beginning.
    pub(super) fn records(&self, offset: u64) -> io::Result<impl Iterator<Item = ReadRecord>> {
        let mut file = BufReader::with_capacity(64 << 10, File::open(&self.path)?);
        let mut magic = [0; MAGIC.len()];
        let whole = file.read_exact(&mut magic).is_ok() && magic == *MAGIC;
        let mut at = offset.max(MAGIC.len() as u64);
        file.seek(SeekFrom::Start(at))?;
        let end = if whole { self.bytes } else { 0 };
        Ok(std::iter::from_fn(move || {
            let (bytes, message) = read(&mut file, end.saturating_sub(at))?;
            at += bytes;
            Some(ReadRecord { message, end: at })
        }))
    }
}

/// The next record and how long it is; `None` at the end, also where that is torn.
fn read(file: &mut impl Read, left: u64) -> Option<(u64, Option<Message>)> {
    let mut head = [0; HEAD];
    if left < HEAD as u64 {
        return None;
    }
    file.read_exact(&mut head).ok()?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    let bytes = usize::try_from(length).ok()?;
    let whole = HEAD as u64 + u64::from(length);
    if whole > left || !(FIXED..=LONGEST).contains(&bytes) {
        return None;
    }
    let mut payload = vec![0; bytes];
    file.read_exact(&mut payload).ok()?;
    let sound = crc32(&payload) == sum;
    Some((whole, sound.then(|| decode(&payload)).flatten()))
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Writer {
    segment: Segment,
    file: File,
}

impl Writer {
    pub(super) fn create(folder: &Path, number: u64, sync: SyncPolicy) -> io::Result<Self> {
        let path = folder.join(format!("{number:016x}.spool"));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path)?;
        if let Err(error) = file.write_all(MAGIC) {
            let _deleted = fs::remove_file(&path);
            return Err(error);
        }
        if sync == SyncPolicy::Always {
            // The name must be on the medium too.
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { segment: Segment { path, number, bytes: MAGIC.len() as u64 }, file })
    }

    /// Appends whole records.
    pub(super) fn append(&mut self, bytes: &[u8], sync: SyncPolicy) -> io::Result<()> {
        self.file.write_all(bytes)?;
        if sync == SyncPolicy::Always {
            self.file.sync_data()?;
        }
        self.segment.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.segment.bytes
    }

    pub(super) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Nothing more comes.
    pub(super) fn finish(self) -> Segment {
        self.segment
    }

    /// Writing failed: only what was whole before is kept.
    pub(super) fn abandon(self) -> Segment {
        let _torn_end_is_skipped = self.file.set_len(self.segment.bytes);
        self.segment
    }
}

/// Appends `message` as a record.
pub(super) fn encode(out: &mut Vec<u8>, message: &Message) {
    let at = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let place = |found: Option<usize>| u8::try_from(found.unwrap_or(0)).unwrap_or(0);
    out.push(place(Kind::ALL.iter().position(|kind| *kind == message.kind)));
    out.push(place(Severity::ALL.iter().position(|severity| *severity == message.severity)));
    out.push(u8::from(message.notify));
    out.extend_from_slice(&message.unix_ns.to_le_bytes());
    // Ids are short; a longer one would be cut and still be one.
    let id = &message.id.as_bytes()[..message.id.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&u16::try_from(id.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(id);
    out.extend_from_slice(message.json.as_bytes());
    let length = u32::try_from(out.len() - at - HEAD).unwrap_or(u32::MAX);
    let sum = crc32(&out[at + HEAD..]);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    out[at + 4..at + HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn decode(payload: &[u8]) -> Option<Message> {
    let (fixed, rest) = payload.split_at_checked(FIXED)?;
    let length = usize::from(u16::from_le_bytes(fixed[11..].try_into().ok()?));
    let (id, json) = rest.split_at_checked(length)?;
    let text = |bytes: &[u8]| Some(Arc::from(std::str::from_utf8(bytes).ok()?));
    Some(Message {
        id: text(id)?,
        kind: *Kind::ALL.get(usize::from(fixed[0]))?,
        severity: *Severity::ALL.get(usize::from(fixed[1]))?,
        notify: fixed[2] != 0,
        unix_ns: i64::from_le_bytes(fixed[3..11].try_into().ok()?),
        json: text(json)?,
    })
}

/// CRC-32 as in zlib and Ethernet (polynomial 0xEDB88320, reflected).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    !bytes.iter().fold(!0, |sum, byte| {
        let [low, ..] = sum.to_le_bytes();
        (sum >> 8) ^ TABLE[usize::from(low ^ byte)]
    })
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut sum = index;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[index as usize] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sum_is_the_one_that_everybody_means() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(super::crc32(b""), 0);
    }
}
