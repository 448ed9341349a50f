"""What an event says beside its message: typed data, and the vendor's fields and text."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref

import pytest

# By event: how it is raised, what the vendor's fields are, and the typed data.
PAGE = {"address": 0x7FA608127000}
EVENTS = {
    "VMFAULT": (
        {"pid": 4242, "process": "python3"},
        {"PID": "4242", "task name": "python3"},
        {"pid": 4242, "process": "python3"},
    ),
    "THERMAL_THROTTLE": (
        {"throttlers": 1 << 36, "count": 31},
        {"bitmask": "0x1000000000", "counter": "0x1f"},
        {"count": 31},
    ),
    "GPU_PRE_RESET": (
        {"sequence": 3, "cause": "job hang on ring:gfx_0.0.0"},
        {"reset sequence number": "3", "reset cause": "job hang on ring:gfx_0.0.0"},
        {"sequence": 3, "cause": "job hang on ring:gfx_0.0.0"},
    ),
    "GPU_POST_RESET": ({"sequence": 3}, {"reset sequence number": "3"}, {"sequence": 3}),
    "MIGRATE_START": (
        {"pid": 4242, **PAGE, "size": 8192, "from_": 0, "to": 7, "prefetch": 7, "preferred": 0, "trigger": 1},
        {
            "pid": "4242",
            "start": "0x7fa608127",
            "size": "0x2",
            "from": "0x0",
            "to": "0x7",
            "prefetch_loc": "0x7",
            "preferred_loc": "0x0",
            "migrate_trigger": "1",
        },
        {"pid": 4242, **PAGE, "size": 8192, "from": 0, "to": 7, "trigger": "pagefault_gpu", "prefetch": 7},
    ),
    "MIGRATE_END": (
        {"pid": 4242, **PAGE, "size": 4096, "from_": 0, "to": 7, "trigger": 1, "error": -12},
        {"start": "0x7fa608127", "migrate_trigger": "1", "error_code": "-12"},
        {"pid": 4242, "error": -12, "size": 4096},
    ),
    "PAGE_FAULT_START": (
        {"pid": 4242, **PAGE, "write": False},
        {"pid": "4242", "addr": "0x7fa608127", "rw": "R"},
        {"pid": 4242, **PAGE, "access": "read"},
    ),
    "PAGE_FAULT_END": (
        {"pid": 4242, **PAGE, "migrated": True},
        {"addr": "0x7fa608127", "migrate_udpate": "M"},
        {"outcome": "migrated", **PAGE},
    ),
    "QUEUE_EVICTION": (
        {"pid": 4242, "trigger": 1},
        {"pid": "4242", "evict_trigger": "1"},
        {"pid": 4242, "trigger": "userptr"},
    ),
    "QUEUE_RESTORE": (
        {"pid": 4242, "rescheduled": True},
        {"pid": "4242", "rescheduled": "R"},
        {"rescheduled": True},
    ),
    "UNMAP_FROM_GPU": (
        {"pid": 4242, **PAGE, "size": 8192, "trigger": 2},
        {"addr": "0x7fa608127", "size": "0x2", "unmap_trigger": "2"},
        {**PAGE, "size": 8192, "trigger": "unmap_from_cpu"},
    ),
    "PROCESS_START": (
        {"pid": 4242, "process": "my job"},
        {"PID": "4242", "task": "my job"},
        {"pid": 4242, "process": "my job"},
    ),
    "PROCESS_END": (
        {"pid": 4242, "process": "my job"},
        {"PID": "4242", "task": "my job"},
        {"pid": 4242, "process": "my job"},
    ),
}
FIRST = {"MIGRATE_START": "nd", "MIGRATE_END": "nd"}


def taken_apart(message: str) -> dict[str, str]:
    """As amd-smi's own command does it: at two blanks, then at the colon."""
    items = [item.split(": ") for item in message.split("  ") if item]
    return {item[0]: item[1] for item in items}


@pytest.fixture
def event(gpu_machine, reader, request):
    raised, *_ = EVENTS[request.param]
    gpu_machine.emit(request.param, **raised)
    [event] = reader.read(0)
    return event


@pytest.mark.parametrize("event", EVENTS, indirect=True)
def test_fields_are_the_vendors(event):
    _, fields, _ = EVENTS[event["event"]]
    assert fields.items() <= event["fields"].items()
    name = event["event"]
    if "pid" in event["fields"]:
        assert next(iter(event["fields"])) == FIRST.get(name, "ns")
    else:
        assert event["fields"] == fields


@pytest.mark.parametrize("event", EVENTS, indirect=True)
def test_data_is_typed(event):
    _, _, data = EVENTS[event["event"]]
    assert data.items() <= event["data"].items()


