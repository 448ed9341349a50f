//! The events of a batch once more, packed: what reads all of a history reads these.
//!
//! A row is for people and their tools; to take it from SQLite costs ten times what it says. So the writer adds
//! the events of each batch as one value (table `packed`). It is derived: where it lacks, it is made from the
//! rows. It holds what a fold looks at, i.e. all but the sequence number, in about 12 bytes an event.
//!
//! # Format
//!
//! Numbers are LEB128. Differences are to the event before, wrapping, and zigzag. First come the number of
//! sources and, of each, the rows of its GPU and of its process (0: none) and its pid. Then the events:
//!
//! | part | meaning |
//! |---|---|
//! | tag | a byte: the form, [`DOUBTFUL`], [`OTHER_SOURCE`] |
//! | changed | a byte: bit n for word n, [`OTHER_OFFSET`] |
//! | source | its place; where it is not that of the event before |
//! | times | differences of `boot_ns`, of `received - boot_ns`, and, where it changed, of `unix_ns - boot_ns` |
//! | words | differences to the words of the last event of this form, of those that changed |
//! | line | of form 0: the length of the driver's line, and the line |
//!
//! A gap is a tag of form 15 alone: it stands where the gap of the table stands among the events. The forms 1 to 7 are the types of events that come in masses, 5 to 11: their fields are words.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use gpuev::codec::{Fields, Migration, RestoreFlag, Stamp};
use gpuev::{Access, Clock, EventTime, FaultOutcome, Record, decode};

/// In the tag: the event may be forged.
const DOUBTFUL: u8 = 1 << 4;
/// In the tag: the source is another than before.
const OTHER_SOURCE: u8 = 1 << 5;
/// In the byte of changes: the distance of the two clocks is another than before.
const OTHER_OFFSET: u8 = 1 << 7;
const FORM: u8 = 0x0f;

/// Words of an event, at most.
const WORDS: usize = 7;
type Words = [u64; WORDS];

/// The type of form 1, less one.
const FIRST_TYPE: u8 = 4;
/// Forms, that of lines included.
const FORMS: usize = 8;

/// Where an event is from: the rows of its GPU and of its process, and the pid in its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    pub(crate) gpu: i64,
    /// 0 for none.
    pub(crate) process: i64,
    pub(crate) pid: u32,
}

/// What differences are to.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    source: u64,
    boot_ns: u64,
    lag: u64,
    offset: u64,
    words: [Words; FORMS],
}

/// The form of a gap.
const GAP: u8 = 15;

/// Packs the events of a batch, and where its gaps are.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    sources: HashMap<SourceKey, u64, RandomState>,
    /// The source of the event before, and its place.
    source: Option<(SourceKey, u64)>,
    head: Vec<u8>,
    events: Vec<u8>,
    before: Before,
}

impl Packer {
    /// Adds an event, `record` being what the line `raw` decodes to.
    pub(crate) fn push(
        &mut self,
        source: SourceKey,
        (received_boot_ns, unix_ns): (u64, i64),
        doubtful: bool,
        (raw, record): (&[u8], &Record<'_>),
    ) {
        let source = self.place_of(source);
        let boot_ns = record.stamp().map_or(received_boot_ns, |stamp| stamp.boot_ns);
        let (form, words) = words_of(record).unwrap_or((0, self.before.words[0]));
        let lag = received_boot_ns.wrapping_sub(boot_ns);
        let offset = unix_ns.cast_unsigned().wrapping_sub(boot_ns);
        let before = &mut self.before;
        let last = &mut before.words[usize::from(form)];
        let changed = (0..WORDS).fold(0, |all, n| all | u8::from(words[n] != last[n]) << n);
        let is_doubtful = if doubtful { DOUBTFUL } else { 0 };
        let other_source = if source == before.source { 0 } else { OTHER_SOURCE };
        let other_offset = if offset == before.offset { 0 } else { OTHER_OFFSET };
        let out = &mut self.events;
        out.extend([form | is_doubtful | other_source, changed | other_offset]);
        if other_source != 0 {
            put(out, source);
        }
        put_difference(out, boot_ns, before.boot_ns);
        put_difference(out, lag, before.lag);
        if other_offset != 0 {
            put_difference(out, offset, before.offset);
        }
        for n in (0..WORDS).filter(|n| changed >> n & 1 == 1) {
            put_difference(out, words[n], last[n]);
        }
        *last = words;
        (before.source, before.boot_ns, before.lag, before.offset) = (source, boot_ns, lag, offset);
        if form == 0 {
            put(out, raw.len() as u64);
            out.extend_from_slice(raw);
        }
    }

    /// Adds a gap: that there is one.
    pub(crate) fn push_gap(&mut self) {
        self.events.push(GAP);
    }

    fn place_of(&mut self, key: SourceKey) -> u64 {
        if let Some((last, place)) = self.source
            && last == key
        {
            return place;
        }
        let next = self.sources.len() as u64;
        let place = *self.sources.entry(key).or_insert_with(|| {
            put(&mut self.head, key.gpu.cast_unsigned());
            put(&mut self.head, key.process.cast_unsigned());
            put(&mut self.head, u64::from(key.pid));
            next
        });
        self.source = Some((key, place));
        place
    }

    /// What was added as one value; `None` where that is nothing. Afterwards it is empty again.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        if self.events.is_empty() {
            return None;
        }
        let mut packed = Vec::with_capacity(10 + self.head.len() + self.events.len());
        put(&mut packed, self.sources.len() as u64);
        packed.append(&mut self.head);
        packed.append(&mut self.events);
        self.sources.clear();
        self.source = None;
        self.before = Before::default();
        Some(packed)
    }
}

