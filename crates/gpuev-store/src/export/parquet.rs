//! Parquet with Arrow's types: the columns of CSV, their units in the metadata of the fields (`unit`).
//!
//! Names are dictionaries, times are timestamps of UTC. Rows are collected into batches and written as row groups,
//! so that memory stays bounded. Compressed with Snappy, which everything reads.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int32Builder, StringBuilder, StringDictionaryBuilder,
    TimestampNanosecondBuilder, UInt32Builder, UInt64Builder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::columns::{COLUMNS, Cell, Column, Kind, Row, Text};
use super::{Origin, Record};

/// Rows that are collected before they are encoded.
const BATCH_ROWS: usize = 8192;

/// Rows of a row group, which is held in memory, encoded, until it is full.
const ROW_GROUP_ROWS: usize = 131_072;

pub(super) struct Parquet<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    columns: Vec<Values>,
    rows: usize,
}

/// The values of a column, as they are collected.
enum Values {
    /// With room to write a name in.
    Name(StringDictionaryBuilder<Int32Type>, String),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    I32(Int32Builder),
    U32(UInt32Builder),
    U64(UInt64Builder),
    Time(TimestampNanosecondBuilder),
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let fields: Vec<Field> = COLUMNS.iter().map(field).collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("gpuev ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties));
        let columns = COLUMNS.iter().map(|column| Values::new(column.kind)).collect();
        Ok(Self { writer: writer.map_err(as_io)?, schema, columns, rows: 0 })
    }

    pub(super) fn push(&mut self, record: Record<'_>, origin: &Origin) -> io::Result<()> {
        let row = Row::of(record, origin);
        for (values, column) in self.columns.iter_mut().zip(COLUMNS) {
            values.push((column.get)(&row))?;
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS { self.write() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write()?;
        let mut out = self.writer.into_inner().map_err(as_io)?;
        out.flush()?;
        Ok(out)
    }

    fn write(&mut self) -> io::Result<()> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Values::take).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        let batch = batch.map_err(io::Error::other)?;
        self.writer.write(&batch).map_err(as_io)
    }
}

impl Values {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Name => Self::Name(StringDictionaryBuilder::new(), String::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::I32 => Self::I32(Int32Builder::new()),
            Kind::U32 => Self::U32(UInt32Builder::new()),
            Kind::U64 => Self::U64(UInt64Builder::new()),
            Kind::Time => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
        }
    }

    /// A cell of another kind than its column's would be an error of the table of columns, and is null.
    fn push(&mut self, cell: Cell<'_>) -> io::Result<()> {
        match (self, cell) {
            (Self::Name(values, room), Cell::Text(text)) => {
                let name = match text {
                    Text::Word(word) => word,
                    text => {
                        room.clear();
                        // Writing to memory cannot fail.
                        let _infallible = write!(room, "{text}");
                        room.as_str()
                    }
                };
                values.append(name).map_err(io::Error::other)?;
            }
            (Self::Name(values, _), _) => values.append_null(),
            (Self::Text(values), Cell::Text(text)) => {
                let _infallible = write!(values, "{text}");
                values.append_value("");
            }
            (Self::Text(values), _) => values.append_null(),
            (Self::Bool(values), Cell::Bool(value)) => values.append_value(value),
            (Self::Bool(values), _) => values.append_null(),
            (Self::I32(values), Cell::I32(number)) => values.append_value(number),
            (Self::I32(values), _) => values.append_null(),
            (Self::U32(values), Cell::U32(number)) => values.append_value(number),
            (Self::U32(values), _) => values.append_null(),
            (Self::U64(values), Cell::U64(number)) => values.append_value(number),
            (Self::U64(values), _) => values.append_null(),
            (Self::Time(values), Cell::Time(unix_ns)) => values.append_value(unix_ns),
            (Self::Time(values), _) => values.append_null(),
        }
        Ok(())
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Name(values, _) => Arc::new(values.finish()),
            Self::Text(values) => Arc::new(values.finish()),
            Self::Bool(values) => Arc::new(values.finish()),
            Self::I32(values) => Arc::new(values.finish()),
            Self::U32(values) => Arc::new(values.finish()),
            Self::U64(values) => Arc::new(values.finish()),
            Self::Time(values) => Arc::new(values.finish()),
        }
    }
}

fn field(column: &Column) -> Field {
    let data_type = match column.kind {
        Kind::Name => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Kind::Text => DataType::Utf8,
        Kind::Bool => DataType::Boolean,
        Kind::I32 => DataType::Int32,
        Kind::U32 => DataType::UInt32,
        Kind::U64 => DataType::UInt64,
        Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
    };
    let field = Field::new(column.name, data_type, true);
    if column.unit.is_empty() {
        return field;
    }
    field.with_metadata(HashMap::from([("unit".to_owned(), column.unit.to_owned())]))
}

/// A failure of the output itself keeps its kind: a closed pipe is no broken file.
fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}