@pytest.mark.parametrize("event", ["PAGE_FAULT_START"], indirect=True)
def test_an_event_is_a_dict_that_makes_its_rarer_keys_when_asked(event):
    usual = ["processor_handle", "event", "message", "timestamp", "lost_before"]
    assert isinstance(event, dict) and list(event) == usual
    assert "data" in event and "fields" in event and "stack" not in event
    assert event.get("data") is event["data"]
    assert event.get("stack", 5) == 5
    with pytest.raises(KeyError):
        event["stack"]
    assert list(event) == [*usual, "data"]
    copied = copy.deepcopy(event)
    assert copied == event and copied["fields"] == event["fields"]


@pytest.mark.parametrize("event", ["PAGE_FAULT_START"], indirect=True)
def test_a_copy_makes_the_rarer_keys_too(event):
    pickles = [pickle.dumps(event, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in [event.copy(), *map(pickle.loads, pickles)]:
        assert type(copied) is type(event)
        assert copied["data"] == event["data"] and copied["fields"] == event["fields"]
        assert copied == event


@pytest.mark.parametrize("event", ["PAGE_FAULT_START"], indirect=True)
def test_setdefault_and_pop_know_the_rarer_keys(event):
    fields = copy.copy(event)["fields"]
    assert event.setdefault("fields", None) == fields == event.pop("fields")
    assert event.pop("fields") == fields
    assert event.setdefault("host", "a") == "a" == event.pop("host") and event.pop("host", 5) == 5
    with pytest.raises(KeyError):
        event.pop("host")


def test_a_dict_of_ones_own_has_no_rarer_keys(smi):
    own = smi.AmdSmiEvent(event="VMFAULT")
    assert "data" not in own and own.get("fields") is None and own.copy() == own
    with pytest.raises(KeyError):
        own["data"]


@pytest.mark.parametrize("name", [b"a  b: c", b"x\xff  \x01", b"", b"  "])
def test_no_name_breaks_a_message_apart(gpu_machine, reader, name):
    gpu_machine.emit("PROCESS_START", pid=7, process=name)
    [event] = reader.read(0)
    assert list(event["fields"]) == ["PID", "task"]
    assert event["fields"]["PID"] == "7"


def test_messages_as_the_vendors_in_a_process_that_asks_for_them(monkeypatch, gpu_machine, smi, handle):
    monkeypatch.setenv("GPUEV_AMDSMI_MESSAGES", "vendor")
    types = smi.amdsmi_interface.AmdSmiEvtNotificationType
    with smi.amdsmi_interface.AmdSmiEventReader(handle, types) as reader:
        for name, (raised, fields, _) in EVENTS.items():
            gpu_machine.emit(name, **raised)
            [event] = reader.read(2000)
            assert fields.items() <= taken_apart(event["message"]).items()
            assert taken_apart(event["message"]) == event["fields"]


def test_a_small_number_is_milliseconds_to_wait(gpu_machine, reader):
    gpu_machine.emit("VMFAULT", times=3)
    # What is pending comes at once and whole.
    assert len(reader.read(60_000_000)) == 3
    assert reader.read(1) == []
    assert reader.read(0.5) == []


# Reads for ever in a thread, ignoring every error, as collectors do; then tells how often it did in how long.
COLLECTOR = """
import sys, threading, time
import amdsmi, gpuev.sim
machine = gpuev.sim.Machine()
machine.__enter__()
amdsmi.amdsmi_init()
[handle] = amdsmi.amdsmi_get_processor_handles()
reader = amdsmi.AmdSmiEventReader(handle, [amdsmi.AmdSmiEvtNotificationType.THERMAL_THROTTLE])
reads = found = 0
def poll():
    global reads, found
    while True:
        try:
            found += len(reader.read(100))
        except Exception:
            pass
        reads += 1
threading.Thread(target=poll, daemon=True).start()
begun, before = time.monotonic(), time.process_time()
{end}
time.sleep(1.5)
print(reads, time.monotonic() - begun, found)
"""


@pytest.mark.parametrize(
    "end", ["machine.emit('THERMAL_THROTTLE')", "machine.remove_gpu(0)", "reader.stop()", "amdsmi.amdsmi_shut_down()"]
)
def test_a_loop_around_read_does_not_spin(end):
    ran = subprocess.run(
        [sys.executable, "-c", COLLECTOR.format(end=end)], capture_output=True, text=True, env=os.environ
    )
    reads, seconds, found = ran.stdout.split()
    # Ten reads a second, and what the event or the error adds.
    assert int(reads) <= float(seconds) * 10 + 3, ran.stderr
    assert int(found) == ("emit" in end)


class Witness:
    """Says when it is gone."""


def test_a_cycle_through_an_event_is_collected(gpu_machine, reader):
    gpu_machine.emit("VMFAULT", pid=4242, process="python3")
    [event] = reader.read(0)
    event["witness"], event["itself"] = Witness(), event
    gone = weakref.ref(event["witness"])
    del event
    gc.collect()
    assert gone() is None