/// Packed events, of which the sources are known.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) sources: Vec<SourceKey>,
    bytes: Vec<u8>,
    /// Where the events begin.
    events: usize,
}

impl Packed {
    /// `None` where nothing that a [`Packer`] makes begins so.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let mut cursor = Cursor(&bytes);
        let count = usize::try_from(cursor.number()?).ok()?;
        let mut sources = Vec::with_capacity(count.min(bytes.len()));
        for _ in 0..count {
            sources.push(SourceKey {
                gpu: cursor.number()?.cast_signed(),
                process: cursor.number()?.cast_signed(),
                pid: u32::try_from(cursor.number()?).ok()?,
            });
        }
        let events = bytes.len() - cursor.0.len();
        Some(Self { sources, bytes, events })
    }

    pub(crate) fn items(&self) -> Items<'_> {
        let cursor = Cursor(self.bytes.get(self.events..).unwrap_or_default());
        Items { cursor, sources: &self.sources, before: Before::default() }
    }
}

/// An event as it was packed.
#[derive(Debug)]
pub(crate) struct PackedEvent<'a> {
    /// Its place in [`Packed::sources`].
    pub(crate) source: usize,
    pub(crate) time: EventTime,
    pub(crate) doubtful: bool,
    pub(crate) record: Record<'a>,
}

/// An item as it was packed.
#[derive(Debug)]
pub(crate) enum PackedItem<'a> {
    Event(PackedEvent<'a>),
    Gap,
}

/// Items one by one.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    cursor: Cursor<'a>,
    sources: &'a [SourceKey],
    before: Before,
}

impl<'a> Iterator for Items<'a> {
    /// `None` where it is damaged; nothing follows.
    type Item = Option<PackedItem<'a>>;

    // Into the loop, so that the record is made where it is looked at: to hand it over takes as long.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.cursor.byte()?;
        if tag == GAP {
            return Some(Some(PackedItem::Gap));
        }
        let event = self.event(tag);
        if event.is_none() {
            self.cursor.0 = &[];
        }
        Some(event.map(PackedItem::Event))
    }
}

impl<'a> Items<'a> {
    #[inline(always)]
    fn event(&mut self, tag: u8) -> Option<PackedEvent<'a>> {
        let Self { cursor, sources, before } = self;
        let changed = cursor.byte()?;
        if tag & OTHER_SOURCE != 0 {
            before.source = cursor.number()?;
        }
        let source = usize::try_from(before.source).ok()?;
        let pid = sources.get(source)?.pid;
        cursor.difference(&mut before.boot_ns)?;
        cursor.difference(&mut before.lag)?;
        if changed & OTHER_OFFSET != 0 {
            cursor.difference(&mut before.offset)?;
        }
        let form = tag & FORM;
        let words = before.words.get_mut(usize::from(form))?;
        let mut left = changed & !OTHER_OFFSET;
        while left != 0 {
            cursor.difference(words.get_mut(left.trailing_zeros() as usize)?)?;
            left &= left - 1;
        }
        let boot_ns = before.boot_ns;
        let record = match form {
            0 => decode(cursor.bytes()?),
            _ => Record { fields: fields_of(form, words, Stamp { boot_ns, pid })?, tail: b"" },
        };
        let time = EventTime {
            boot_ns,
            clock: if record.stamp().is_some() { Clock::Driver } else { Clock::Receipt },
            received_boot_ns: boot_ns.wrapping_add(before.lag),
            unix_ns: boot_ns.wrapping_add(before.offset).cast_signed(),
        };
        Some(PackedEvent { source, time, doubtful: tag & DOUBTFUL != 0, record })
    }
}

