//! What was recorded, read in portions.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gpuev::{Error, ErrorKind};
use gpuev_store::export::{self, Batch, ColumnData, Entries, Entry};
use gpuev_store::{History, Query};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::event::PyItem;
use crate::filter::filter;
use crate::fork::{Local, quietly};
use crate::span::PySpan;

/// Events, gaps and, where they are wanted, spans of a history, from the first on. It holds some hundred of
/// them at a time.
#[pyclass(frozen, module = "gpuev._core")]
pub(crate) struct HistoryEntries {
    entries: Local<Mutex<Entries>>,
}

/// An event, a gap or a span.
#[derive(IntoPyObject)]
pub(crate) enum PyEntry {
    Item(PyItem),
    Span(PySpan),
}

impl From<Entry> for PyEntry {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Item(item) => Self::Item(item.into()),
            Entry::Span(span) => Self::Span(PySpan(span)),
        }
    }
}

/// Rows, and of each column the bytes of its validity, its offsets (of text) and its data.
type Columns<'py> = (usize, Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>)>);

#[pymethods]
impl HistoryEntries {
    /// Opens the history at `path`. Times are in nanoseconds since 1970.
    #[new]
    #[pyo3(signature = (path, types, unknown, pids, severity, from_unix_ns, to_unix_ns, spans))]
    #[expect(clippy::too_many_arguments, reason = "Python's own signature has them as one")]
    #[expect(clippy::needless_pass_by_value, reason = "what Python gives is owned")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        types: Option<Vec<u32>>,
        unknown: bool,
        pids: Option<Vec<u32>>,
        severity: Option<usize>,
        from_unix_ns: Option<i64>,
        to_unix_ns: Option<i64>,
        spans: bool,
    ) -> PyResult<Self> {
        let wanted = filter(types, unknown, pids, severity);
        let mut query = Query::new();
        if let Some(from) = from_unix_ns {
            query = query.from_unix_ns(from);
        }
        if let Some(to) = to_unix_ns {
            query = query.to_unix_ns(to);
        }
        let history = quietly(py, || History::open(&path)).map_err(|error| raise(py, &error))?;
        let entries = Entries::new(history, &query, wanted);
        let entries = if spans { entries } else { entries.without_spans() };
        Ok(Self { entries: Local::new(Mutex::new(entries)) })
    }

    /// The next entries, at most `most`; none at the end.
    fn take(&self, py: Python<'_>, most: usize) -> PyResult<Vec<PyEntry>> {
        let mut taken = Vec::new();
        self.read(py, most, |_, entry| {
            taken.push(entry);
            true
        })?;
        Ok(taken.into_iter().map(PyEntry::from).collect())
    }

    /// The next entries, at most `most`, column by column in Apache Arrow's layout; no rows at the end.
    fn take_columns<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Columns<'py>> {
        let mut batch = Batch::default();
        self.read(py, most, |session, entry| batch.push(&entry, Some(session)))?;
        let rows = batch.rows();
        let bytes = |column: ColumnData| {
            let ColumnData { validity, offsets, data, .. } = column;
            (PyBytes::new(py, &validity), PyBytes::new(py, &offsets), PyBytes::new(py, &data))
        };
        Ok((rows, batch.into_columns().into_iter().map(bytes).collect()))
    }
}

impl HistoryEntries {
    /// Gives `visit` the next entries, at most `most`, and as long as it wants more.
    fn read(
        &self,
        py: Python<'_>,
        most: usize,
        mut visit: impl FnMut(i64, Entry) -> bool + Send,
    ) -> PyResult<()> {
        let entries = self.entries.get().ok_or_else(|| {
            let text = "the history is open in the parent process";
            let error = Error::new(ErrorKind::Stopped, text).with_hint("read it anew after fork()");
            raise(py, &error)
        })?;
        let read = quietly(py, || {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..most {
                let Some((session, entry)) = entries.next_entry()? else { break };
                if !visit(session, entry) {
                    break;
                }
            }
            Ok(())
        });
        read.map_err(|error: Error| raise(py, &error))
    }
}

/// Name, kind and unit of each column.
#[pyfunction]
pub(crate) fn history_columns() -> Vec<(&'static str, &'static str, &'static str)> {
    export::columns().map(|column| (column.name, column.kind, column.unit)).collect()
}
