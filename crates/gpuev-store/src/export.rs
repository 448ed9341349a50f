//! A history, or any stream of items, in the formats of other programs.
//!
//! Every format holds the same records: events, gaps, and the spans that starts and ends come to. They are
//! written as the items come, in memory that does not grow with their number. `docs/export-formats.md` says
//! what the columns and tracks are.

mod batch;
mod columns;
mod csv;
mod entries;
mod ndjson;
mod pairs;
#[cfg(feature = "parquet")]
mod parquet;
mod trace;

use std::io::{self, Write};
use std::sync::Arc;

use gpuev::span::Span;
use gpuev::{Event, Filter, Gap, Item};

use crate::filter_text::FilterText;
use crate::note::RecordedNote;
use crate::recorded::RecordedSession;
use crate::session::Session;
use crate::uid::Uid;
use pairs::Pairs;

pub use batch::{Batch, ColumnData};
pub use entries::{Entries, Entry};

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// What an [`Exporter`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One JSON object a line, `docs/event-schema.md`: all that is known, to be imported again.
    Ndjson,
    /// One line a record with a fixed set of columns, RFC 4180.
    Csv,
    /// The columns of CSV with their types and units, for pandas, Polars and DuckDB. Needs the feature `parquet`.
    Parquet,
    /// A time line in Chrome's trace event format, for Perfetto and `chrome://tracing`.
    Trace,
}

impl ExportFormat {
    /// All formats, also those that this build lacks: see [`missing_feature`](Self::missing_feature).
    pub const ALL: &[Self] = &[Self::Ndjson, Self::Csv, Self::Parquet, Self::Trace];

    /// The cargo feature that this format needs and that this build lacks.
    #[must_use]
    pub const fn missing_feature(self) -> Option<&'static str> {
        match self {
            Self::Parquet if !cfg!(feature = "parquet") => Some("parquet"),
            _ => None,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Trace => "trace",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The format of files that are called so: by `.ndjson`, `.jsonl`, `.csv`, `.parquet`, `.trace` or
    /// `.trace.json`. A mere `.json` might be anything.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (stem, extension) = name.rsplit_once('.')?;
        match extension {
            "jsonl" => Some(Self::Ndjson),
            "json" if stem.ends_with(".trace") => Some(Self::Trace),
            other => Self::from_name(other),
        }
    }

    /// Whether it is not for a terminal.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Parquet)
    }
}

/// What is to know of a column of the tables that are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// As the header has it.
    pub name: &'static str,
    /// `name` (a text of few values), `text`, `bool`, `i32`, `u32`, `u64`, or `time`.
    pub kind: &'static str,
    /// Unit and clock; empty where there is none.
    pub unit: &'static str,
}

/// The columns of the tables and of a [`Batch`], in order.
pub fn columns() -> impl Iterator<Item = ColumnInfo> {
    columns::COLUMNS.iter().map(|column| ColumnInfo {
        name: column.name,
        kind: column.kind.name(),
        unit: column.unit,
    })
}

/// Writes items, and what they come to, in one of the formats.
///
/// [`finish`](Self::finish) makes the output whole: what is dropped before is a truncated file, though
/// lines and traces can be read up to there.
pub struct Exporter<W: Write + Send> {
    sink: Sink<W>,
    spans: Option<Pairs>,
    wanted: Filter,
    origin: Origin,
    /// The session whose entries come.
    recorded: Option<Arc<RecordedSession>>,
    written: Written,
}

/// How much an [`Exporter`] was given that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Written {
    /// Events.
    pub events: u64,
    /// Gaps.
    pub gaps: u64,
    /// Spans.
    pub spans: u64,
}

enum Sink<W: Write + Send> {
    Ndjson(ndjson::Ndjson<W>),
    Csv(csv::Csv<W>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::Parquet<W>>),
    Trace(Box<trace::Trace<W>>),
}