/// The form of a record and its words; `None` where it has to be kept as a line.
fn words_of(record: &Record<'_>) -> Option<(u8, Words)> {
    if !record.tail.is_empty() {
        return None;
    }
    let signed = |number: i32| u64::from(number.cast_unsigned());
    let moved = |range: Migration| (range.page, range.pages, range.from.into(), range.to.into());
    let (event_type, words) = match record.fields {
        Fields::MigrateStart { range, prefetch, preferred, trigger, .. } => {
            let (page, pages, from, to) = moved(range);
            let rest = [u64::from(prefetch), u64::from(preferred), signed(trigger)];
            (5, [page, pages, from, to, rest[0], rest[1], rest[2]])
        }
        Fields::MigrateEnd { range, trigger, error, .. } => {
            let (page, pages, from, to) = moved(range);
            let error = error.map_or(NO_ERROR_TOLD, signed);
            (6, [page, pages, from, to, signed(trigger), error, 0])
        }
        Fields::PageFaultStart { page, node, access, .. } => {
            (7, [page, node.into(), u64::from(access == Access::Write), 0, 0, 0, 0])
        }
        Fields::PageFaultEnd { page, node, outcome, .. } => {
            (8, [page, node.into(), u64::from(outcome == FaultOutcome::Mapped), 0, 0, 0, 0])
        }
        Fields::QueueEviction { node, trigger, .. } => {
            (9, [node.into(), signed(trigger), 0, 0, 0, 0, 0])
        }
        Fields::QueueRestore { node, flag, .. } => {
            let flag = RESTORE_FLAGS.iter().position(|one| *one == flag)?;
            (10, [node.into(), flag as u64, 0, 0, 0, 0, 0])
        }
        Fields::UnmapFromGpu { page, pages, node, trigger, .. } => {
            (11, [page, pages, node.into(), signed(trigger), 0, 0, 0])
        }
        _ => return None,
    };
    Some((event_type - FIRST_TYPE, words))
}

/// The word of a migration's error where the kernel told none.
const NO_ERROR_TOLD: u64 = 1 << 32;

const RESTORE_FLAGS: [RestoreFlag; 4] =
    [RestoreFlag::Absent, RestoreFlag::Plain, RestoreFlag::Rescheduled, RestoreFlag::Nul];

/// The fields that [`words_of`] took apart; `None` where it did not.
#[inline(always)]
fn fields_of(form: u8, words: &Words, at: Stamp) -> Option<Fields<'static>> {
    let number = |word: u64| u32::try_from(word).ok();
    let signed = |word: u64| number(word).map(u32::cast_signed);
    let [first, second, ..] = *words;
    let range = || {
        let (from, to) = (number(words[2])?, number(words[3])?);
        Some(Migration { page: first, pages: second, from, to })
    };
    Some(match form + FIRST_TYPE {
        5 => Fields::MigrateStart {
            at,
            range: range()?,
            prefetch: number(words[4])?,
            preferred: number(words[5])?,
            trigger: signed(words[6])?,
        },
        6 => {
            let error = if words[5] == NO_ERROR_TOLD { None } else { Some(signed(words[5])?) };
            Fields::MigrateEnd { at, range: range()?, trigger: signed(words[4])?, error }
        }
        7 => {
            let access = if words[2] == 0 { Access::Read } else { Access::Write };
            Fields::PageFaultStart { at, page: first, node: number(second)?, access }
        }
        8 => {
            let outcome = if words[2] == 0 { FaultOutcome::Migrated } else { FaultOutcome::Mapped };
            Fields::PageFaultEnd { at, page: first, node: number(second)?, outcome }
        }
        9 => Fields::QueueEviction { at, node: number(first)?, trigger: signed(second)? },
        10 => {
            let flag = *RESTORE_FLAGS.get(usize::try_from(second).ok()?)?;
            Fields::QueueRestore { at, node: number(first)?, flag }
        }
        11 => Fields::UnmapFromGpu {
            at,
            page: first,
            pages: second,
            node: number(words[2])?,
            trigger: signed(words[3])?,
        },
        _ => return None,
    })
}

/// Appends `number`, seven bits a byte, the lowest first.
#[inline]
#[allow(clippy::cast_possible_truncation)] // the lowest bits are what is wanted
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[inline]
fn put_difference(out: &mut Vec<u8>, now: u64, before: u64) {
    let difference = now.wrapping_sub(before).cast_signed();
    put(out, (difference << 1 ^ difference >> 63).cast_unsigned());
}

