"""What a simulated machine raised, in the driver's own lines, and how a person is to be told of it.

It shares no code with gpuev: the lines are read here a second time.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

TYPES = [
    "NONE",
    "VMFAULT",
    "THERMAL_THROTTLE",
    "GPU_PRE_RESET",
    "GPU_POST_RESET",
    "MIGRATE_START",
    "MIGRATE_END",
    "PAGE_FAULT_START",
    "PAGE_FAULT_END",
    "QUEUE_EVICTION",
    "QUEUE_RESTORE",
    "UNMAP_FROM_GPU",
    "PROCESS_START",
    "PROCESS_END",
]
ALL = TYPES[1:]


class Raised(NamedTuple):
    """An event that was raised."""

    type: str
    # The driver's line, and what it says in words.
    raw: str
    message: str
    # Nanoseconds of CLOCK_BOOTTIME.
    boot_ns: int


class Truth:
    """The file that `gpuev sim run --truth` writes; it grows while the program runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _records(self, kind: str) -> list[dict]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        records = (json.loads(line) for line in lines if line.endswith("\n"))
        return [record for record in records if record["record"] == kind]

    def raised(self, types: list[str], gpus: int) -> dict[int, list[Raised]]:
        """The events of these types, by GPU, in order."""
        told: dict[int, list[Raised]] = {gpu: [] for gpu in range(gpus)}
        for record in self._records("raised"):
            type, raw = TYPES[record["id"]], record["raw"]
            if type in types and record["gpu"] in told:
                told[record["gpu"]].append(Raised(type, raw, message(raw), record["boot_ns"]))
        return told

    def count(self) -> int:
        """How many events were raised, of whatever type."""
        return len(self._records("raised"))

    def event_files(self) -> list[dict]:
        """What became of the lines of each event file; known once the program has ended."""
        return self._records("event_file")


def without_proc(told: str) -> str:
    """A message without what /proc added to the line: the host's names of simulated processes, and doubt."""
    told = told.removesuffix(" [doubtful: a task name may have forged it]")
    # Whether the number in the line is a process's or a thread's of one, /proc says.
    told = re.sub(r" by pid \d+(?: \(.*?\))?, thread (\d+)", r" by pid \1", told)
    told = told.replace(" by thread ", " by pid ", 1)
    if told.startswith(("memory fault", "GPU process")):
        return told
    return re.sub(r"( by pid \d+) \(.*?\)", r"\1", told)


def message(line: str) -> str:
    """What a line of the driver says, in words."""
    number, _, body = line.partition(" ")
    id = int(number, 16)
    if id == 1:
        pid, _, name = body.partition(":")
        return f"memory fault by pid {int(pid, 16)} ({name})"
    if id == 2:
        bits, _, count = body.partition(":")
        times = f"(throttled {int(count, 16)} times since the driver was loaded)"
        return f"throttling: {_throttlers(int(bits, 16))} {times}"
    if id in (3, 4):
        sequence, _, cause = body.partition(" ")
        what = "begins" if id == 3 else "is over"
        return f"GPU reset {int(sequence, 16)} {what}" + (f": {cause}" if cause else "")
    if id in (12, 13):
        pid, _, name = body.partition(" ")
        what = "started" if id == 12 else "ended"
        return f"GPU process {what} by pid {int(pid, 16)} ({name})"
    return _of_process(id, body)


def _of_process(id: int, body: str) -> str:
    _, pid, *words = body.split(" ")
    by = f" by pid {-int(pid)}"
    if id in (5, 6):
        return _migration(id, words, by)
    if id == 7:
        return f"page fault: {'write' if words[1] == 'W' else 'read'} at {_range(words[0])[0]}{by}"
    if id == 8:
        how = "migrated" if words[1] == "M" else "mapped"
        return f"page fault resolved: {how} at {_range(words[0])[0]}{by}"
    if id == 9:
        names = ["svm", "userptr", "ttm", "suspend", "criu_checkpoint", "criu_restore"]
        return f"queues evicted ({names[int(words[1])]}){by}"
    if id == 10:
        again = words[1:] == ["R"]
        return ("queue restore rescheduled" if again else "queues restored") + by
    address, size = _range(words[0])
    names = ["mmu_notify", "mmu_notify_migrate", "unmap_from_cpu"]
    return f"unmapped {size} at {address} ({names[int(words[2])]}){by}"


def _migration(id: int, words: list[str], by: str) -> str:
    address, size = _range(words[0])
    source, _, destination = words[1].partition("->")
    names = ["prefetch", "pagefault_gpu", "pagefault_cpu", "ttm_eviction"]
    trigger = names[int(words[3 if id == 5 else 2])]
    what = "migration" if id == 5 else "migrated"
    moved = f"{what}: {size} at {address} from {_place(source)} to {_place(destination)} ({trigger}){by}"
    error = 0 if id == 5 else -int(words[3])
    return moved + (f": failed, {os.strerror(error)} (os error {error})" if error else "")


def _range(word: str) -> tuple[str, str]:
    page, _, pages = word[1:-1].partition("(")
    size = int(pages, 16) * 4096
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift:
            break
    return f"{int(page, 16) * 4096:#x}", f"{size / (1 << shift):.1f} {unit}"


def _place(id: str) -> str:
    return "system memory" if int(id, 16) == 0 else f"GPU {int(id, 16):#x}"


_THROTTLERS = {
    0: "PPT0",
    16: "TDC_GFX",
    34: "TEMP_MEM",
    35: "TEMP_EDGE",
    36: "TEMP_HOTSPOT",
}


def _throttlers(bits: int) -> str:
    assert not bits & ~sum(1 << bit for bit in _THROTTLERS), f"{bits:#x}"
    return ", ".join(name for bit, name in _THROTTLERS.items() if bits >> bit & 1)
