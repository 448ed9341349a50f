"""Files of other people's packages, out of the package index, without what else those packages need."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

# As small as they are pure Python. What follows gpustack-runtime is what its detector loads.
WHEELS = ["codecarbon==3.3.2", "zeus==0.16.0", "kernel-tuner==1.5.0", "gpustack-runtime==0.2.6"]
WHEELS += ["dataclasses-json==0.6.7", "marshmallow==3.26.1", "typing-inspect==0.9.0", "mypy-extensions==1.1.0"]
WHEELS += ["mthreads-ml-py==2.2.10", "nvidia-ml-py==13.580.65"]


def download(folder: Path) -> Path:
    """Installs the wheels into a folder of their own; skips where there is no package index."""
    named = os.environ.get("GPUEV_THIRD_PARTY")
    if named:
        return Path(named)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    got = subprocess.run([*command, *WHEELS], capture_output=True, text=True)
    if got.returncode != 0:
        assert "GPUEV_REQUIRE_THIRD_PARTY" not in os.environ, got.stderr
        pytest.skip(f"cannot install {', '.join(WHEELS)}: {got.stderr.strip()[-200:]}")
    return folder


def load(folder: Path, module: str, *bare: str) -> ModuleType:
    """A module of a package. The `__init__` of those named, and of what they lie in, is not run: it loads much that has
    nothing to do with GPUs."""
    for name in bare:
        words = name.split(".")
        for depth in range(1, len(words) + 1):
            _make_bare(folder, ".".join(words[:depth]))
    return importlib.import_module(module)


def _make_bare(folder: Path, name: str) -> None:
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        package.__package__ = name
        sys.modules[name] = package
