"""Event files that another process opens."""

import subprocess
import sys

import pytest
from conftest import gpuev_program
from on_machine import skip_unless_possible

import gpuev

SCRIPT = """
import os, sys
import gpuev

gpuev.use_keeper(sys.argv[1])
try:
    watch = gpuev.watch()
except gpuev.PermissionDeniedError as error:
    print("refused", error)
    sys.exit()
print(len(watch.failures), watch.scope)
children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
print(len(children))
with watch:
    seen = [next(watch) for _ in range(20)]
print(len(seen))
"""


def test_a_keeper_opens_the_event_files():
    skip_unless_possible()
    program = gpuev_program()
    run = [program, "sim", "run", "--gpus", "2", "--listeners", "2", "--scenario", "fault-storm"]
    run += ["--rate", "500", "--count", "200", "--", sys.executable, "-c", SCRIPT, program]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    if lines[0].startswith("refused"):
        # Only root of this machine may see all processes.
        assert "the keeper may not see all processes" in lines[0]
        return
    assert lines == ["0 the keeper has CAP_SYS_ADMIN", "1", "20"]


def test_the_simulated_machine_needs_none(gpu_machine):
    gpuev.use_keeper("/nonexistent/gpuev")
    try:
        with gpuev.watch() as watch:
            gpu_machine.emit("VMFAULT")
            assert next(watch).type is gpuev.EventType.VMFAULT
    finally:
        gpuev.use_keeper(None)


def test_errors_have_their_class():
    assert issubclass(gpuev.LockedError, gpuev.Error)
    with pytest.raises(AttributeError):
        gpuev.no_such_name
