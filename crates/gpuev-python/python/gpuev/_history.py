"""What was recorded: as events and spans, as Arrow, as pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from json import loads
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Union

from ._core import (
    Event,
    Gap,
    Gpu,
    GpuId,
    HistoryEntries,
    HistoryFile,
    HistoryReport,
    Span,
    history_columns,
    moment,
)
from ._enums import EventType, Severity
from ._watch import Item, event_types, severity_place
from .errors import InvalidInputError

if TYPE_CHECKING:
    import pandas
    import pyarrow

Moment = Union[datetime, float, str]
AnyGpu = Union[Gpu, GpuId, str, int]

# Items that are taken from the core at a time.
_PORTION = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_history(
    path: str | PathLike[str] | Iterable[str | PathLike[str]] | None = None,
    *,
    gpus: Iterable[AnyGpu] | AnyGpu | None = None,
    types: Iterable[EventType | str] | EventType | str | None = None,
    pids: Iterable[int] | None = None,
    severity: Severity | str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
) -> History:
    """
    Read what `gpuev record` wrote; also while it is written.

        history = gpuev.read_history("run.db", types="VMFAULT", since="10m ago")
        frame = history.to_pandas()
        print(history.report())

    Args:
        path: a file, a folder of histories, or several of them, which are read as one: what several hold counts once;
            the newest that `gpuev record` wrote by itself if None
        gpus: only these, as `Gpu`, `GpuId`, index, PCI address, or unique id
        types: only these types, as `EventType` or by name, and spans that they begin or end; gaps always
        pids: only events of these processes
        severity: only events at least this severe
        since: only what happened at or after this moment: a datetime, seconds since 1970, or words as `gpuev replay
            --from` takes them
        until: only what happened before this moment
        start: the former name of `since`
        end: the former name of `until`

    Raises:
        NotFoundError: there is no such file (a FileNotFoundError)
        PermissionDeniedError: it may not be read (a PermissionError)
        InvalidInputError: it is no history or damaged; a GPU, type or severity that does not exist
        IoError: the operating system does not read it
    """
    ids, unknown = event_types(types)
    since = start if since is None else since
    until = end if until is None else until
    return History(
        HistoryFile(
            None if path is None else _several_paths(path),
            None if gpus is None else [_selector(gpu) for gpu in _several_gpus(gpus)],
            ids,
            unknown,
            None if pids is None else list(pids),
            None if severity is None else severity_place(severity),
            None if since is None else _unix_ns(since),
            None if until is None else _unix_ns(until),
        )
    )


def _several_paths(path: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[str]:
    return [fspath(one) for one in ((path,) if isinstance(path, (str, PathLike)) else path)]


def _several_gpus(gpus: Iterable[AnyGpu] | AnyGpu) -> Iterable[AnyGpu]:
    return (gpus,) if isinstance(gpus, (Gpu, GpuId, str, int)) else gpus


def _selector(gpu: AnyGpu) -> str:
    return f"{gpu.bdf}/{gpu.partition}" if isinstance(gpu, (Gpu, GpuId)) else str(gpu)


class Report:
    """
    What the events of a history came to: counts, rates, durations, what went wrong and where.

    `print(report)` shows what `gpuev report` shows; `to_dict()` is the documented JSON (docs/report-schema.md).
    """

    def __init__(self, report: HistoryReport) -> None:
        self._report = report

    def to_json(self) -> str:
        """The documented JSON, on one line."""
        return self._report.to_json()

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON as a dict."""
        found: dict[str, Any] = loads(self.to_json())
        return found

    def text(self, width: int | None = None, *, utc: bool = False) -> str:
        """For people, in lines of at most `width` characters, in local time or UTC."""
        return self._report.text(width, utc)

    def html(self, *, utc: bool = False) -> str:
        """One HTML page with charts that needs nothing else, in local time or UTC."""
        return self._report.html(utc)

    def __str__(self) -> str:
        return self.text()


