"""A process that is killed in mid-read leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import gpuev_program
from on_machine import skip_unless_possible
from truth import Truth

READ_UNTIL_KILLED = """
import os, signal, threading
import amdsmi

amdsmi.amdsmi_init()
handle = amdsmi.amdsmi_get_processor_handles()[0]
reader = amdsmi.AmdSmiEventReader(handle, amdsmi.AmdSmiEvtNotificationType)
enough = threading.Event()

def kill():
    enough.wait()
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill).start()
read = 0
while True:
    read += len(reader.read(0, 20, timeout_ms=1000))
    if read > 1000:
        enough.set()
"""

READ_AFTERWARDS = """
import amdsmi

amdsmi.amdsmi_init()
handle = amdsmi.amdsmi_get_processor_handles()[0]
with amdsmi.AmdSmiEventReader(handle, amdsmi.AmdSmiEvtNotificationType) as reader:
    events = []
    while len(events) < 100:
        events += reader.read(0, 100, timeout_ms=1000)
    print("afterwards", len(events) >= 100, sum(event["lost_before"] for event in events))
"""


def shared():
    """What programs share with those after them. Other tests' machines lie there too; this one's does not."""
    words = ("gpuev", "smi", "rocm")
    names = (name for name in os.listdir("/dev/shm") if not name.startswith("gpuev-sim-"))
    return {name for name in names if any(word in name for word in words)}


def test_killed_in_mid_read(tmp_path):
    skip_unless_possible()
    temporary = tmp_path / "temporary"
    machines = tmp_path / "machines"
    for folder in (temporary, machines):
        folder.mkdir()
    (tmp_path / "until_killed.py").write_text(READ_UNTIL_KILLED)
    (tmp_path / "afterwards.py").write_text(READ_AFTERWARDS)
    before = shared()
    truth = Truth(tmp_path / "truth.json")
    python = f"TMPDIR={temporary} HOME={temporary} {sys.executable} -B"
    script = f"{python} until_killed.py; echo ended $?; {python} afterwards.py"
    command = [gpuev_program(), "sim", "run", "--scenario", "fault-storm", "--rate", "5000"]
    command += ["--listeners", "1", "--truth", str(truth.path), "--", "sh", "-c", script]
    environment = {**os.environ, "TMPDIR": str(machines)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    told = [line for line in ended.stdout.splitlines() if line]
    assert told == ["ended 137", "afterwards True 0"], ended
    assert list(temporary.iterdir()) == list(machines.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "afterwards.py",
        "machines",
        "temporary",
        "truth.json",
        "until_killed.py",
    ]
    assert shared() == before
    assert [file["closed"] for file in truth.event_files()] == [True, True]
