//! Our values as SQLite's, and back.
//!
//! SQLite's integers are signed: a time beyond 292 years of uptime, which only a malformed line carries,
//! keeps its bits and shows as negative.

use gpuev::{Bdf, Comm, GpuId, UniqueId};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, ToSql};

/// Bytes as text where they are text that every tool shows whole, else as a blob.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

fn text_or_blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    ToSqlOutput::Borrowed(if is_text { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) })
}

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(text_or_blob(self.0))
    }
}

/// A task name, or NULL.
pub(crate) struct Name(pub(crate) Comm);

impl ToSql for Name {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let name = self.0.bytes();
        Ok(name.map_or(ToSqlOutput::Owned(Value::Null), text_or_blob))
    }
}

/// The bytes of a text or a blob; none of anything else.
pub(crate) fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

/// An integer as it was before it was stored; 0 where somebody put something else there.
pub(crate) fn unsigned(value: ValueRef<'_>) -> u64 {
    signed(value).cast_unsigned()
}

/// As [`unsigned`], of a signed one.
pub(crate) fn signed(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(number) => number,
        _ => 0,
    }
}

/// The columns of a GPU, in the order of [`GPU_COLUMNS`], from `at` on.
pub(crate) fn gpu(row: &Row<'_>, at: usize) -> rusqlite::Result<GpuId> {
    let bdf: String = row.get(at + 1)?;
    let unique_id: Option<String> = row.get(at + 2)?;
    let unreadable = |column: usize| {
        rusqlite::Error::InvalidColumnType(column, "gpu".to_owned(), rusqlite::types::Type::Text)
    };
    Ok(GpuId {
        index: row.get(at)?,
        bdf: bdf.parse::<Bdf>().map_err(|_| unreadable(at + 1))?,
        unique_id: match unique_id {
            Some(digits) => {
                let number = u64::from_str_radix(&digits, 16).map_err(|_| unreadable(at + 2))?;
                Some(UniqueId(number))
            }
            None => None,
        },
        partition: row.get(at + 3)?,
        kfd_id: row.get(at + 4)?,
    })
}

/// What makes a [`GpuId`].
pub(crate) const GPU_COLUMNS: &str = "gpu_index, bdf, unique_id, partition_id, kfd_id";
