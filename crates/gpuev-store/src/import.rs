//! Items from text that other programs, or we, have written.
//!
//! Any input is met with an item or an error that names its line; lines are bounded, so memory is too.

mod boots;
mod driver;
mod gpus;
mod lines;
mod ndjson;
mod svm_profile;
mod write;

use std::collections::HashMap;
use std::io::BufRead;

use gpuev::time::Anchor;
use gpuev::{
    Clock, Comm, Error, ErrorKind, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item,
    Result, decode,
};

use crate::session::Session;
use boots::Boots;
use gpus::Gpus;
use lines::{Line, Lines};

pub use write::{Imported, import_history};

/// What an [`Importer`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImportFormat {
    /// Our own, `docs/event-schema.md`.
    Ndjson,
    /// What the ROCm runtime writes to the file that `HSA_SVM_PROFILE` names.
    SvmProfile,
    /// Lines of the driver, bare or behind a time, as they stand in logs.
    Driver,
}

impl ImportFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::SvmProfile, Self::Driver];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::SvmProfile => "svm-profile",
            Self::Driver => "driver",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The format of a text that begins so.
    #[must_use]
    pub fn of_text(beginning: &[u8]) -> Self {
        match beginning.trim_ascii_start() {
            text if text.starts_with(b"{") => Self::Ndjson,
            text if text.starts_with(svm_profile::ANY_LINE) => Self::SvmProfile,
            _ => Self::Driver,
        }
    }
}

/// What the text does not say, and is assumed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Assumed {
    /// The GPUs, by the index that the text calls them. One that is not here gets a PCI address that no GPU
    /// has, `ffff:NN:00.0`.
    pub gpus: Vec<GpuId>,
    /// The process of events that name none: `HSA_SVM_PROFILE` is about one process and drops its number.
    pub pid: Option<u32>,
    /// What time it was when, to tell wall time from the driver's. Our own format says it itself.
    pub anchor: Anchor,
}

impl Assumed {
    /// No GPU and no process; times by `anchor`.
    #[must_use]
    pub fn by(anchor: Anchor) -> Self {
        Self { gpus: Vec::new(), pid: None, anchor }
    }
}

/// The items that a text holds, in its order. After an error nothing follows.
#[derive(Debug)]
pub struct Importer<R> {
    lines: Lines<R>,
    name: String,
    format: ImportFormat,
    state: State,
    lenient: bool,
    broken: u64,
    first_broken: Option<String>,
    ignored: u64,
    failed: bool,
}

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // it is handed on at once
#[non_exhaustive]
pub enum Entry {
    /// What follows is of this session. Only our own format has them.
    Session(Box<Session>),
    /// An event or gap.
    Item(Item),
}

/// What is known so far.
#[derive(Debug)]
struct State {
    gpus: Gpus,
    pid: Option<u32>,
    anchor: Anchor,
    /// The text itself has told what time it was when.
    anchored: bool,
    boots: Boots,
    /// The latest time of the driver.
    now_boot_ns: u64,
    seqs: HashMap<GpuId, u64>,
    /// That events may be missing, by the item before.
    possible_loss: Option<Gap>,
    /// The GPUs of the session that the text tells of.
    recorded: Vec<GpuId>,
}

/// What a line is.
#[allow(clippy::large_enum_variant)] // it is handed on at once
enum Meaning {
    Item(Item),
    Session(Box<Session>),
    /// Nothing that is imported: a span, a heading, an empty line.
    Nothing,
}

/// Why a line cannot be imported.
type Broken = String;

impl<R: BufRead> Importer<R> {
    /// Reads `input`, which errors call `name`.
    pub fn new(name: &str, input: R, format: ImportFormat, assumed: Assumed) -> Self {
        let state = State {
            gpus: Gpus::new(assumed.gpus),
            pid: assumed.pid,
            anchor: assumed.anchor,
            anchored: false,
            boots: Boots::default(),
            now_boot_ns: 0,
            seqs: HashMap::new(),
            possible_loss: None,
            recorded: Vec::new(),
        };
        Self {
            lines: Lines::new(input),
            name: name.to_owned(),
            format,
            state,
            lenient: false,
            broken: 0,
            first_broken: None,
            ignored: 0,
            failed: false,
        }
    }

    /// Leaves out lines that cannot be read, and [counts](Self::broken) them.
    #[must_use]
    pub fn lenient(mut self, lenient: bool) -> Self {
        self.lenient = lenient;
        self
    }

