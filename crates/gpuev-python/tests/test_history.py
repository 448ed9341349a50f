"""What `gpuev record` wrote, read again."""

from __future__ import annotations

import builtins
import json
import shutil
import sqlite3
import subprocess
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from conftest import needed_program, repository

import gpuev
from gpuev import EventType, Severity

OLD = repository() / "crates/gpuev-store/tests/fixtures/v1.db"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A history of two GPUs."""
    path = tmp_path_factory.mktemp("history") / "run.db"
    source = "sim:mixed,gpus=2,seed=126,rate=20000,count=3000"
    command = [needed_program(), "record", "--output", str(path), "--source", source]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def replayed(recorded):
    """What the program says of it."""
    command = [needed_program(), "replay", "--json", str(recorded)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_items_are_what_replay_shows(recorded, replayed):
    # The simulated driver drops what a busy machine does not read in time, and that is told.
    told = [item for item in replayed if item.get("cause") == "driver_fifo_full"]
    assert told or len(replayed) >= 3000
    history = gpuev.read_history(recorded)
    assert [item.to_dict() for item in history] == replayed
    assert [item.to_dict() for item in history] == replayed  # begins anew
    events = [item for item in replayed if item["record"] == "event"]
    assert [event.to_dict() for event in history.events()] == events


def test_what_is_chosen(recorded, replayed):
    def read(**wanted):
        return [item.to_dict() for item in gpuev.read_history(recorded, **wanted).events()]

    events = [item for item in replayed if item["record"] == "event"]
    of = [event for event in events if event["type"] in ("VMFAULT", "GPU_PRE_RESET")]
    assert of
    assert read(types=["vmfault", EventType.GPU_PRE_RESET]) == of
    pid = of[0]["pid"] or events[0]["pid"]
    assert read(pids=[pid]) == [event for event in events if event["pid"] == pid]
    severe = [event for event in events if event["severity"] == "critical"]
    assert read(severity="critical") == read(severity=Severity.CRITICAL) == severe
    middle = events[len(events) // 2]
    moment = datetime.fromisoformat(middle["time"][:26] + "+00:00")  # to the microsecond below
    later, earlier = read(start=moment), read(end=moment)
    assert middle in later
    assert middle not in earlier
    assert len(later) + len(earlier) == len(events)
    assert read(start=moment.timestamp() + 3600) == read(end=0) == []
    here = moment.astimezone(timezone(timedelta(hours=5)))
    assert read(start=here) == later
    assert read(start=moment.astimezone().replace(tzinfo=None)) == later


def test_spans_are_those_of_the_stream(recorded):
    history = gpuev.read_history(recorded)
    spans = list(history.spans())
    assert [span.to_dict() for span in spans] == [span.to_dict() for span in gpuev.spans(history)]
    assert {str(span.type) for span in spans} == {str(type) for type in gpuev.SpanType}


def test_spans_do_not_pair_across_recordings(tmp_path, recorded):
    both = tmp_path / "both.db"
    shutil.copy(recorded, both)
    source = "sim:mixed,gpus=2,seed=126,rate=20000,count=3000"
    command = [needed_program(), "record", "--output", str(both), "--source", source]
    subprocess.run(command, check=True, capture_output=True)
    items = list(gpuev.read_history(both))
    before = len(list(gpuev.read_history(recorded)))
    alone = Counter(str(span.outcome) for span in gpuev.spans(items[:before]))
    assert alone["open"] > 0
    alone.update(str(span.outcome) for span in gpuev.spans(items[before:]))
    assert Counter(str(span.outcome) for span in gpuev.read_history(both).spans()) == alone


def test_spans_are_chosen_after_they_are_paired(recorded):
    whole = [span for span in gpuev.read_history(recorded).spans() if span.type == "MIGRATION"]
    chosen = gpuev.read_history(recorded, types="MIGRATE_END")
    assert [span.to_dict() for span in chosen.spans()] == [span.to_dict() for span in whole]
    assert {str(event.type) for event in chosen.events()} == {"MIGRATE_END"}


def arrow_types():
    import pyarrow

    return {
        "name": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "text": pyarrow.string(),
        "bool": pyarrow.bool_(),
        "i32": pyarrow.int32(),
        "u32": pyarrow.uint32(),
        "u64": pyarrow.uint64(),
        "time": pyarrow.timestamp("ns", tz="UTC"),
    }


def test_arrow_has_the_documented_columns_types_and_units(recorded):
    pytest.importorskip("pyarrow")
    schema = gpuev.read_history(recorded).batches().schema
    document = (repository() / "docs/export-formats.md").read_text()
    rows = [line.strip("|").split("|") for line in document.splitlines() if line.startswith("| `")]
    rows = [[cell.strip().replace("`", "") for cell in row] for row in rows]
    documented = [tuple(row[:3]) for row in rows if row[1] in arrow_types()]
    assert len(documented) > 40
    units = [(field.metadata or {}).get(b"unit", b"").decode() for field in schema]
    kinds = {type: kind for kind, type in arrow_types().items()}
    assert [(f.name, kinds[f.type], unit) for f, unit in zip(schema, units)] == documented


@pytest.mark.parametrize("spans", [True, False])
def test_arrow_is_what_is_exported(recorded, tmp_path, spans):
    parquet = pytest.importorskip("pyarrow.parquet")
    exported = tmp_path / "run.parquet"
    command = [needed_program(), "export", str(recorded), "--output", str(exported)]
    subprocess.run([*command, *([] if spans else ["--no-spans"])], check=True, capture_output=True)
    table = gpuev.read_history(recorded).to_arrow(spans=spans)
    table.validate(full=True)
    found = parquet.read_table(exported)
    assert table.schema.equals(found.schema)
    assert [field.metadata for field in table.schema] == [
        {b"unit": field.metadata[b"unit"]} if b"unit" in (field.metadata or {}) else None
        for field in found.schema
    ]
    assert table.to_pylist() == found.to_pylist()


def test_batches_are_read_as_they_are_asked_for(recorded):
    pytest.importorskip("pyarrow")
    history = gpuev.read_history(recorded)
    sizes = [batch.num_rows for batch in history.batches(rows=1000)]
    assert set(sizes[:-1]) == {1000}
    whole = history.to_arrow()
    assert sum(sizes) == whole.num_rows > 3000
    assert history.batches(rows=7).read_all().to_pylist() == whole.to_pylist()
    assert history.batches(rows=1 << 20).read_all().to_pylist() == whole.to_pylist()
    for rows in (0, -1, 1 << 21):
        with pytest.raises(gpuev.InvalidInputError):
            history.batches(rows=rows)
    nothing = gpuev.read_history(recorded, end=0).to_arrow()
    assert (nothing.num_rows, nothing.schema) == (0, whole.schema)


def test_pandas_keeps_numbers_whole(recorded):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = gpuev.read_history(recorded).to_pandas()
    assert str(frame.dtypes["time"]) == "datetime64[ns, UTC]"
    assert frame.dtypes["address"] == pandas.UInt64Dtype()
    faults = frame[frame["type"] == "PAGE_FAULT_START"]
    first = next(gpuev.read_history(recorded, types="PAGE_FAULT_START").events())
    assert int(faults["address"].iloc[0]) == first.address
    assert faults["time"].iloc[0].value == first.unix_ns
    assert frame["error"].isna().any()
    spans = frame[frame["record"] == "span"]
    durations = [span.duration_ns for span in gpuev.read_history(recorded).spans()]
    assert spans["duration_ns"].sum() == sum(filter(None, durations))
    by_type = frame[frame["record"] == "event"].groupby("type", observed=True).size().to_dict()
    assert by_type == Counter(str(event.type) for event in gpuev.read_history(recorded).events())


def test_a_history_is_read_while_it_is_written(tmp_path):
    path = tmp_path / "run.db"
    source = "sim:mixed,rate=2000"
    recorder = subprocess.Popen([needed_program(), "record", "--output", str(path), "--source", source])
    try:
        seen = 0
        while seen < 2_000:
            assert recorder.poll() is None
            try:
                seen = sum(1 for _ in gpuev.read_history(path))
            except gpuev.Error:
                assert seen == 0  # there is none yet
    finally:
        recorder.terminate()
        assert recorder.wait() == 0
    assert sum(1 for _ in gpuev.read_history(path)) >= seen


def test_a_file_of_the_first_version(tmp_path):
    old = tmp_path / "v1.db"
    shutil.copy(OLD, old)
    history = gpuev.read_history(old)
    (count,) = sqlite3.connect(old).execute("SELECT count(*) FROM event").fetchone()
    assert sum(1 for _ in history.events()) == count > 0


@pytest.mark.parametrize("content", [None, b"", b"something else", b"SQLite format 3\0" + bytes(100)])
def test_what_is_no_history_is_told_at_once(tmp_path, content):
    path = tmp_path / "run.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(gpuev.Error) as raised:
        gpuev.read_history(path)
    assert "run.db" in str(raised.value)
    assert raised.value.hint
    with pytest.raises(gpuev.InvalidInputError):
        gpuev.read_history(OLD, types="nothing")


@pytest.mark.parametrize(
    ("missing", "call", "hint"),
    [
        ("pyarrow", "batches", "gpuev[history]"),
        ("pyarrow", "to_arrow", "gpuev[history]"),
        ("pandas", "to_pandas", "pip install pandas pyarrow"),
    ],
)
def test_what_is_not_installed_is_told(recorded, monkeypatch, missing, call, hint):
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=missing) as raised:
        getattr(gpuev.read_history(recorded), call)()
    assert hint in str(raised.value)


def test_gpus_and_words_for_moments(recorded, replayed):
    def read(**wanted):
        return [item.to_dict() for item in gpuev.read_history(recorded, **wanted).events()]

    events = [item for item in replayed if item["record"] == "event"]
    of = [event for event in events if event["gpu"]["index"] == 1]
    assert 0 < len(of) < len(events)
    bdf = of[0]["gpu"]["bdf"]
    gpu = next(gpuev.read_history(recorded, gpus=1).events()).gpu
    for gpus in (1, "1", bdf, bdf.upper(), f"{bdf}/0", of[0]["gpu"]["unique_id"], gpu, [gpu], [1, bdf]):
        assert read(gpus=gpus) == of, gpus
    with pytest.raises(gpuev.InvalidInputError, match="no such GPU"):
        read(gpus=99)
    assert read(since="1h ago") == events
    assert read(until="1h ago") == []
    with pytest.raises(gpuev.InvalidInputError, match="10m ago"):
        read(since="soon")


def test_sessions_notes_and_report(recorded, replayed, tmp_path):
    events = [item for item in replayed if item["record"] == "event"]
    history = gpuev.read_history(recorded)
    (session,) = history.sessions()
    assert session["record"] == "session"
    assert len(session["gpus"]) == 2
    assert session["ended"] is not None
    assert history.notes() == []
    report = history.report(top=2)
    told = report.to_dict()
    assert told == json.loads(report.to_json())
    assert told["events"] == len(events)
    assert len(told["fault_hot_spots"]["entries"]) <= 2
    of_one = gpuev.read_history(recorded, gpus=1).report().to_dict()["events"]
    assert of_one == sum(event["gpu"]["index"] == 1 for event in events)
    assert str(report) == report.text()
    assert max(map(len, report.text(width=80).splitlines())) <= 80
    assert " UTC" in report.text(utc=True).splitlines()[0]
    assert report.html().endswith("</html>\n")


def test_several_files_and_folders_are_one_history(recorded, tmp_path):
    alone = gpuev.read_history(recorded)
    copy = tmp_path / "copy.db"
    copy.write_bytes(recorded.read_bytes())
    whole = list(alone)
    both = gpuev.read_history([recorded, tmp_path])
    assert both.paths == [str(recorded), str(tmp_path)] and both.path.endswith(str(tmp_path))
    assert len(list(both)) == len(whole) and both.sessions() == alone.sessions()
    assert both.unreadable == {}
    assert both.report().to_dict()["events"] == alone.report().to_dict()["events"]
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"nothing of the kind")
    folder = gpuev.read_history(tmp_path)
    assert len(list(folder)) == len(whole)
    assert list(folder.unreadable) == [str(broken)]
    assert folder.report().to_dict()["complete"] is False
    with pytest.raises(gpuev.InvalidInputError):
        gpuev.read_history([recorded, broken])
