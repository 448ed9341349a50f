"""Readers in threads, waits, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from conftest import ALL_TYPES


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def read_until(reader, done, into):
    while True:
        last = done.is_set()
        events = reader.read(0, 1000)
        into.extend(event["message"] for event in events)
        if last and not events:
            return


def test_one_reader_in_eight_threads_duplicates_nothing(gpu_machine, reader):
    done = threading.Event()
    found = [[] for _ in range(8)]
    threads = [in_thread(read_until, reader, done, into) for into in found]
    gpu_machine.page_faults(50_000)
    done.set()
    for thread in threads:
        thread.join()
    counts = Counter(message for messages in found for message in messages)
    assert len(counts) == 50_000
    assert set(counts.values()) == {1}


def test_eight_readers_in_threads_under_100_000_events_a_second(gpu_machine, smi, handle):
    done = threading.Event()
    readers = [smi.AmdSmiEventReader(handle, ALL_TYPES) for _ in range(8)]
    found = [[] for _ in readers]
    threads = [in_thread(read_until, *these) for these in zip(readers, [done] * 8, found)]
    gpu_machine.page_faults(40_000, rate=100_000)
    done.set()
    for thread in threads:
        thread.join()
    assert [file.accepted for file in gpu_machine.event_files] == [40_000] * 8
    for messages in found:
        assert len(messages) == 40_000
        assert messages == found[0]


def test_stop_wakes_a_read_that_waits(smi, reader):
    raised = []

    def wait():
        try:
            reader.read(0, timeout_ms=600_000)
        except smi.AmdSmiLibraryException as error:
            raised.append(error.err_code)

    threads = [in_thread(wait) for _ in range(4)]
    reader.stop()
    for thread in threads:
        thread.join()
    assert raised == [32] * 4


def test_an_event_wakes_a_read_that_waits(gpu_machine, reader):
    found = []
    thread = in_thread(lambda: found.extend(reader.read(0, timeout_ms=600_000)))
    gpu_machine.emit("VMFAULT")
    thread.join()
    assert len(found) == 1


def test_other_threads_run_while_one_waits(gpu_machine, reader):
    thread = in_thread(lambda: reader.read(0, timeout_ms=600_000))
    assert sum(range(100_000)) == 4_999_950_000
    gpu_machine.emit("VMFAULT")
    thread.join()


def test_readers_opened_and_closed_in_many_threads(gpu_machine, smi, handle, open_files):
    def work():
        for _ in range(50):
            with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
                reader.read(0)

    threads = [in_thread(work) for _ in range(8)]
    gpu_machine.page_faults(1_000, rate=10_000)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("wait", ["600_000", "float(10**300)"])
def test_ctrl_c_interrupts_a_wait(wait):
    # A shell starts what runs in the background with SIGINT ignored, and Python leaves it so.
    program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import amdsmi, gpuev.sim
with gpuev.sim.Machine() as machine:
    amdsmi.amdsmi_init()
    handle = amdsmi.amdsmi_get_processor_handles()[0]
    with amdsmi.AmdSmiEventReader(handle, amdsmi.AmdSmiEvtNotificationType) as reader:
        print("waiting", flush=True)
        try:
            reader.read(0, timeout_ms={wait})
        except KeyboardInterrupt:
            print("interrupted", reader.read(0))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        assert child.stdout.readline() == "waiting\n"
        wait_until_asleep(child.pid)
        child.send_signal(signal.SIGINT)
        assert child.stdout.read() == "interrupted []\n"
    assert child.returncode == 0


def wait_until_asleep(pid):
    """Until the main thread waits."""
    while True:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rsplit(")", 1)[1].split()[0] == "S":
                return
