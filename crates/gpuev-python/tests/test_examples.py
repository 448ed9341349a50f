"""Our own nine programs, `examples/python`, on a simulated machine: each tells what happened, event by event."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import repository
from on_machine import ALL, OnMachine, Program, Scene, all_running
from truth import Raised, without_proc

FOLDER = repository() / "examples/python"
Facts = Callable[[str, Path], dict[int, list]]


def lines(pattern: str, gpu: int | None = None) -> Facts:
    """The groups of each line that matches, by GPU: the first group, unless there is only one."""

    def found(text: str, folder: Path) -> dict[int, list]:
        by_gpu: dict[int, list] = {}
        for match in re.finditer(pattern, text, re.MULTILINE):
            number, *facts = match.groups() if gpu is None else (gpu, *match.groups())
            by_gpu.setdefault(int(number), []).append(tuple(without_proc(fact) for fact in facts))
        return by_gpu

    return found


def throttlings(events: list[Raised]) -> list[tuple[str, ...]]:
    told = r"throttling: (.+) \(throttled (\d+) times .*"
    return [re.fullmatch(told, event.message).groups() for event in events]


def resets(events: list[Raised]) -> list[tuple[str, ...]]:
    """Those that are over."""
    told = []
    causes = {}
    for event in events:
        number, _, cause = re.fullmatch(r"GPU reset (\d+) [a-z ]+(: (.*))?", event.message).groups()
        if event.type == "GPU_PRE_RESET":
            causes[number] = cause
        else:
            told.append((number, causes.pop(number), "completed"))
    return told


def faults(events: list[Raised]) -> list[tuple[str, ...]]:
    """Page faults that are over, with how long they took, and the other events as they are."""
    told = []
    starts = {}
    for event in events:
        if event.type.startswith("PAGE_FAULT"):
            how, address, pid = re.search(r"(\w+) at (\S+) by pid (\d+)", event.message).groups()
            if event.type == "PAGE_FAULT_START":
                starts[address, pid] = event.boot_ns
            else:
                took = event.boot_ns - starts.pop((address, pid))
                told.append((f"{address} {how} in {took} ns",))
        else:
            told.append((event.message,))
    return told


def processes(events: list[Raised]) -> list[tuple[str, ...]]:
    told = r"GPU process (\w+) by pid (\d+) \((.*)\)"
    found = (re.fullmatch(told, event.message).groups() for event in events)
    return [(pid, what, name) for what, pid, name in found]


def logged(text: str, folder: Path) -> dict[int, list]:
    found: dict[int, list] = {}
    for line in (folder / "gpu_events.jsonl").read_text().splitlines():
        event = json.loads(line)
        assert event["record"] == "event", event
        found.setdefault(event["gpu"]["index"], []).append((event["type"], event["raw"]))
    return found


def alarming(events: list[Raised]) -> list[tuple[str, str]]:
    severities = {
        "VMFAULT": "CRITICAL",
        "GPU_PRE_RESET": "CRITICAL",
        "GPU_POST_RESET": "WARNING",
        "THERMAL_THROTTLE": "WARNING",
    }
    told = []
    for event in events:
        severity = severities.get(event.type)
        if event.type == "MIGRATE_END" and ": failed, " in event.message:
            severity = "WARNING"
        if severity is not None:
            told.append((severity, event.message))
    return told


RESETS = ["GPU_PRE_RESET", "GPU_POST_RESET"]
PROGRAMS = [
    Program(
        "thermal",
        lines(r"^[\d:]+ throttled by (.+); (\d+) times so far$", gpu=0),
        ["THERMAL_THROTTLE"],
        throttlings,
        Scene("thermal", 1),
        first_gpu_only=True,
    ),
    Program(
        "resets",
        lines(r"^GPU (\d+): reset (\d+), (.+), (\w+): [\d.]+ s$"),
        RESETS,
        resets,
        Scene("reset", 1),
    ),
    Program(
        "memory_faults",
        lines(r"^GPU (\d+): (.+)$"),
        ["VMFAULT", "PAGE_FAULT_START", "PAGE_FAULT_END", "UNMAP_FROM_GPU"],
        faults,
    ),
    Program("everything", lines(r"^[\d:.]+ GPU (\d+): (\w+): (.+)$"), ALL),
    Program(
        "processes",
        lines(r"^GPU (\d+): (\d+) (started|ended) \((.*?)\)(?: after [\d.]+ s)?$"),
        ["PROCESS_START", "PROCESS_END"],
        processes,
        Scene("reset", 1),
    ),
    Program("logger", logged, ALL, lambda events: [(event.type, event.raw) for event in events]),
    Program(
        "alerts",
        lines(r"^(?=\w+: GPU (\d+))(\w+): GPU \d+ \(.*?\): (.+)$"),
        # A severity asks the driver for the types that can have it.
        ["VMFAULT", "THERMAL_THROTTLE", "MIGRATE_END", *RESETS],
        alarming,
    ),
    Program(
        "health",
        lines(r"^GPU (\d+): (.+): [\d.]+ °C, [\d.]+ W, \d+ % busy$"),
        ["THERMAL_THROTTLE", *RESETS],
        lambda events: [(event.message,) for event in events],
    ),
    Program(
        "ten_seconds",
        lines(r"^([A-Z_]+): (.+)$", gpu=0),
        ["THERMAL_THROTTLE"],
        scene=Scene("thermal", 1),
        endless=False,
        first_gpu_only=True,
    ),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, OnMachine]]:
    yield from all_running(PROGRAMS, FOLDER, tmp_path_factory)


def test_all_are_here(running: dict[str, OnMachine]) -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(running)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_it_tells_what_happened(program: Program, running: dict[str, OnMachine]) -> None:
    text = program.check(running[program.name])
    assert "Traceback" not in text
    assert "lost" not in text