/// Where a record is from: the key of its item, and what its recorder left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Origin {
    /// Counts the sessions of what is exported.
    pub session: Option<i64>,
    /// The session's id.
    pub uid: Option<Uid>,
    /// What was recorded and exported of it, as JSON; nothing where that is all.
    pub filter: Option<Arc<str>>,
    /// The number of the item in its session; a span has none.
    pub item: Option<i64>,
}

impl Origin {
    /// Something of this session of which only `wanted` is exported.
    fn of(number: i64, session: &Session, wanted: &Filter) -> Self {
        let gpus = session.gpus.iter().map(|(gpu, _)| *gpu);
        let filter = FilterText::of_both(&session.filter, wanted, gpus);
        let filter = filter.map(|filter| filter.to_json().into());
        Self { session: Some(number), uid: Some(session.uid), filter, item: None }
    }
}

/// What is one record of an export.
#[derive(Clone, Copy)]
enum Record<'a> {
    /// And what its line decodes to.
    Event(&'a Event, gpuev::Record<'a>),
    Gap(&'a Gap),
    Span(&'a Span),
}

impl<W: Write + Send> Exporter<W> {
    /// Begins to write to `out`, which needs no buffer of its own.
    ///
    /// # Errors
    /// Where `out` fails, and where this build lacks the format.
    pub fn new(format: ExportFormat, out: W) -> io::Result<Self> {
        let sink = match format {
            ExportFormat::Ndjson => Sink::Ndjson(ndjson::Ndjson::new(out)),
            ExportFormat::Csv => Sink::Csv(csv::Csv::new(out)),
            #[cfg(feature = "parquet")]
            ExportFormat::Parquet => Sink::Parquet(Box::new(parquet::Parquet::new(out)?)),
            #[cfg(not(feature = "parquet"))]
            ExportFormat::Parquet => return Err(io::ErrorKind::Unsupported.into()),
            ExportFormat::Trace => Sink::Trace(Box::new(trace::Trace::new(out))),
        };
        let spans = Some(Pairs::default());
        Ok(Self {
            sink,
            spans,
            wanted: Filter::new(),
            origin: Origin::default(),
            recorded: None,
            written: Written::default(),
        })
    }

    /// Writes the facts only: events and gaps.
    #[must_use]
    pub fn without_spans(mut self) -> Self {
        self.spans = None;
        self
    }

    /// Writes only what passes `filter`. Starts and ends find each other before that: a span is written where
    /// its start or its end would be.
    #[must_use]
    pub fn only(mut self, filter: Filter) -> Self {
        self.wanted = filter;
        self
    }

    /// What follows was recorded by `session`, maybe after another boot: starts and ends do not pair across
    /// this, and times of `CLOCK_BOOTTIME` do not compare. `number` counts the sessions of a history.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn session(&mut self, number: i64, session: &Session) -> io::Result<()> {
        let Self { sink, spans, wanted, origin, written, .. } = self;
        origin.item = None;
        let mut result = Ok(());
        if let Some(spans) = spans {
            spans.begin(session, |span| sink.span(&span, wanted, (origin, written), &mut result));
        }
        result?;
        *origin = Origin::of(number, session, wanted);
        match sink {
            Sink::Ndjson(ndjson) => ndjson.session(session, wanted),
            Sink::Csv(_) => Ok(()),
            #[cfg(feature = "parquet")]
            Sink::Parquet(_) => Ok(()),
            Sink::Trace(trace) => trace.session(origin.filter.clone()),
        }
    }

    /// Writes the next entry of a history: of items, with the number that is a key with their session.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn entry(&mut self, entry: &crate::Entry) -> io::Result<()> {
        let number = |recorded: &Option<Arc<RecordedSession>>, item: i64| {
            recorded.as_ref().map(|recorded| recorded.number_of(item))
        };
        match entry {
            crate::Entry::Session(recorded) => {
                self.recorded = Some(Arc::clone(recorded));
                self.session(recorded.id, &recorded.session)
            }
            crate::Entry::Item(place, item) => {
                self.origin.item = number(&self.recorded, place.item);
                let pushed = self.push_item(item);
                self.origin.item = None;
                pushed
            }
            crate::Entry::Note(note) => match &mut self.sink {
                Sink::Ndjson(ndjson) if self.wanted.passes_gpu(note.gpu) => {
                    ndjson.note(note, number(&self.recorded, note.place.item))
                }
                _ => Ok(()),
            },
        }
    }

    /// Writes the next item, and the spans that end with it.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn push(&mut self, item: &Item) -> io::Result<()> {
        self.push_item(item)
    }

    fn push_item(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Event(event) => self.push_event(event),
            Item::Gap(gap) => self.push_gap(gap),
        }
    }

    /// The line is decoded once for all that is made of it.
    fn push_event(&mut self, event: &Event) -> io::Result<()> {
        let Self { sink, spans, wanted, origin, written, .. } = self;
        let record = event.record();
        if wanted.passes(&event.facts(), &record) {
            written.events += 1;
            sink.push(Record::Event(event, record), origin)?;
        }
        let Some(spans) = spans else { return Ok(()) };
        let mut result = Ok(());
        let done = |span| sink.span(&span, wanted, (origin, written), &mut result);
        spans.push_event(event, &record, done);
        result
    }

    fn push_gap(&mut self, gap: &Gap) -> io::Result<()> {
        let Self { sink, spans, wanted, origin, written, .. } = self;
        if wanted.passes_gpu(gap.gpu) {
            written.gaps += 1;
            sink.push(Record::Gap(gap), origin)?;
        }
        let Some(spans) = spans else { return Ok(()) };
        let mut result = Ok(());
        spans.push_gap(gap, |span| sink.span(&span, wanted, (origin, written), &mut result));
        result
    }

    /// Writes a note of the history where JSON lines are written; the tables and the time line have no place for
    /// it.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn note(&mut self, note: &RecordedNote) -> io::Result<()> {
        match &mut self.sink {
            Sink::Ndjson(ndjson) if self.wanted.passes_gpu(note.gpu) => ndjson.note(note, None),
            _ => Ok(()),
        }
    }

    /// Writes what is still to be written. Gives the output back, and how much was written.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn finish(mut self) -> io::Result<(W, Written)> {
        self.finish_spans()?;
        let out = match self.sink {
            Sink::Ndjson(ndjson) => ndjson.finish(),
            Sink::Csv(csv) => csv.finish(),
            #[cfg(feature = "parquet")]
            Sink::Parquet(parquet) => parquet.finish(),
            Sink::Trace(trace) => trace.finish(),
        };
        Ok((out?, self.written))
    }

    fn finish_spans(&mut self) -> io::Result<()> {
        let Self { sink, spans, wanted, origin, written, .. } = self;
        let mut result = Ok(());
        if let Some(spans) = spans {
            spans.finish(|span| sink.span(&span, wanted, (origin, written), &mut result));
        }
        result
    }
}

impl<W: Write + Send> Sink<W> {
    fn push(&mut self, record: Record<'_>, origin: &Origin) -> io::Result<()> {
        match self {
            Self::Ndjson(ndjson) => ndjson.push(record, origin.item),
            Self::Csv(csv) => csv.push(record, origin),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.push(record, origin),
            Self::Trace(trace) => trace.push(record),
        }
    }

    /// Writes `span` where it is wanted and nothing has failed.
    fn span(
        &mut self,
        span: &Span,
        wanted: &Filter,
        (origin, written): (&Origin, &mut Written),
        result: &mut io::Result<()>,
    ) {
        if result.is_ok() && wanted.passes_span(span) {
            written.spans += 1;
            *result = self.push(Record::Span(span), origin);
        }
    }
}

impl<W: Write + Send> std::fmt::Debug for Exporter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// Text on its way out.
struct Buffered<W> {
    out: W,
    text: String,
}

impl<W: Write> Buffered<W> {
    fn new(out: W) -> Self {
        Self { out, text: String::with_capacity(BUFFER_BYTES + 4096) }
    }

    fn write_if_full(&mut self) -> io::Result<()> {
        if self.text.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.out.write_all(self.text.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}
