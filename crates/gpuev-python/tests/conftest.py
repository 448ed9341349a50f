"""What the tests share: the documented API on a simulated machine."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import amdsmi as documented
from gpuev.sim import Machine

# A shell starts what runs in the background with SIGINT ignored, Python leaves it so, and so do the programs it runs.
signal.signal(signal.SIGINT, signal.default_int_handler)

ALL_TYPES = [type for type in documented.AmdSmiEvtNotificationType if type]


@pytest.fixture
def smi(gpu_machine: Machine) -> Iterator[ModuleType]:
    """The documented API, initialised, on the machine of the fixture `gpu_machine`."""
    documented.amdsmi_init()
    yield documented
    while True:
        try:
            documented.amdsmi_shut_down()
        except documented.AmdSmiLibraryException:
            return


@pytest.fixture
def handle(smi: ModuleType) -> documented.processor_handle:
    """The machine's first GPU."""
    return smi.amdsmi_get_processor_handles()[0]


@pytest.fixture
def reader(
    smi: ModuleType, handle: documented.processor_handle
) -> Iterator[documented.AmdSmiEventReader]:
    """A reader of everything on the first GPU."""
    with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
        yield reader


@pytest.fixture
def open_files(gpu_machine: Machine) -> Iterator[None]:
    """The test leaves no descriptor behind."""

    def count() -> int:
        gc.collect()
        # Has the machine let go of its ends of what was closed.
        assert gpu_machine.event_files is not None
        return len(os.listdir("/proc/self/fd"))

    before = count()
    yield
    assert count() == before


def repository() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[3]


def gpuev_program() -> str | None:
    """The program `gpuev`: the one named by GPUEV_PROGRAM, else the one that cargo built, else the installed."""
    named = os.environ.get("GPUEV_PROGRAM")
    built = Path(os.environ.get("CARGO_TARGET_DIR", repository() / "target"), "debug/gpuev")
    return named or (str(built) if built.is_file() else shutil.which("gpuev"))


def needed_program() -> str:
    """As `gpuev_program`; skips where there is none."""
    return gpuev_program() or pytest.skip("needs the program gpuev, see gpuev_program")
