//! What was recorded, read in portions.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gpuev::{Error, ErrorKind, Filter};
use gpuev_store::export::{
    self, Batch, ColumnData, Entries, Entry, ExportFormat, Exporter, Origin,
};
use gpuev_store::report::{Layout, Options, Report};
use gpuev_store::{Histories, Query, Zone, unix_ns_of};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::event::PyItem;
use crate::filter::filter;
use crate::fork::{Local, quietly};
use crate::span::PySpan;

/// A history, and what of it is wanted.
#[pyclass(frozen, module = "gpuev._core")]
pub(crate) struct HistoryFile {
    paths: Vec<PathBuf>,
    query: Query,
    wanted: Filter,
}

#[pymethods]
impl HistoryFile {
    /// Opens the histories at `paths`, to say what is wrong with them; the newest one if None. Times are in
    /// nanoseconds since 1970.
    #[new]
    #[pyo3(signature = (paths, gpus, types, unknown, pids, severity, from_unix_ns, to_unix_ns))]
    #[expect(clippy::too_many_arguments, reason = "Python's own signature has them as one")]
    fn new(
        py: Python<'_>,
        paths: Option<Vec<PathBuf>>,
        gpus: Option<Vec<String>>,
        types: Option<Vec<u32>>,
        unknown: bool,
        pids: Option<Vec<u32>>,
        severity: Option<usize>,
        from_unix_ns: Option<i64>,
        to_unix_ns: Option<i64>,
    ) -> PyResult<Self> {
        let mut wanted = filter(types, unknown, pids, severity);
        let paths = paths.unwrap_or_else(|| vec![gpuev_store::default_history_to_read()]);
        let mut query = Query::new();
        if let Some(from) = from_unix_ns {
            query = query.from_unix_ns(from);
        }
        if let Some(to) = to_unix_ns {
            query = query.to_unix_ns(to);
        }
        let chosen = quietly(py, || {
            let histories = Histories::open(&paths)?;
            gpus.map(|gpus| histories.choose_gpus(&gpus)).transpose()
        });
        if let Some(gpus) = chosen.map_err(|error| raise(py, &error))? {
            wanted = wanted.gpus(gpus);
        }
        Ok(Self { paths, query, wanted })
    }

    /// The files and folders.
    #[getter]
    fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    /// Files in the folders that cannot be read, and why.
    fn unreadable(&self, py: Python<'_>) -> PyResult<Vec<(PathBuf, String)>> {
        let histories = self.open(py)?;
        let unreadable = histories.unreadable().iter();
        Ok(unreadable.map(|(path, error)| (path.clone(), error.to_string())).collect())
    }

    /// Events, gaps and, where they are wanted, spans, from the first on.
    fn entries(&self, py: Python<'_>, spans: bool) -> PyResult<HistoryEntries> {
        let history = self.open(py)?;
        let entries = Entries::new(history, &self.query, self.wanted.clone());
        let entries = if spans { entries } else { entries.without_spans() };
        Ok(HistoryEntries { entries: Local::new(Mutex::new(entries)) })
    }

    /// The sessions as the documented JSON, each on one line.
    fn sessions(&self, py: Python<'_>) -> PyResult<String> {
        let sessions = || {
            let out = Exporter::new(ExportFormat::Ndjson, Vec::new()).map_err(unwritten)?;
            let mut out = out.only(self.wanted.clone());
            for recorded in Histories::open(&self.paths)?.sessions()? {
                out.session(recorded.id, &recorded.session).map_err(unwritten)?;
            }
            out.finish().map(|(lines, _)| lines).map_err(unwritten)
        };
        text(py, quietly(py, sessions))
    }

    /// What the agent noted, as the documented JSON, each on one line.
    fn notes(&self, py: Python<'_>) -> PyResult<String> {
        let notes = || {
            let histories = Histories::open(&self.paths)?;
            let query = self.query.clone().filter(self.wanted.clone());
            let mut out = Exporter::new(ExportFormat::Ndjson, Vec::new()).map_err(unwritten)?;
            let mut entries = histories.entries(&query).only_notes();
            while let Some(entry) = entries.next_entry()? {
                if let gpuev_store::Entry::Note(note) = entry {
                    out.note(&note).map_err(unwritten)?;
                }
            }
            out.finish().map(|(lines, _)| lines).map_err(unwritten)
        };
        text(py, quietly(py, notes))
    }

    /// What the events came to; lists of the most frequent have `top` entries.
    #[pyo3(signature = (top))]
    fn report(&self, py: Python<'_>, top: Option<usize>) -> PyResult<HistoryReport> {
        let mut options = Options::default();
        options.top = top.unwrap_or(options.top);
        let query = self.query.clone().filter(self.wanted.clone());
        let report = quietly(py, || Histories::open(&self.paths)?.report(&query, options));
        report.map(HistoryReport).map_err(|error| raise(py, &error))
    }
}

impl HistoryFile {
    fn open(&self, py: Python<'_>) -> PyResult<Histories> {
        quietly(py, || Histories::open(&self.paths)).map_err(|error| raise(py, &error))
    }
}

fn unwritten(error: std::io::Error) -> Error {
    Error::io("write JSON", error)
}

/// Lines of JSON, which are UTF-8.
fn text(py: Python<'_>, lines: Result<Vec<u8>, Error>) -> PyResult<String> {
    let lines = lines.map_err(|error| raise(py, &error))?;
    Ok(String::from_utf8_lossy(&lines).into_owned())
}

/// What the events of a history came to.
#[pyclass(frozen, module = "gpuev._core")]
pub(crate) struct HistoryReport(Report);

#[pymethods]
impl HistoryReport {
    /// The documented JSON (docs/report-schema.md), on one line.
    fn to_json(&self) -> String {
        self.0.json()
    }

    /// For a terminal, in lines of at most `width` characters where that is given.
    #[pyo3(signature = (width = None, utc = false))]
    fn text(&self, width: Option<usize>, utc: bool) -> String {
        let zone = if utc { Zone::utc() } else { Zone::local().0 };
        self.0.text_in(&match width {
            Some(width) => Layout::of_width(zone, width),
            None => Layout::wide(zone),
        })
    }

    /// One HTML page with charts that needs nothing else.
    #[pyo3(signature = (utc = false))]
    fn html(&self, utc: bool) -> String {
        self.0.html_in(&if utc { Zone::utc() } else { Zone::local().0 })
    }
}

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
        self.read(py, most, |origin, entry| batch.push(&entry, &origin))?;
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
        mut visit: impl FnMut(Origin, Entry) -> bool + Send,
    ) -> PyResult<()> {
        let entries = self.entries.get().ok_or_else(|| {
            let text = "the history is open in the parent process";
            let error = Error::new(ErrorKind::Stopped, text).with_hint("read it anew after fork()");
            raise(py, &error)
        })?;
        let read = quietly(py, || {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..most {
                let Some((origin, entry)) = entries.next_entry()? else { break };
                if !visit(origin, entry) {
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

/// What a moment in words means, in nanoseconds since 1970: `10m ago`, `11:45`.
#[pyfunction]
pub(crate) fn moment(py: Python<'_>, text: &str) -> PyResult<i64> {
    unix_ns_of(text, gpuev::time::Anchor::now()).map_err(|error| raise(py, &error))
}
