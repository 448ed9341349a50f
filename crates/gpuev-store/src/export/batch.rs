//! Rows column by column, in the memory layout of Apache Arrow: for programs that compute with all of a
//! history.

use std::io::Write;

use super::columns::{COLUMNS, Cell, Column, Kind, Row};
use super::{Entry, Origin};

/// Bytes of a column from which on a batch is full.
const MOST_BYTES: usize = 1 << 30;

/// The values of one column, as Arrow lays them out, in the byte order of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ColumnData {
    /// A bit for each row, from the lowest of the first byte on: whether there is a value.
    pub validity: Vec<u8>,
    /// Of text, `i32`: where each row begins in `data`, and where the last one ends. Of other kinds nothing.
    pub offsets: Vec<u8>,
    /// Text one behind the other, `bool` as bits, numbers and times (`i64`) as they are; where there is no
    /// value, zeros.
    pub data: Vec<u8>,
}

/// Some rows of [`columns`](super::columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    rows: usize,
    columns: Vec<ColumnData>,
}

impl Default for Batch {
    fn default() -> Self {
        let begin = |column: &Column| {
            let is_text = matches!(column.kind, Kind::Name | Kind::Text);
            let offsets = if is_text { 0_i32.to_ne_bytes().to_vec() } else { Vec::new() };
            ColumnData { offsets, ..ColumnData::default() }
        };
        Self { rows: 0, columns: COLUMNS.iter().map(begin).collect() }
    }
}

impl Batch {
    /// Appends a row; whether there is room for another. There is for some million.
    pub fn push(&mut self, entry: &Entry, origin: &Origin) -> bool {
        let row = Row::of(entry.record(), origin);
        for (column, data) in COLUMNS.iter().zip(&mut self.columns) {
            data.push(self.rows, (column.get)(&row), column.kind.width());
        }
        self.rows += 1;
        // Offsets are i32; a row's texts are far less than what this leaves.
        self.columns.iter().all(|column| column.data.len() < MOST_BYTES)
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in order.
    #[must_use]
    pub fn into_columns(self) -> Vec<ColumnData> {
        self.columns
    }
}

impl ColumnData {
    fn push(&mut self, row: usize, cell: Cell<'_>, width: usize) {
        set_bit(&mut self.validity, row, !matches!(cell, Cell::Null));
        match cell {
            Cell::Bool(value) => set_bit(&mut self.data, row, value),
            Cell::I32(number) => self.data.extend(number.to_ne_bytes()),
            Cell::U32(number) => self.data.extend(number.to_ne_bytes()),
            Cell::U64(number) => self.data.extend(number.to_ne_bytes()),
            Cell::Time(unix_ns) => self.data.extend(unix_ns.to_ne_bytes()),
            Cell::Text(text) => {
                let _infallible = write!(self.data, "{text}");
            }
            Cell::Null if width > 0 => self.data.resize(self.data.len() + width, 0),
            // Text has no width.
            Cell::Null if !self.offsets.is_empty() => {}
            Cell::Null => set_bit(&mut self.data, row, false),
        }
        if !self.offsets.is_empty() {
            // `Batch::push` sees to it that it fits.
            let end = i32::try_from(self.data.len()).unwrap_or(i32::MAX);
            self.offsets.extend(end.to_ne_bytes());
        }
    }
}

fn set_bit(bits: &mut Vec<u8>, row: usize, value: bool) {
    bits.resize(row / 8 + 1, 0);
    if value {
        bits[row / 8] |= 1 << (row % 8);
    }
}
