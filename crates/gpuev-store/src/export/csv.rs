//! Comma-separated values, RFC 4180: a header, one line a record, lines ended by CR LF.
//!
//! What others chose (names, causes, lines of the driver) is harmless to who opens the file: control
//! characters are escaped, so that a record is one line; and so is a leading `=`, `+`, `-` or `@`, which a
//! spreadsheet would compute. [`gpuev::message::unescape`] gives the bytes back.

use std::fmt::Write as _;
use std::io::{self, Write};

use gpuev::message::Printable;
use gpuev::time::Rfc3339;

use super::columns::{COLUMNS, Cell, Row, Text};
use super::{Buffered, Origin, Record};

pub(super) struct Csv<W> {
    out: Buffered<W>,
    field: String,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(out: W) -> Self {
        let mut out = Buffered::new(out);
        for (index, column) in COLUMNS.iter().enumerate() {
            if index > 0 {
                out.text.push(',');
            }
            out.text.push_str(column.name);
        }
        out.text.push_str("\r\n");
        Self { out, field: String::new() }
    }

    pub(super) fn push(&mut self, record: Record<'_>, origin: &Origin) -> io::Result<()> {
        let row = Row::of(record, origin);
        for (index, column) in COLUMNS.iter().enumerate() {
            if index > 0 {
                self.out.text.push(',');
            }
            self.write_cell((column.get)(&row));
        }
        self.out.text.push_str("\r\n");
        self.out.write_if_full()
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.out.finish()
    }

    /// Writing to a `String` cannot fail.
    fn write_cell(&mut self, cell: Cell<'_>) {
        let out = &mut self.out.text;
        let _infallible = match cell {
            Cell::Null => Ok(()),
            Cell::Bool(value) => write!(out, "{value}"),
            Cell::I32(number) => write!(out, "{number}"),
            Cell::U32(number) => write!(out, "{number}"),
            Cell::U64(number) => write!(out, "{number}"),
            Cell::Time(unix_ns) => write!(out, "{}", Rfc3339(unix_ns)),
            Cell::Text(Text::Word(word)) => out.write_str(word),
            Cell::Text(text) => {
                self.field.clear();
                let written = write_text(&mut self.field, text);
                quote(out, &self.field);
                written
            }
        };
    }
}

fn write_text(out: &mut String, text: Text<'_>) -> std::fmt::Result {
    match text {
        Text::Bytes(bytes) => match bytes.split_first() {
            Some((first @ (b'=' | b'+' | b'-' | b'@'), rest)) => {
                write!(out, "\\x{first:02x}{}", Printable(rest))
            }
            _ => write!(out, "{}", Printable(bytes)),
        },
        text => write!(out, "{text}"),
    }
}

/// A field in quotes where it needs them.
fn quote(out: &mut String, field: &str) {
    if !field.contains(['"', ',', '\r', '\n']) {
        out.push_str(field);
        return;
    }
    out.push('"');
    for (index, part) in field.split('"').enumerate() {
        if index > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}
