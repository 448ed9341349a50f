"""gpuev's event reader in a vendor's package: a stand-in with the vendor's shape."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Handles, exceptions and enums as the vendor's: c_void_p, no common base with gpuev's, 7 lost in the enum.
INTERFACE = '''
import ctypes
from enum import IntEnum
from .amdsmi_exception import *

class AmdSmiEvtNotificationType(IntEnum):
    NONE = 0
    VMFAULT = 1
    GPU_PRE_RESET = 3
    PAGE_FAULT_START = 8
    PAGE_FAULT_END = 8

class AmdSmiEventReader:
    def __init__(self, processor_handle, event_types):
        raise RuntimeError("the vendor's reader")

_GPUS = {0x10: ("0000:03:00.0", None), 0x20: ("0000:04:00.0", "KFD")}

def amdsmi_init(flag=2): pass
def amdsmi_shut_down(): pass
def amdsmi_get_processor_handles():
    return [ctypes.c_void_p(number) for number in _GPUS]
def amdsmi_get_gpu_device_bdf(processor_handle):
    if not isinstance(processor_handle, ctypes.c_void_p):
        raise AmdSmiParameterException(processor_handle, ctypes.c_void_p)
    return _GPUS[processor_handle.value][0]
def amdsmi_get_gpu_kfd_info(processor_handle):
    if _GPUS[processor_handle.value][1] is None:
        raise AmdSmiLibraryException(2)
    import gpuev
    return {"kfd_id": gpuev.list_gpus()[1].kfd_id, "node_id": 2}
def amdsmi_get_power_info(processor_handle):
    return {"socket_power": 300}
'''
EXCEPTION = '''
class AmdSmiException(Exception): pass
class AmdSmiLibraryException(AmdSmiException):
    def __init__(self, err_code):
        super().__init__(err_code)
        self.err_code = err_code
class AmdSmiParameterException(AmdSmiException):
    def __init__(self, receivedValue, expectedType, msg=None):
        super().__init__(msg)
'''


@pytest.fixture(scope="module")
def vendor(tmp_path_factory) -> Path:
    """A folder in which the vendor's package lies."""
    folder = tmp_path_factory.mktemp("vendor")
    package = folder / "amdsmi"
    package.mkdir()
    (package / "amdsmi_exception.py").write_text(EXCEPTION)
    (package / "amdsmi_interface.py").write_text(INTERFACE)
    (package / "__init__.py").write_text("from .amdsmi_interface import *\nfrom . import amdsmi_exception\n")
    return folder


PROGRAM = """
import gpuev.sim, sys
with gpuev.sim.Machine(gpus=2) as machine:
    import amdsmi
    assert not hasattr(amdsmi, "use_units"), "this is to be the vendor's"
    {improve}
    amdsmi.amdsmi_init()
    first, second = amdsmi.amdsmi_get_processor_handles()
    {body}
    print("done", amdsmi.amdsmi_get_power_info(first)["socket_power"])
"""
READS = """
types = list(amdsmi.AmdSmiEvtNotificationType)
with amdsmi.AmdSmiEventReader(first, types) as one, amdsmi.amdsmi_interface.AmdSmiEventReader(second, types) as two:
    machine.emit("PAGE_FAULT_START", gpu=0)
    machine.emit("PAGE_FAULT_END", gpu=1)
    [a], [b] = one.read(2000), two.read(2000)
    assert a["event"] == "PAGE_FAULT_START" and a["processor_handle"] is first
    assert b["event"] == "PAGE_FAULT_END" and b["processor_handle"] is second
    assert a["fields"]["rw"] == "W"
    assert one.read(5) == []
try:
    one.read(0)
except amdsmi.amdsmi_exception.AmdSmiLibraryException as error:
    assert error.err_code == 32
for wrong in [(5, types), (first, 5), (first, [5])]:
    try:
        amdsmi.AmdSmiEventReader(*wrong)
    except amdsmi.AmdSmiParameterException:
        continue
    raise AssertionError(wrong)
"""


def run(vendor: Path, arguments: list[str], path: str | Path = "/usr/bin") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": f"{path}:/bin", "PYTHONPATH": str(vendor)},
    )


def body(text: str) -> str:
    return textwrap.indent(text, "    ").strip()


def test_improve_takes_the_vendors_handles_and_raises_its_exceptions(vendor):
    improve = "import gpuev.amdsmi; assert gpuev.amdsmi.improve(gpuev.amdsmi.improve(amdsmi)) is amdsmi"
    ran = run(vendor, ["-c", PROGRAM.format(improve=improve, body=body(READS))])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


def test_the_vendors_own_enum_is_understood(vendor):
    reads = """
    with amdsmi.AmdSmiEventReader(first, types) as reader:
        machine.emit("PAGE_FAULT_START")
        machine.emit("PAGE_FAULT_END")
        machine.emit("VMFAULT")
        assert [e["event"] for e in reader.read(0)] == ["PAGE_FAULT_START", "PAGE_FAULT_END"]
    """
    improve = (
        "from amdsmi import AmdSmiEvtNotificationType as T; types = [T.PAGE_FAULT_START, T.NONE]\n"
        "    import gpuev.amdsmi; gpuev.amdsmi.improve(amdsmi)"
    )
    ran = run(vendor, ["-c", PROGRAM.format(improve=improve, body=body(textwrap.dedent(reads)))])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


def test_a_program_is_run_with_it(vendor, tmp_path):
    program = tmp_path / "collector.py"
    program.write_text(PROGRAM.format(improve="assert sys.argv[1:] == ['--fast', 'x']", body=body(READS)))
    ran = run(vendor, ["-m", "gpuev.amdsmi", str(program), "--fast", "x"])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


def test_a_module_is_run_with_it(vendor, tmp_path):
    (vendor / "collector.py").write_text(PROGRAM.format(improve="", body=body(READS)))
    ran = run(vendor, ["-m", "gpuev.amdsmi", "-m", "collector"])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


def test_what_is_no_program(vendor):
    ran = run(vendor, ["-m", "gpuev.amdsmi"])
    assert ran.returncode == 2 and "python -m gpuev.amdsmi PROGRAM" in ran.stderr
    ran = run(vendor, ["-m", "gpuev.amdsmi", "no-such-program"])
    assert ran.returncode == 127 and "no program 'no-such-program'" in ran.stderr
    for name in ("no_such_module", "json.no_such", "no_such.module", ".relative", "-h", ""):
        ran = run(vendor, ["-m", "gpuev.amdsmi", "-m", name])
        assert (ran.returncode, ran.stderr) == (1, f"python -m gpuev.amdsmi: no module {name!r}\n")


def test_an_installed_program_is_found_beside_a_folder_of_its_name(vendor, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "sources/meter").mkdir(parents=True)
    (tmp_path / "lib/neighbour.py").write_text("")
    program = tmp_path / "lib/meter.py"
    program.write_text("import sys, neighbour\nprint(sys.argv[1:])\n")
    program.chmod(0o755)
    # As ROCm installs its programs; Python finds the modules beside what the link leads to.
    (tmp_path / "bin/meter").symlink_to("../lib/meter.py")
    monkeypatch.chdir(tmp_path / "sources")
    ran = run(vendor, ["-m", "gpuev.amdsmi", "meter", "--fast"], path=tmp_path / "bin")
    assert (ran.stdout, ran.stderr) == ("['--fast']\n", "")


def test_gpuevs_own_is_left_as_it_is(smi):
    import gpuev.amdsmi

    assert gpuev.amdsmi.improve(smi) is smi
    assert smi.AmdSmiEventReader is gpuev.amdsmi.AmdSmiEventReader