class History:
    """
    A recorded history, or what was chosen of it. Whatever reads it begins at its first item, and needs memory
    for some of its items only, however many there are; but for `to_arrow` and `to_pandas`.

    `for item in history` gives events and gaps in the order in which they were recorded.
    """

    def __init__(self, file: HistoryFile) -> None:
        self._file = file

    def _open(self, *, spans: bool) -> HistoryEntries:
        return self._file.entries(spans)

    @property
    def path(self) -> str:
        """The file or folder; of several, their names with a comma between them."""
        return ", ".join(self.paths)

    @property
    def paths(self) -> list[str]:
        """The files and folders."""
        return [fspath(path) for path in self._file.paths]

    @property
    def unreadable(self) -> dict[str, str]:
        """Files in the folders that cannot be read, and why: nothing else is of them."""
        return {fspath(path): why for path, why in self._file.unreadable()}

    def __repr__(self) -> str:
        return f"<gpuev.History {self.path}>"

    def sessions(self) -> list[dict[str, Any]]:
        """
        The runs of recorders that the file has, oldest first, as the documented JSON (docs/export-formats.md): host,
        boot, kernel, whose events were seen, when it began and ended, and the GPUs.
        """
        return [loads(line) for line in self._file.sessions().splitlines()]

    def notes(self) -> list[dict[str, Any]]:
        """What the agent noted of the chosen GPUs and time: `health` and `ras` records (docs/event-schema.md)."""
        return [loads(line) for line in self._file.notes().splitlines()]

    def report(self, *, top: int | None = None) -> Report:
        """
        What the chosen events came to.

        Args:
            top: entries of each list of the most frequent
        """
        return Report(self._file.report(top))

    def _entries(self, *, spans: bool) -> Iterator[Item | Span]:
        entries = self._open(spans=spans)
        while portion := entries.take(_PORTION):
            yield from portion

    def __iter__(self) -> Iterator[Item]:
        return (one for one in self._entries(spans=False) if isinstance(one, (Event, Gap)))

    def events(self) -> Iterator[Event]:
        """The events, without the gaps between them."""
        return (one for one in self._entries(spans=False) if isinstance(one, Event))

    def spans(self) -> Iterator[Span]:
        """
        Starts paired with their ends, as `gpuev.spans` does; not across the end of a recording.

        They find each other before `types`, `pids` and `severity` choose: with `types="MIGRATE_END"` migrations
        are whole.
        """
        return (one for one in self._entries(spans=True) if isinstance(one, Span))

    def batches(self, rows: int = 65_536, *, spans: bool = True) -> pyarrow.RecordBatchReader:
        """
        Events, gaps and spans as Arrow batches of so many rows, read as they are asked for.

        The columns are those of `docs/export-formats.md`; `record` says what a row is. Times are timestamps in
        nanoseconds, UTC; other units are in the metadata of each field, under `unit`.

        Raises:
            ImportError: pyarrow is not installed
        """
        pyarrow = _pyarrow()
        if not 0 < rows <= 1 << 20:
            hint = "give a number from 1 to 1048576"
            raise InvalidInputError(f"batches of {rows} rows; {hint}", hint)
        schema = _schema(pyarrow)
        return pyarrow.RecordBatchReader.from_batches(
            schema, self._batches(pyarrow, schema, rows, spans)
        )

    def _batches(self, pyarrow: Any, schema: Any, rows: int, spans: bool) -> Iterator[Any]:
        entries = self._open(spans=spans)
        while True:
            count, columns = entries.take_columns(rows)
            if not count:
                return
            arrays = [
                _array(pyarrow, field.type, count, parts) for field, parts in zip(schema, columns)
            ]
            yield pyarrow.RecordBatch.from_arrays(arrays, schema=schema)

    def to_arrow(self, *, spans: bool = True) -> pyarrow.Table:
        """All of it as an Arrow table; see `batches`."""
        return self.batches(spans=spans).read_all().unify_dictionaries()

    def to_pandas(self, *, spans: bool = True) -> pandas.DataFrame:
        """
        All of it as a pandas data frame; see `batches`. Numbers that may be missing are pandas' own nullable
        ones, so that addresses and counters of 64 bits stay what they are.

        Raises:
            ImportError: pyarrow or pandas is not installed
        """
        pandas = _pandas()
        pyarrow = _pyarrow()
        nullable = {
            pyarrow.bool_(): pandas.BooleanDtype(),
            pyarrow.int32(): pandas.Int32Dtype(),
            pyarrow.uint32(): pandas.UInt32Dtype(),
            pyarrow.uint64(): pandas.UInt64Dtype(),
        }
        return self.to_arrow(spans=spans).to_pandas(types_mapper=nullable.get)


def _unix_ns(at: Moment) -> int:
    if isinstance(at, str):
        return moment(at)
    if not isinstance(at, datetime):
        return round(at * 1_000_000_000)
    since = at.astimezone(timezone.utc) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _array(pyarrow: Any, type: Any, count: int, parts: tuple[bytes, bytes, bytes]) -> Any:
    """An array of the core's bytes: validity, data, and of text the offsets between them."""
    validity, offsets, data = parts
    used = (validity, offsets, data) if offsets else (validity, data)
    plain = pyarrow.string() if offsets else type
    array = pyarrow.Array.from_buffers(plain, count, [pyarrow.py_buffer(part) for part in used])
    return array if type == plain else array.dictionary_encode()


def _schema(pyarrow: Any) -> Any:
    types = {
        "name": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "text": pyarrow.string(),
        "bool": pyarrow.bool_(),
        "i32": pyarrow.int32(),
        "u32": pyarrow.uint32(),
        "u64": pyarrow.uint64(),
        "time": pyarrow.timestamp("ns", tz="UTC"),
    }
    return pyarrow.schema(
        pyarrow.field(name, types[kind], metadata={"unit": unit} if unit else None)
        for name, kind, unit in history_columns()
    )


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("Arrow needs pyarrow: pip install gpuev[history]") from error
    return pyarrow


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a data frame needs pandas: pip install pandas pyarrow") from error
    return pandas


__all__ = ["History", "Report", "read_history"]
