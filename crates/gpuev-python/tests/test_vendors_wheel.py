"""gpuev's event reader in the vendor's own wheel, over a small C library that stands for the vendor's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import vendor
from test_improve import PROGRAM, READS, body, run

# What the reader asks: who is there, at which PCI address, and under which number of KFD's. Of the first GPU the last is
# not told, as by older libraries. Everything else is "not supported"; the events' functions must not be called.
LIBRARY = """
#include <stdint.h>
#include <stdlib.h>
static char gpus[2];
int amdsmi_init(uint64_t flags) { return 0; }
int amdsmi_shut_down(void) { return 0; }
int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
    if (handles) for (uint32_t i = 0; i < *count; i++) handles[i] = &gpus[i];
    *count = 2;
    return 0;
}
int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) {
    if (handles) handles[0] = socket;
    *count = 1;
    return 0;
}
int amdsmi_get_gpu_device_bdf(void *handle, uint64_t *bdf) {
    if (handle != &gpus[0] && handle != &gpus[1]) return 31;
    *bdf = (uint64_t)(handle == &gpus[0] ? 3 : 4) << 8;
    return 0;
}
int amdsmi_get_gpu_kfd_info(void *handle, uint64_t *info) {
    if (handle == &gpus[0]) return 2;
    info[0] = KFD_ID;
    info[1] = 2;
    return 0;
}
int amdsmi_get_power_info(void *handle, uint64_t *info) {
    info[0] = 300;
    return 0;
}
int amdsmi_init_gpu_event_notification(void *handle) { abort(); }
int amdsmi_get_gpu_event_notification(int timeout, uint32_t *count, void *data) { abort(); }
"""
KFD_ID = "import gpuev, gpuev.sim\nwith gpuev.sim.Machine(gpus=2): print(gpuev.list_gpus()[1].kfd_id)"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with the vendor's package out of its wheel, and the library that it loads."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("vendor")
    with zipfile.ZipFile(vendor.wheel(tmp_path_factory.mktemp("wheel"))) as wheel:
        wheel.extractall(folder)
    text = (folder / "amdsmi/amdsmi_wrapper.py").read_text()
    # It looks for every function as it is loaded.
    functions = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", text))
    missing = functions - set(re.findall(r"^int (\w+)\(", LIBRARY, re.MULTILINE))
    assert len(missing) > 100
    kfd_id = subprocess.run([sys.executable, "-c", KFD_ID], capture_output=True, text=True, check=True).stdout
    source = folder / "library.c"
    stubs = "".join(f"int {name}(void) {{ return 2; }}\n" for name in sorted(missing))
    source.write_text(f"#define KFD_ID {kfd_id.strip()}\n{LIBRARY}{stubs}")
    library = folder / "amdsmi/libamd_smi.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    return folder


def test_improve(package):
    improve = "import gpuev.amdsmi; assert gpuev.amdsmi.improve(amdsmi) is amdsmi"
    ran = run(package, ["-c", PROGRAM.format(improve=improve, body=body(READS))])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


def test_a_program_is_run_with_it(package, tmp_path):
    program = tmp_path / "collector.py"
    program.write_text(PROGRAM.format(improve="assert sys.argv[1:] == ['--fast']", body=body(READS)))
    ran = run(package, ["-m", "gpuev.amdsmi", str(program), "--fast"])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")


EXCEPTIONS = """
assert amdsmi.AmdSmiLibraryException.__module__ == "amdsmi.amdsmi_exception"
try:
    amdsmi.amdsmi_get_gpu_activity(first)
except amdsmi.AmdSmiLibraryException as error:
    assert error.err_code == 2
import ctypes
try:
    amdsmi.AmdSmiEventReader(ctypes.c_void_p(1), types)
except amdsmi.AmdSmiLibraryException as error:
    assert error.err_code == 31
"""


def test_all_else_stays_the_vendors(package):
    improve = (
        "from amdsmi import AmdSmiEvtNotificationType as T; types = [T.VMFAULT]\n"
        "    import gpuev.amdsmi; gpuev.amdsmi.improve(amdsmi)"
    )
    ran = run(package, ["-c", PROGRAM.format(improve=improve, body=body(EXCEPTIONS))])
    assert (ran.stdout, ran.stderr) == ("done 300\n", "")
