"""Readers beside one another, and how each ends."""

import copy
import gc
import os
import subprocess
import sys

import pytest
from conftest import ALL_TYPES


def names(events):
    return [event["event"] for event in events]


@pytest.mark.gpu_machine(gpus=2)
def test_each_gets_its_own_gpus_events(gpu_machine, smi):
    handles = smi.amdsmi_get_processor_handles()
    readers = [smi.AmdSmiEventReader(handle, ALL_TYPES) for handle in handles]
    gpu_machine.emit("VMFAULT", gpu=0)
    gpu_machine.emit("PROCESS_END", gpu=1)
    # The second is read first: the vendor's library would hand it both.
    for reader, handle, type in zip(readers[::-1], handles[::-1], ["PROCESS_END", "VMFAULT"]):
        [event] = reader.read(0)
        assert event["event"] == type
        assert event["processor_handle"] == handle


def test_many_on_one_gpu_are_independent(gpu_machine, smi, handle):
    T = smi.AmdSmiEvtNotificationType
    both = smi.AmdSmiEventReader(handle, [T.VMFAULT, T.PROCESS_END])
    same = smi.AmdSmiEventReader(handle, [T.VMFAULT, T.PROCESS_END])
    other = smi.AmdSmiEventReader(handle, [T.PROCESS_END])
    gpu_machine.emit("VMFAULT")
    gpu_machine.emit("PROCESS_END")
    assert names(both.read(0)) == ["VMFAULT", "PROCESS_END"]
    both.stop()
    assert names(other.read(0)) == ["PROCESS_END"]
    gpu_machine.emit("VMFAULT")
    assert names(same.read(0)) == ["VMFAULT", "PROCESS_END", "VMFAULT"]


def test_the_subscription_is_live_when_the_constructor_returns(gpu_machine, smi, handle):
    for _ in range(50):
        with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
            gpu_machine.emit("VMFAULT")
            assert names(reader.read(0)) == ["VMFAULT"]


def test_stop_may_be_repeated_and_read_raises_after_it(smi, reader):
    reader.stop()
    reader.stop()
    with pytest.raises(smi.AmdSmiLibraryException) as raised:
        reader.read(0)
    assert raised.value.err_code == 32


def test_with_stops_also_on_an_exception(gpu_machine, smi, handle):
    with pytest.raises(KeyError):
        with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
            raise KeyError
    with pytest.raises(smi.AmdSmiLibraryException):
        reader.read(0)
    assert [file.closed for file in gpu_machine.event_files] == [True]


def test_garbage_collection_stops(gpu_machine, smi, handle, open_files):
    reader = smi.AmdSmiEventReader(handle, ALL_TYPES)
    cycle = [reader]
    cycle.append(cycle)
    del reader, cycle
    gc.collect()
    assert [file.closed for file in gpu_machine.event_files] == [True]


def test_a_constructor_that_fails_leaves_nothing(gpu_machine, smi, handle, open_files):
    gpu_machine.remove_gpu(0)
    with pytest.raises(smi.AmdSmiLibraryException) as raised:
        smi.AmdSmiEventReader(handle, ALL_TYPES)
    assert raised.value.err_code == 31


def test_shut_down_stops_what_is_open(gpu_machine, smi, handle):
    smi.AmdSmiEventReader(handle, ALL_TYPES)
    reader = smi.AmdSmiEventReader(handle, ALL_TYPES)
    smi.amdsmi_shut_down()
    assert all(file.closed for file in gpu_machine.event_files)
    reader.stop()


def test_it_is_stopped_at_exit():
    program = """
import amdsmi, atexit, gpuev.sim
machine = gpuev.sim.Machine().__enter__()
atexit.register(lambda: print([file.closed for file in machine.event_files]))
amdsmi.amdsmi_init()
import sys
sys.keep = amdsmi.AmdSmiEventReader(amdsmi.amdsmi_get_processor_handles()[0], [])
"""
    # Functions registered at exit run last to first: amdsmi's is registered after ours.
    ended = subprocess.run(
        [sys.executable, "-c", program.replace("import amdsmi, atexit", "import atexit").replace(
            "amdsmi.amdsmi_init()", "import amdsmi; amdsmi.amdsmi_init()"
        )],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[True]\n", "")


def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def test_ten_thousand_readers_leak_nothing(gpu_machine, smi, handle, open_files):
    def open_and_close(count):
        for number in range(count):
            reader = smi.AmdSmiEventReader(handle, ALL_TYPES)
            if number % 100 == 0:
                gpu_machine.emit("VMFAULT")
                assert names(reader.read(0)) == ["VMFAULT"]
            if number % 2:
                reader.stop()
            del reader

    open_and_close(1_000)
    before = resident_kib()
    open_and_close(9_000)
    # The simulated machine remembers every file that was ever opened: some 100 bytes each.
    assert resident_kib() - before < 4_096


def test_many_readers_at_once(gpu_machine, smi, handle, open_files):
    readers = [smi.AmdSmiEventReader(handle, ALL_TYPES) for _ in range(200)]
    gpu_machine.emit("VMFAULT")
    assert all(names(reader.read(0)) == ["VMFAULT"] for reader in readers)
    del readers


def test_events_can_be_copied(gpu_machine, reader, handle):
    gpu_machine.emit("VMFAULT")
    [event] = reader.read(0)
    assert copy.deepcopy(event) == event
    assert copy.copy(handle) is handle


def test_handles_are_hashable_and_comparable(smi, handle):
    [again] = smi.amdsmi_get_processor_handles()
    assert isinstance(handle, smi.processor_handle)
    assert handle == again
    assert hash(handle) == hash(again)
    assert {handle: 1}[again] == 1
    assert handle != 5
    assert not handle < again
    assert repr(handle) == "<processor_handle 0000:03:00.0>"
    with pytest.raises(TypeError):
        smi.processor_handle()