    /// Lines so far that were left out because they could not be read.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Which of them was the first, and what is wrong with it.
    #[must_use]
    pub fn first_broken(&self) -> Option<&str> {
        self.first_broken.as_deref()
    }

    /// Lines so far that hold something else than an event, a gap or a session.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// What comes next: an item, or the session that the following ones are of.
    ///
    /// # Errors
    /// Where the text cannot be read, or a line means nothing and the import is not
    /// [lenient](Self::lenient); nothing follows.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.failed {
            return Ok(None);
        }
        let entry = self.read_entry();
        self.failed = entry.is_err();
        entry
    }

    fn read_entry(&mut self) -> Result<Option<Entry>> {
        if let Some(gap) = self.state.possible_loss.take() {
            return Ok(Some(Entry::Item(Item::Gap(gap))));
        }
        loop {
            let number = self.lines.number() + 1;
            let read = self.lines.next();
            let fail = |error| Error::io(format!("read line {number} of {}", self.name), error);
            let meaning = match read.map_err(fail)? {
                Line::End => return Ok(None),
                Line::TooLong => Err(format!("it is longer than {} bytes", lines::LONGEST)),
                Line::Text(text) => match self.format {
                    ImportFormat::Ndjson => ndjson::read(text, &mut self.state),
                    ImportFormat::SvmProfile => svm_profile::read(text, &mut self.state),
                    ImportFormat::Driver => driver::read(text, &mut self.state),
                },
            };
            match meaning {
                Ok(Meaning::Item(item)) => return Ok(Some(Entry::Item(item))),
                Ok(Meaning::Session(session)) => return Ok(Some(Entry::Session(session))),
                Ok(Meaning::Nothing) => self.ignored += 1,
                Err(why) => self.refuse(format!("line {number} of {}: {why}", self.name))?,
            }
        }
    }

    /// A line that means nothing.
    fn refuse(&mut self, what: String) -> Result<()> {
        if !self.lenient {
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .with_hint("a lenient import (--lenient) leaves out such lines and counts them"));
        }
        self.broken += 1;
        self.first_broken.get_or_insert(what);
        Ok(())
    }
}

/// The items alone.
impl<R: BufRead> Iterator for Importer<R> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        loop {
            match self.next_entry().transpose()? {
                Ok(Entry::Item(item)) => return Some(Ok(item)),
                Ok(Entry::Session(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl State {
    /// Goes by the first `anchor` of each boot.
    fn take_anchor(&mut self, anchor: Anchor) {
        let rebooted = self.boots.has_begun(anchor);
        if rebooted {
            self.now_boot_ns = 0;
            self.seqs.clear();
        }
        if rebooted || !self.anchored {
            self.anchor = anchor;
            self.anchored = true;
        }
    }

    /// The event of the driver's line `raw`. Where it carries no time, `boot_ns` is taken, which is by `clock`. A line
    /// that may tell of dropped events is followed by a gap: nothing else in a text says that events are missing.
    fn item(&mut self, gpu: GpuId, (boot_ns, clock): (u64, Clock), raw: &[u8]) -> Item {
        let record = decode(raw);
        let (stamp, drop_count) = (record.stamp(), record.drop_count());
        let at = stamp.or(drop_count.map(|count| count.at));
        let boot_ns = at.map_or(boot_ns, |at| at.boot_ns);
        let since = self.now_boot_ns;
        self.now_boot_ns = since.max(boot_ns);
        let unix_ns = self.anchor.unix_ns_of(boot_ns);
        if drop_count.is_some() {
            self.may_miss(gpu, since, boot_ns);
        }
        let clock = if at.is_some() { Clock::Driver } else { clock };
        let time = EventTime { boot_ns, clock, received_boot_ns: boot_ns, unix_ns };
        let next = self.seqs.entry(gpu).or_default();
        let seq = *next;
        *next += 1;
        let facts =
            EventFacts { gpu, seq, time, doubtful: false, pid: None, comm: Comm::NONE, raw };
        Item::Event(Event::from_facts(facts))
    }

    /// Events of `gpu` may be missing, by what was read last.
    fn may_miss(&mut self, gpu: GpuId, since_boot_ns: u64, boot_ns: u64) {
        self.possible_loss = Some(Gap {
            gpu,
            cause: GapCause::DriverFifoFull,
            count: None,
            from_boot_ns: since_boot_ns.min(boot_ns),
            to_boot_ns: boot_ns,
            unix_ns: self.anchor.unix_ns_of(boot_ns),
        });
    }
}
