//! Messages on disk until they are delivered: what must not be lost survives `kill -9` and, as the policy
//! says, a power cut.
//!
//! # On disk
//!
//! A folder of one sink holds segments `N.spool` (N of 16 hex digits, rising), `position` and `lock`.
//!
//! | segment | `GPUEVSP1`, then records |
//! |---|---|
//! | record | length of the payload (u32), its CRC-32 (u32), payload |
//! | payload | kind, severity, notify (a byte each), time (i64), length of the id (u16), id, JSON |
//! | `position` | segment (u64), offset (u64), CRC-32 of both (u32): what is before it is delivered |
//!
//! Numbers are little-endian. Segments are only appended to, and a run never appends to one of an earlier
//! run: what a crash tore is the end of a segment and stays so. A record whose sum is wrong is skipped and
//! counted; a length that cannot be ends its segment. A damaged `position` begins with the oldest segment:
//! what was delivered comes again under its old ids, and nothing is lost. Delivered segments are deleted.

mod segment;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::Message;
use segment::{Segment, Writer};

/// When what is written is also on the medium, and not only in the kernel's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// After each batch: it survives a power cut.
    #[default]
    Always,
    /// When the kernel thinks so: it survives `kill -9`, and half a minute may be lost with the power.
    Never,
}

/// Messages of one sink on disk, in order.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    sync: SyncPolicy,
    limit: u64,
    /// The oldest first; the writer's is not among them.
    full: VecDeque<Segment>,
    writer: Option<Writer>,
    next_number: u64,
    position: Position,
    position_file: File,
    /// Where each message that was lent by the last `peek` ends.
    lent: Vec<Position>,
    /// Not delivered yet.
    messages: u64,
    /// Records that cannot be read since the spool was opened.
    damaged: u64,
    /// Its holder is the only process that uses the folder.
    _lock: File,
}

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    segment: u64,
    offset: u64,
}

impl Position {
    const BYTES: usize = 20;

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        let sum = segment::crc32(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, sum) = bytes.split_at_checked(16)?;
        (segment::crc32(numbers).to_le_bytes() == sum).then_some(())?;
        let number = |at: usize| numbers.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        Some(Self { segment: number(0)?, offset: number(8)? })
    }
}

