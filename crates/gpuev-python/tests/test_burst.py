"""The page's polling style loses nothing."""

import functools
import json
import time
from collections import Counter

from conftest import ALL_TYPES

from gpuev._core import EventReader


def test_a_burst_of_500_000_is_kept_by_a_loop_that_sleeps_a_second(gpu_machine, smi, handle):
    with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
        gpu_machine.page_faults(500_000)
        time.sleep(1)  # the page's own
        found = 0
        lost = 0
        while events := reader.read(timestamp=0, num_elem=20_000):
            for event in events:
                assert f"at {0x7FFF00000000 + 4096 * found:#x} " in event["message"]
                found += 1
                lost += max(event["lost_before"], 0)
    [file] = gpu_machine.event_files
    assert (found, lost, file.dropped) == (500_000, 0, 0)


def test_what_exceeds_the_buffer_is_counted(gpu_machine, smi, handle, monkeypatch):
    smaller = functools.partial(EventReader, limit=1 << 20)
    monkeypatch.setattr("gpuev.amdsmi._reader.EventReader", smaller)
    with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
        gpu_machine.page_faults(50_000)
        events = []
        while more := reader.read(0, 100_000):
            events += [(event["message"], event["lost_before"]) for event in more]
        gpu_machine.emit("VMFAULT")
        [last] = reader.read(0, timeout_ms=60_000)
    # The driver's own queue kept everything; what did not fit ours is told by the event that follows.
    assert 10_000 < len(events) < 50_000
    lost = [lost for _, lost in events] + [last["lost_before"]]
    assert sum(max(lost, 0) for lost in lost) == 50_000 - len(events)


def test_the_pages_json_log_is_complete(gpu_machine, smi, handle, tmp_path):
    """The page's logger, with its 20 events a second left out: it reads until there is nothing more."""
    log = []
    with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
        gpu_machine.play("mixed", seed=3, rate=5_000, count=5_000)
        raised = gpu_machine.stop_playing(wait=True)
        while events := reader.read(timestamp=0, num_elem=20):
            for event in events:
                log.append({"event_type": event["event"], "message": event["message"]})
    output = tmp_path / "gpu_events.log"
    with open(output, "w") as file:
        json.dump({"total_events": len(log), "events": log}, file, indent=2)
    with open(output) as file:
        written = json.load(file)
    counts = Counter(event["event_type"] for event in written["events"])
    assert counts == {type: count for (_, type), count in raised.items()}
    assert written["total_events"] == sum(raised.values()) == 5_000
