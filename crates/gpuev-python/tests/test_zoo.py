"""Machines as people found them: what gpuev and the documented API say of each, held against the right answers.

What is known to be told wrong stands in `zoo.txt`, a line for each: a right answer that breaks fails the
test, and so does a wrong one that was mended and still stands there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import amdsmi
import gpuev
from gpuev.sim import Machine, machines

ANSWERS = Path(__file__).parents[2] / "gpuev-sim" / "machines"
KNOWN = Path(__file__).parent / "zoo.txt"
MEMORIES = {"vram": amdsmi.AmdSmiMemoryType.VRAM, "gtt": amdsmi.AmdSmiMemoryType.GTT}


def right(name: str) -> list[dict]:
    return json.loads((ANSWERS / f"{name}.json").read_text())["right"]["gpus"]


def answer(function, *arguments):
    """What a function answers; None where it says that it cannot."""
    try:
        return function(*arguments)
    except amdsmi.AmdSmiLibraryException:
        return None


def told(gpu: gpuev.Gpu, handle: object) -> dict[str, object]:
    """What is said of a GPU, under the keys of the right answers."""
    asic = answer(amdsmi.amdsmi_get_gpu_asic_info, handle) or {}
    memory = {
        f"{name}_{what}": answer(function, handle, kind)
        for name, kind in MEMORIES.items()
        for what, function in (
            ("total", amdsmi.amdsmi_get_gpu_memory_total),
            ("used", amdsmi.amdsmi_get_gpu_memory_usage),
        )
    }
    return {
        "apu": gpu.apu,
        "hive": gpu.hive,
        "compute_units": asic.get("num_compute_units"),
        "uuid": answer(amdsmi.amdsmi_get_gpu_device_uuid, handle),
        "bdf": answer(amdsmi.amdsmi_get_gpu_device_bdf, handle),
        **memory,
    }


def is_right(value: object, expected: object) -> bool:
    """What is not known is not told, whether the source has it or not."""
    if expected == "unknown":
        expected = None
    return value == expected or (expected is None and value == "N/A")


def wrong_on(name: str) -> set[str]:
    found = set()
    with Machine(machine=name):
        amdsmi.amdsmi_init()
        try:
            gpus, handles = gpuev.list_gpus(), amdsmi.amdsmi_get_processor_handles()
            assert len(gpus) == len(handles) == len(right(name)), name
            for gpu, handle in zip(gpus, handles, strict=True):
                # KFD's order is not that of the list.
                kfd_id = amdsmi.amdsmi_get_gpu_kfd_info(handle)["kfd_id"]
                (expected,) = (one for one in right(name) if one["kfd_id"] == kfd_id)
                place = f"{expected['bdf']}/{expected['partition']}"
                for key, value in told(gpu, handle).items():
                    if not is_right(value, expected.get(key)):
                        found.add(f"{name} {place} {key}: {value!r}, not {expected.get(key)!r}")
        finally:
            amdsmi.amdsmi_shut_down()
    return found


def test_machines_are_told_as_they_are_but_for_what_is_known_to_be_wrong():
    wrong = set()
    for name in machines():
        if right(name):
            wrong |= wrong_on(name)
    known = set(KNOWN.read_text().splitlines())
    assert wrong - known == set(), "wrong, and not in zoo.txt"
    assert known - wrong == set(), "in zoo.txt, and right"


@pytest.mark.parametrize(("name", "place"), [("k8s-mi210x8-xgmi", 5), ("mi300a-spx-4", 2)])
def test_a_container_that_sees_one_gpu(name: str, place: int):
    with Machine(machine=name, visible=[place]):
        (gpu,) = gpuev.list_gpus()
        assert gpu.bdf == right(name)[place]["bdf"]


def test_a_machine_that_nobody_found():
    with pytest.raises(gpuev.Error, match="mi300x-cpx"):
        Machine(machine="mi300x-cpu")
