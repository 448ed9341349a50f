"""What is installed: both distributions, whole and with nothing else."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import pytest


def installed(distribution: str) -> set[str]:
    """Its files, without those that pip makes."""
    files = metadata.files(distribution) or []
    if any(file.suffix == ".pth" for file in files):
        pytest.skip(f"{distribution} is installed in place; cargo xtask test installs the wheel")
    names = {file.as_posix() for file in files}
    return {name for name in names if "__pycache__" not in name and ".dist-info/" not in name}


PACKAGE = Path(__file__).parents[1]


def sources(folder: str, package: str) -> set[str]:
    """The package's files in the repository."""
    paths = (PACKAGE / folder).rglob("*")
    kinds = (".py", ".pyi", ".typed")
    names = {path.relative_to(PACKAGE / folder).as_posix() for path in paths if path.suffix in kinds}
    return {name for name in names | {f"{package}/py.typed"} if name.startswith(package)}


def test_gpuev_has_its_core_its_stubs_and_nothing_else():
    files = installed("gpuev")
    assert files == sources("python", "gpuev") | {"gpuev/_core.abi3.so"}
    assert {"gpuev/py.typed", "gpuev/_core.pyi"} <= files


def test_gpuev_amdsmi_has_the_package_and_nothing_else():
    files = installed("gpuev-amdsmi")
    assert files == sources("amdsmi/src", "amdsmi")
    assert "amdsmi/py.typed" in files
    [requirement] = metadata.requires("gpuev-amdsmi")
    assert requirement == f"gpuev=={metadata.version('gpuev')}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/**/*.py*")), ids=lambda path: path.name)
def test_every_file_is_python_3_9(path):
    if path.suffix in (".py", ".pyi"):
        ast.parse(path.read_text(), path.name, feature_version=(3, 9))
