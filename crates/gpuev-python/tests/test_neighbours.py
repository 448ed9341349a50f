"""Two packages of one name: the vendor's wheel overwrites ours, and pip says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needed_program

import amdsmi
import gpuev

VENDORS = "import ctypes\n_libraries = {}\n_libraries['libamd_smi.so']\n"


@pytest.fixture
def packages(tmp_path) -> Path:
    """A virtual environment's folder of packages with gpuev and gpuev-amdsmi as pip installs them."""
    folder = tmp_path / "lib/python3.12/site-packages"
    (tmp_path / "pyvenv.cfg").write_text("")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(gpuev.__file__).parent, folder / "gpuev", ignore=ignore)
    shutil.copytree(Path(amdsmi.__file__).parent, folder / "amdsmi", ignore=ignore)
    (folder / f"gpuev_amdsmi-{gpuev.__version__}.dist-info").mkdir()
    return folder


def overwrite(packages: Path) -> None:
    (packages / "amdsmi/__init__.py").write_text(VENDORS)
    (packages / "amdsmi-7.0.2.dist-info").mkdir()


def run(packages: Path, code: str) -> subprocess.CompletedProcess:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages)}
    return subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)


def doctor(packages: Path, **environment: str) -> str:
    program = needed_program()
    environment = {"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(packages.parents[2]), **environment}
    ran = subprocess.run([program, "doctor", "--source", "sim"], capture_output=True, text=True, env=environment)
    return next((line for line in ran.stdout.splitlines() if line[6:].startswith("amdsmi")), "")


def test_side_by_side_nothing_is_said(packages):
    ran = run(packages, "import gpuev, amdsmi; print(amdsmi.__version__)")
    assert (ran.stderr, ran.stdout[:6]) == ("", "7.0.2+")
    line = doctor(packages)
    assert line.startswith("ok") and "powers in microwatts" in line and "GPUEV_AMDSMI_UNITS=vendor" in line
    assert "units by GPUEV_AMDSMI_UNITS=vendor" in doctor(packages, GPUEV_AMDSMI_UNITS="vendor")


def test_the_vendors_files_over_ours(packages):
    overwrite(packages)
    ran = run(packages, "import gpuev")
    assert ran.stderr.count("UserWarning") == 1
    assert "another package has overwritten" in ran.stderr and "pip uninstall amdsmi" in ran.stderr
    assert "python -m gpuev.amdsmi PROGRAM" in ran.stderr
    line = doctor(packages)
    assert line.startswith("note") and "amdsmi 7.0.2 has overwritten gpuev-amdsmi" in line


def test_a_shell_is_left(packages):
    shutil.rmtree(packages / "amdsmi")
    ran = run(packages, "import gpuev")
    assert "gpuev-amdsmi is installed and" in ran.stderr and "is gone" in ran.stderr
    assert "its files are gone: pip install --force-reinstall" in doctor(packages)


def test_without_gpuev_amdsmi_the_vendors_is_nobodys_concern(packages):
    overwrite(packages)
    shutil.rmtree(packages / f"gpuev_amdsmi-{gpuev.__version__}.dist-info")
    assert run(packages, "import gpuev").stderr == ""
    assert doctor(packages) == ""
