//! Items from text that other programs, or we, have written.
//!
//! Any input is met with an item or an error that names its line; lines are bounded, so memory is too.
//!
//! A line is read by two tables: one takes off what loggers put around it (syslog, journald, dmesg), the other
//! says what may be in it (a line of the driver, what `amd-smi event` prints, an item of gpuev).

mod amd_smi;
mod boots;
mod driver;
mod envelope;
mod gpus;
mod journal;
mod json;
mod lines;
mod looks;
mod ndjson;
mod state;
mod svm_profile;
mod time;
mod write;

use std::io::BufRead;

use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, GpuId, Item, Result};

use crate::session::Session;
use envelope::View;
use journal::{Journal, Step};
use lines::{Line, Lines};
use state::State;

pub use looks::kind_of_file;
pub use write::{Imported, import_history};

/// What an [`Importer`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImportFormat {
    /// Our own, `docs/event-schema.md`.
    Ndjson,
    /// What the ROCm runtime writes to the file that `HSA_SVM_PROFILE` names.
    SvmProfile,
    /// Lines of the driver, bare or in a log.
    Driver,
    /// What `amd-smi event` prints.
    AmdSmi,
}

impl ImportFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ndjson, Self::SvmProfile, Self::Driver, Self::AmdSmi];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::SvmProfile => "svm-profile",
            Self::Driver => "driver",
            Self::AmdSmi => "amd-smi",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
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
    /// When the text was written, in nanoseconds since 1970: times without a year are in the last one before it.
    pub written_unix_ns: i64,
    /// Only lines of this host, or that name none. A text of several hosts is not imported without one.
    pub host: Option<String>,
}

impl Assumed {
    /// No GPU and no process; times by `anchor`.
    #[must_use]
    pub fn by(anchor: Anchor) -> Self {
        let written_unix_ns = Anchor::now().unix_ns;
        Self { gpus: Vec::new(), pid: None, anchor, written_unix_ns, host: None }
    }
}

/// The items that a text holds, in its order. After an error nothing follows.
#[derive(Debug)]
pub struct Importer<R> {
    lines: Lines<R>,
    name: String,
    format: Option<ImportFormat>,
    state: State,
    journal: Journal,
    lenient: bool,
    broken: u64,
    first_broken: Option<String>,
    ignored: u64,
    parts: u64,
    looks: Option<&'static str>,
    ended: bool,
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

/// What a line is.
#[allow(clippy::large_enum_variant)] // it is handed on at once
#[derive(Debug)]
enum Meaning {
    Item(Item),
    /// An item that has a number in its session.
    Numbered(Item, i64),
    Session(Box<Session>),
    /// Nothing that is imported: a span, a heading, an empty line.
    Nothing,
    /// A part of what further lines tell.
    Part,
    /// An event whose time or nature is known later.
    Held,
}

/// Why a line cannot be imported.
type Broken = String;

/// What a line is, or why it is nothing.
type Read = std::result::Result<Meaning, Broken>;

/// What a line may say. `None` where it is nothing of the kind.
struct Payload {
    format: ImportFormat,
    read: fn(&View<'_>, &mut State) -> Option<Read>,
}

/// All that are known.
const PAYLOADS: [Payload; 4] = [
    Payload { format: ImportFormat::Ndjson, read: ndjson::in_view },
    Payload { format: ImportFormat::SvmProfile, read: svm_profile::in_view },
    Payload { format: ImportFormat::Driver, read: State::driver_line },
    Payload { format: ImportFormat::AmdSmi, read: State::amd_smi_line },
];

impl<R: BufRead> Importer<R> {
    /// Reads `input`, which errors call `name` and which holds `format`, maybe in a log.
    pub fn new(name: &str, input: R, format: ImportFormat, assumed: Assumed) -> Self {
        Self::of(name, input, Some(format), assumed)
    }

    /// Reads `input`, which errors call `name`, whatever it holds. What the driver writes is then taken for that
    /// only if nothing else looks like it, or if the same program wrote such lines.
    pub fn detecting(name: &str, input: R, assumed: Assumed) -> Self {
        Self::of(name, input, None, assumed)
    }

    fn of(name: &str, input: R, format: Option<ImportFormat>, assumed: Assumed) -> Self {
        Self {
            lines: Lines::new(input),
            name: name.to_owned(),
            format,
            state: State::new(assumed, format),
            journal: Journal::default(),
            lenient: false,
            broken: 0,
            first_broken: None,
            ignored: 0,
            parts: 0,
            looks: None,
            ended: false,
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

    /// Lines so far that hold a part of an event, which another line ends.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// Events so far that no kernel up to now writes: unknown kinds.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.state.unknown()
    }

    /// What the text seems to be where nothing of it can be imported.
    #[must_use]
    pub fn seems(&self) -> Option<&'static str> {
        self.looks
    }

    /// What had to be assumed of the times of the text, in a few words.
    #[must_use]
    pub fn assumptions(&self) -> Option<String> {
        self.state.assumptions()
    }

