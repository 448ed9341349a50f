"""The nine programs of the page, unmodified, on a simulated machine: each tells what happened, event by event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import repository
from on_machine import ALL, OnMachine, Program, Scene, all_running
from truth import Raised, without_proc

FOLDER = repository().parent / "shared/seed/examples"


def blocks(pattern: str, text: str) -> dict[int, list]:
    """The groups `gpu`, `type` and `message` of each match, by GPU; those that there are."""
    found: dict[int, list] = {}
    for match in re.finditer(pattern, text, re.MULTILINE):
        groups = match.groupdict()
        facts = [without_proc(groups[key]) for key in ("type", "message") if key in groups]
        found.setdefault(int(groups.get("gpu", 0)), []).append(tuple(facts))
    return found


def comprehensive(text: str, folder: Path) -> dict[int, list]:
    return blocks(r"^\[[\d.]+s\] GPU (?P<gpu>\d+): (?P<type>\w+)\n  (?P<message>.+)$", text)


def in_context(text: str, folder: Path) -> dict[int, list]:
    return blocks(r"^  (?P<type>[A-Z_]+): (?P<message>.+)$", text)


def alerts(text: str, folder: Path) -> dict[int, list]:
    found: dict[int, list] = {}
    lines = r"^(?:Warning: (\w+) on GPU (\d+)|GPU (\d+): (\w+)\nAction: Notify)"
    for match in re.finditer(lines, text, re.MULTILINE):
        warned, on, gpu, critical = match.groups()
        found.setdefault(int(on or gpu), []).append(warned or critical)
    return found


def logged(text: str, folder: Path) -> dict[int, list]:
    found: dict[int, list] = {}
    # Only when it ends it writes; until then its lines tell how far it is.
    if "Log file written" not in text:
        return blocks(r"^\[\d+\] \S+ - GPU (?P<gpu>\d+): (?P<type>\w+)$", text)
    log = json.loads((folder / "gpu_events.log").read_text())
    assert log["total_events"] == len(log["events"])
    assert log["gpu_count"] == 2
    for number, event in enumerate(log["events"], 1):
        assert event["event_id"] == number
        assert event["gpu_bdf"] == f"0000:0{3 + event['gpu_index']}:00.0"
        fact = event["event_type"], without_proc(event["message"])
        found.setdefault(event["gpu_index"], []).append(fact)
    return found


def health(text: str, folder: Path) -> dict[int, list]:
    found: dict[int, list] = {}
    for gpu, told in re.findall(r"^--- GPU (\d+) .*---\n((?:Event: \w+\n)+)", text, re.MULTILINE):
        found.setdefault(int(gpu), []).extend(re.findall(r"Event: (\w+)", told))
    return found


MEMORY_TITLES = {
    "!!! VM FAULT": "VMFAULT",
    "Page Fault Started": "PAGE_FAULT_START",
    "Page Fault Resolved": "PAGE_FAULT_END",
    "Memory Unmapped": "UNMAP_FROM_GPU",
}


def memory(text: str, folder: Path) -> dict[int, list]:
    titles = "|".join(re.escape(title) for title in MEMORY_TITLES)
    pattern = rf"^(?P<type>{titles}).* GPU (?P<gpu>\d+).*\n(?:  Duration.*\n)?  Message: (?P<message>.+)$"
    found = blocks(pattern, text)
    return {gpu: [(MEMORY_TITLES[t], m) for t, m in facts] for gpu, facts in found.items()}


def one_fault_at_a_time(events: list[Raised]) -> list[tuple[str, str]]:
    """The program remembers one page fault for each GPU; the end of any other it leaves out."""
    told = []
    active = False
    for type, _, message, _ in events:
        if type == "PAGE_FAULT_END" and not active:
            continue
        active = type == "PAGE_FAULT_START" or active and type != "PAGE_FAULT_END"
        told.append((type, message))
    return told


def lifecycle(text: str, folder: Path) -> dict[int, list]:
    pattern = r"\] Process (?P<type>Started|Ended) on GPU (?P<gpu>\d+)\n  BDF: .*\n  Details: (?P<message>.+)$"
    found = blocks(pattern, text)
    names = {"Started": "PROCESS_START", "Ended": "PROCESS_END"}
    return {gpu: [(names[t], m) for t, m in facts] for gpu, facts in found.items()}


def resets(text: str, folder: Path) -> dict[int, list]:
    pattern = r"\] GPU (?P<gpu>\d+) \(.*\)\n  (?P<type>PRE|POST)-RESET: .*\n  Message: (?P<message>.+)$"
    found = blocks(pattern, text)
    return {gpu: [(f"GPU_{t}_RESET", m) for t, m in facts] for gpu, facts in found.items()}


def thermal(text: str, folder: Path) -> dict[int, list]:
    return blocks(r"Thermal Event #\d+\n  Event Type: (?P<type>\w+)\n  Message: (?P<message>.+)$", text)


def types_only(events: list[Raised]) -> list[str]:
    return [event.type for event in events]


CRITICAL = ["VMFAULT", "THERMAL_THROTTLE", "GPU_PRE_RESET", "GPU_POST_RESET"]
RESETS = ["GPU_PRE_RESET", "GPU_POST_RESET"]
PROGRAMS = [
    Program("comprehensive_monitor", comprehensive, ALL),
    Program(
        "context_manager",
        in_context,
        ["THERMAL_THROTTLE"],
        scene=Scene("thermal", count=100),
        endless=False,
        first_gpu_only=True,
    ),
    Program("critical_event_alerter", alerts, CRITICAL, types_only),
    Program("event_logger", logged, ALL),
    Program("health_aware_monitor", health, ["THERMAL_THROTTLE", *RESETS], types_only),
    Program("memory_fault_monitor", memory, list(MEMORY_TITLES.values()), one_fault_at_a_time),
    Program(
        "process_lifecycle_monitor", lifecycle, ["PROCESS_START", "PROCESS_END"], scene=Scene("reset", 1)
    ),
    Program("reset_monitor", resets, RESETS, scene=Scene("reset", 1)),
    Program(
        "thermal_monitor",
        thermal,
        ["THERMAL_THROTTLE"],
        scene=Scene("thermal", 1),
        endless=False,
        first_gpu_only=True,
    ),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, OnMachine]]:
    if not FOLDER.is_dir():
        pytest.skip(f"needs {FOLDER}")
    yield from all_running(PROGRAMS, FOLDER, tmp_path_factory)


def test_there_are_nine(running: dict[str, OnMachine]) -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(running)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_it_tells_what_happened(program: Program, running: dict[str, OnMachine]) -> None:
    text = program.check(running[program.name])
    assert "Traceback" not in text
    assert "N/A" not in text