impl Spool {
    /// Opens the spool in `folder` with what earlier runs left there; makes it where there is none. It never
    /// grows over `limit` bytes.
    ///
    /// # Errors
    /// The folder cannot be made, read or written, or another process uses it.
    pub(super) fn open(folder: &Path, limit: u64, sync: SyncPolicy) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = open_for_writing(&folder.join("lock"))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let text = "another process uses this spool; give each agent its own state folder";
            return Err(io::Error::other(text));
        }
        let position_file = open_for_writing(&folder.join("position"))?;
        let full = Segment::all_in(folder)?;
        let position = first_position(&position_file, &full);
        let last = full.back().map_or(0, Segment::number).max(position.segment);
        let mut spool = Self {
            folder: folder.to_owned(),
            sync,
            limit,
            position,
            full,
            writer: None,
            next_number: last + 1,
            position_file,
            lent: Vec::new(),
            messages: 0,
            damaged: 0,
            _lock: lock,
        };
        spool.delete_delivered();
        spool.count();
        Ok(spool)
    }

    /// Messages that are not delivered yet.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// The ids of the messages that are not delivered yet.
    pub(super) fn ids(&self) -> HashSet<Arc<str>> {
        let written = self.writer.as_ref().map(Writer::segment);
        let segments = self.full.iter().chain(written);
        let records = segments.filter_map(|segment| segment.records(self.offset_in(segment)).ok());
        records.flatten().filter_map(|read| Some(read.message?.id)).collect()
    }

    /// Records found damaged since the spool was opened.
    pub(super) const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Bytes of its segments.
    pub(super) fn bytes(&self) -> u64 {
        let written = self.writer.as_ref().map_or(0, Writer::bytes);
        self.full.iter().map(Segment::bytes).sum::<u64>() + written
    }

    /// Appends as many of `messages` as there is room for and tells how many. All of them, or none, are
    /// written when it fails.
    ///
    /// # Errors
    /// The segment cannot be written.
    pub(super) fn append(&mut self, messages: &[Message]) -> io::Result<usize> {
        let mut room = self.limit.saturating_sub(self.bytes());
        let mut bytes = Vec::new();
        let mut taken = 0;
        for message in messages {
            let before = bytes.len();
            segment::encode(&mut bytes, message);
            let added = u64::try_from(bytes.len() - before).unwrap_or(u64::MAX);
            if added > room {
                bytes.truncate(before);
                break;
            }
            room -= added;
            taken += 1;
        }
        if taken > 0 {
            self.write(&bytes)?;
            self.messages += u64::try_from(taken).unwrap_or(u64::MAX);
        }
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_segment()?,
        };
        match writer.append(bytes, self.sync) {
            Ok(()) if writer.bytes() < self.segment_limit() => self.writer = Some(writer),
            Ok(()) => self.full.push_back(writer.finish()),
            Err(error) => {
                // What was written of it is cut off, or stays as the torn end of a segment that is done.
                self.full.push_back(writer.abandon());
                return Err(error);
            }
        }
        Ok(())
    }

    /// A sixteenth of the whole, so that little is kept of what is delivered.
    fn segment_limit(&self) -> u64 {
        (self.limit / 16).clamp(4 << 10, 4 << 20)
    }

    fn begin_segment(&mut self) -> io::Result<Writer> {
        let writer = Writer::create(&self.folder, self.next_number, self.sync)?;
        self.next_number += 1;
        Ok(writer)
    }

    /// The first `most` messages that are not delivered; they stay until [`done`](Self::done).
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(super) fn peek(&mut self, most: usize) -> io::Result<Vec<Message>> {
        let mut found = Vec::new();
        self.lent.clear();
        let written = self.writer.as_ref().map(Writer::segment);
        for segment in self.full.iter().chain(written) {
            let records = match segment.records(self.offset_in(segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                records => records?,
            };
            let sound = records.filter_map(|read| Some((read.message?, read.end)));
            for (message, offset) in sound.take(most - found.len()) {
                found.push(message);
                self.lent.push(Position { segment: segment.number(), offset });
            }
            if found.len() >= most {
                break;
            }
        }
        if found.is_empty() && self.messages > 0 {
            // Readable when it was opened, and no longer.
            self.damaged += std::mem::take(&mut self.messages);
            self.move_to(self.end())?;
        }
        Ok(found)
    }

    fn offset_in(&self, segment: &Segment) -> u64 {
        if segment.number() == self.position.segment { self.position.offset } else { 0 }
    }

    /// Behind the last record.
    fn end(&self) -> Position {
        let written = self.writer.as_ref().map(Writer::segment);
        let last = written.or(self.full.back());
        last.map_or(self.position, |last| Position { segment: last.number(), offset: last.bytes() })
    }

    /// The first `count` messages of the last [`peek`](Self::peek) are delivered.
    ///
    /// # Errors
    /// The position cannot be written: they may come again.
    pub(super) fn done(&mut self, count: usize) -> io::Result<()> {
        let Some(end) = count.checked_sub(1).and_then(|last| self.lent.get(last).copied()) else {
            return Ok(());
        };
        self.lent.clear();
        let delivered = u64::try_from(count).unwrap_or(u64::MAX);
        self.messages = self.messages.saturating_sub(delivered);
        self.move_to(end)
    }

    fn move_to(&mut self, position: Position) -> io::Result<()> {
        self.position = position;
        self.delete_delivered();
        self.position_file.write_all_at(&position.encode(), 0)
    }

    fn delete_delivered(&mut self) {
        while let Some(oldest) = self.full.front() {
            let end = Position { segment: oldest.number(), offset: oldest.bytes() };
            if self.position < end {
                return;
            }
            // One that cannot be deleted is only found delivered again.
            let _deleted = fs::remove_file(oldest.path());
            self.full.pop_front();
        }
    }

    /// Counts what is not delivered.
    fn count(&mut self) {
        for segment in &self.full {
            let Ok(records) = segment.records(self.offset_in(segment)) else { continue };
            for read in records {
                match read.message {
                    Some(_) => self.messages += 1,
                    None => self.damaged += 1,
                }
            }
        }
    }
}

/// Where an earlier run left off, or the beginning.
fn first_position(file: &File, segments: &VecDeque<Segment>) -> Position {
    let mut bytes = [0; Position::BYTES];
    let read = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| Position::decode(&bytes));
    let oldest = segments.front().map_or(0, Segment::number);
    read.unwrap_or(Position { segment: oldest, offset: 0 })
}

fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)
}