    /// A session that begins at `started`, with what the text says of its machine.
    #[must_use]
    pub fn session_from(&self, started: Anchor) -> Session {
        self.state.session_from(started)
    }

    /// Counts the boots that the text tells of, up to that of the last entry.
    #[must_use]
    pub fn boot(&self) -> u32 {
        self.state.boot_of_last()
    }

    /// The number of the last item in its session, where the text tells it.
    #[must_use]
    pub fn item_number(&self) -> Option<i64> {
        self.state.number_of_last()
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
        loop {
            while let Some((number, why)) = self.state.next_refused() {
                self.refuse(number, &why)?;
            }
            if let Some(item) = self.state.next_ready() {
                return Ok(Some(Entry::Item(item)));
            }
            if self.ended {
                return Ok(None);
            }
            let number = self.lines.number() + 1;
            match self.read_line(number)? {
                Ok(Meaning::Item(item)) => self.state.push_ready(item),
                Ok(Meaning::Numbered(item, number)) => self.state.push_numbered(item, number),
                Ok(Meaning::Session(session)) => return Ok(Some(Entry::Session(session))),
                Ok(Meaning::Nothing) => self.ignored += 1,
                Ok(Meaning::Part) => {
                    self.ignored += 1;
                    self.parts += 1;
                }
                Ok(Meaning::Held) => {}
                Err(why) => self.refuse(number, &why)?,
            }
        }
    }

    /// Reads a line, or that there is none any more.
    fn read_line(&mut self, number: u64) -> Result<Read> {
        let name = &self.name;
        let read = self.lines.next();
        let fail = |error| Error::io(format!("read line {number} of {name}"), error);
        self.state.at_line(number);
        let reader = LineReader {
            format: self.format,
            state: &mut self.state,
            looks: &mut self.looks,
            journal: &mut self.journal,
        };
        Ok(match read.map_err(fail)? {
            Line::End => {
                self.ended = true;
                let last = reader.line(b"");
                self.state.end();
                // No line: it counts as none.
                last.map(|last| match last {
                    Meaning::Nothing | Meaning::Part => Meaning::Held,
                    last => last,
                })
            }
            Line::TooLong => Err(format!("it is longer than {} bytes", lines::LONGEST)),
            Line::Text(text) => reader.line(text.strip_suffix(b"\r").unwrap_or(text)),
        })
    }

    /// A line that means nothing.
    fn refuse(&mut self, number: u64, why: &str) -> Result<()> {
        let what = format!("line {number} of {}: {why}", self.name);
        if !self.lenient {
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .with_hint("a lenient import (--lenient) leaves out such lines and counts them"));
        }
        self.broken += 1;
        self.first_broken.get_or_insert(what);
        Ok(())
    }
}

/// What it takes to read a line.
struct LineReader<'a> {
    format: Option<ImportFormat>,
    state: &'a mut State,
    looks: &'a mut Option<&'static str>,
    journal: &'a mut Journal,
}

impl LineReader<'_> {
    fn line(self, line: &[u8]) -> Read {
        let view = match self.journal.line(line) {
            Step::Other => View::of_line(line),
            Step::Taken => return Ok(Meaning::Part),
            Step::Entry(view) => *view,
        };
        if let Some(mark) = line.strip_prefix(b"-- ") {
            self.state.journal_mark(mark);
            return Ok(Meaning::Nothing);
        }
        self.view(view)
    }

    /// Tries each payload at each depth of the envelopes.
    fn view(self, mut view: View<'_>) -> Read {
        let (mut why, mut looks) = (None, None);
        loop {
            looks = looks.or_else(|| looks::kind_of_line(view.text.trim_ascii()));
            for payload in &PAYLOADS {
                if self.format.is_some_and(|only| only != payload.format) {
                    continue;
                }
                match (payload.read)(&view, self.state) {
                    Some(Ok(meaning)) => return Ok(meaning),
                    Some(Err(broken)) => drop(why.get_or_insert(broken)),
                    None => {}
                }
            }
            match view.open(self.state.calendar()) {
                Some(inner) => view = inner,
                None => break,
            }
        }
        self.nothing(&view, why, looks)
    }

    /// No payload has read the line: it is broken, or another program's.
    fn nothing(self, view: &View<'_>, why: Option<Broken>, looks: Option<&'static str>) -> Read {
        let text = view.text.trim_ascii();
        let looks = looks.or(view.opened.outermost());
        match (why, text.is_empty()) {
            (Some(why), _) => Err(why),
            (None, true) => Ok(Meaning::Nothing),
            (None, false) => {
                *self.looks = self.looks.or(looks);
                // A log of many programs holds lines of each.
                if view.program.is_some() {
                    return Ok(Meaning::Nothing);
                }
                let it_holds = match self.format {
                    None | Some(ImportFormat::Driver) => {
                        "it holds no line of the driver".to_owned()
                    }
                    Some(format) => format!("it holds nothing of the format {}", format.name()),
                };
                Err(match looks {
                    Some(looks) => format!("{it_holds}; it seems to be {looks}"),
                    None => it_holds,
                })
            }
        }
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
