//! A history, or any stream of items, in the formats of other programs.
//!
//! All of them are written as the items come, in memory that does not grow with their number.
//! `docs/export-formats.md` says what the columns and tracks are.

mod columns;
mod csv;
mod trace;

use std::io::{self, Write};

use gpuev::{Item, json};

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// What an [`Exporter`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One JSON object a line, `docs/event-schema.md`: all that is known, to be imported again.
    Ndjson,
    /// One line an item with a fixed set of columns, RFC 4180.
    Csv,
    /// A time line in Chrome's trace event format, for Perfetto and `chrome://tracing`.
    Trace,
}

impl ExportFormat {
    /// All that this build has.
    pub const ALL: &[Self] = &[Self::Ndjson, Self::Csv, Self::Trace];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Trace => "trace",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }
}

/// What is to know of a column of the tables that are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// As the header has it.
    pub name: &'static str,
    /// `text`, `bool`, `i32`, `u32`, `u64`, or `time`.
    pub kind: &'static str,
    /// Unit and clock; empty where there is none.
    pub unit: &'static str,
}

/// The columns of [`ExportFormat::Csv`], in order.
pub fn columns() -> impl Iterator<Item = ColumnInfo> {
    columns::COLUMNS.iter().map(|column| ColumnInfo {
        name: column.name,
        kind: column.kind.name(),
        unit: column.unit,
    })
}

/// Writes items in one of the formats.
///
/// [`finish`](Self::finish) makes the output whole: what is dropped before is a truncated file, though
/// lines and traces can be read up to there.
pub struct Exporter<W: Write + Send>(Sink<W>);

enum Sink<W: Write + Send> {
    Ndjson(Buffered<W>),
    Csv(csv::Csv<W>),
    Trace(Box<trace::Trace<W>>),
}

impl<W: Write + Send> Exporter<W> {
    /// Begins to write to `out`, which needs no buffer of its own.
    ///
    /// # Errors
    /// Where `out` fails.
    pub fn new(format: ExportFormat, out: W) -> io::Result<Self> {
        Ok(Self(match format {
            ExportFormat::Ndjson => Sink::Ndjson(Buffered::new(out)),
            ExportFormat::Csv => Sink::Csv(csv::Csv::new(out)),
            ExportFormat::Trace => Sink::Trace(Box::new(trace::Trace::new(out))),
        }))
    }

    /// Writes the next item.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn push(&mut self, item: &Item) -> io::Result<()> {
        match &mut self.0 {
            Sink::Ndjson(out) => {
                json::write_item(&mut out.text, item);
                out.text.push('\n');
                out.write_if_full()
            }
            Sink::Csv(csv) => csv.push(item),
            Sink::Trace(trace) => trace.push(item),
        }
    }

    /// What follows was recorded by another run, maybe after another boot: starts and ends do not pair
    /// across this, and times of `CLOCK_BOOTTIME` do not compare.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn new_session(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Sink::Trace(trace) => trace.new_session(),
            _ => Ok(()),
        }
    }

    /// Writes what is still to be written, and gives the output back.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Sink::Ndjson(out) => out.finish(),
            Sink::Csv(csv) => csv.finish(),
            Sink::Trace(trace) => trace.finish(),
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