/// The lower seven bits of each byte.
const SEVEN_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The lower seven bits of each byte of `word`, side by side.
#[inline]
fn gathered(word: u64) -> u64 {
    let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}

/// What is not yet read. Each method gives `None` where it ends too early.
#[derive(Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Without a branch on the length, which no processor could foresee, wherever eight bytes are left.
    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        if let Some(next) = self.0.first_chunk() {
            let word = u64::from_le_bytes(*next);
            let last_bytes = !word & !SEVEN_BITS;
            if last_bytes != 0 {
                let bits = last_bytes.trailing_zeros() + 1;
                self.0 = self.0.get(bits as usize / 8..)?;
                return Some(gathered(word & u64::MAX >> (64 - bits)));
            }
        }
        self.number_by_bytes()
    }

    #[cold]
    fn number_by_bytes(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Adds the difference that comes next.
    #[inline(always)]
    fn difference(&mut self, to: &mut u64) -> Option<()> {
        let zigzag = self.number()?;
        *to = to.wrapping_add(zigzag >> 1 ^ (zigzag & 1).wrapping_neg());
        Some(())
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Lines of every type, at their limits too, and what is none.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let moved = "[1-9][0-9]{0,15} -[1-9][0-9]{0,8} @[1-9a-f][0-9a-f]{0,14}\\([1-9a-f]{1,9}\\)";
        let of = |text: String| prop::string::string_regex(&text).unwrap();
        prop_oneof![
            of(format!("5 {moved} [1-9a-f]{{1,8}}->0 [1-9a-f]{{1,8}}:0 -?[1-9]{{1,9}}")),
            of(format!("6 {moved} 0->[1-9a-f]{{1,8}} [0-7]( -?[1-9]{{1,9}})?")),
            "7 [1-9][0-9]{0,18} -[0-9] @[1-9a-f]{1,15}\\([1-9a-f]{1,8}\\) [RW]",
            "8 18446744073709551615 -[0-9] @[1-9a-f]{1,15}\\([1-9a-f]{1,8}\\) [MU]",
            "9 [1-9][0-9]{0,12} -[1-9][0-9]{0,8} [1-9a-f]{1,8} [0-7]",
            "a [1-9][0-9]{0,12} -[1-9][0-9]{0,8} [1-9a-f]{1,8}( [0R\0])?",
            of(format!("b {moved} [1-9a-f]{{1,8}} [0-7]")),
            "[1cd] [1-9a-f]{1,6}[: ][a-z]{0,15}",
            "[234e] .{0,40}",
            "[0-9a-f]{1,2} .{0,90}",
        ]
        .prop_map(String::into_bytes)
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(
            events in prop::collection::vec(
                (line(), any::<[u64; 2]>(), any::<bool>(), 0..4_i64), 0..40,
            ),
        ) {
            let mut packer = Packer::default();
            let mut expected = Vec::new();
            for (raw, [received_boot_ns, unix], doubtful, row) in &events {
                let record = decode(raw);
                let stamp = record.stamp();
                let time = EventTime {
                    boot_ns: stamp.map_or(*received_boot_ns, |stamp| stamp.boot_ns),
                    clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
                    received_boot_ns: *received_boot_ns,
                    unix_ns: unix.cast_signed(),
                };
                let pid = record.stamp().map_or(0, |stamp| stamp.pid);
                let source = SourceKey { gpu: *row, process: row / 2, pid };
                let times = (*received_boot_ns, unix.cast_signed());
                packer.push(source, times, *doubtful, (raw, &record));
                expected.push(Some((source, time, *doubtful, record)));
                if row % 2 == 1 {
                    packer.push_gap();
                    expected.push(None);
                }
            }
            let Some(bytes) = packer.finish() else {
                prop_assert!(events.is_empty());
                return Ok(());
            };
            prop_assert_eq!(packer.finish(), None);
            let packed = Packed::new(bytes).unwrap();
            let unpacked = packed.items().map(|item| {
                let PackedItem::Event(event) = item.unwrap() else { return None };
                let PackedEvent { source, time, doubtful, record } = event;
                Some((packed.sources[source], time, doubtful, record))
            });
            prop_assert_eq!(unpacked.collect::<Vec<_>>(), expected);
        }

        #[test]
        fn damage_is_found_or_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(packed) = Packed::new(bytes) {
                prop_assert!(packed.items().count() <= 200);
            }
        }
    }
}
