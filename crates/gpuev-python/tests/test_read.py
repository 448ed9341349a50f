"""What `AmdSmiEventReader.read` promises."""

import time

import pytest
from conftest import ALL_TYPES

MESSAGES = {
    "VMFAULT": "memory fault by pid 4242 (my train job)",
    "THERMAL_THROTTLE": "throttling: TEMP_HOTSPOT (throttled 7 times since the driver was loaded)",
    "GPU_PRE_RESET": "GPU reset 3 begins: job hang on ring:gfx_0.0.0",
    "GPU_POST_RESET": "GPU reset 3 is over",
    "MIGRATE_START": "migration: 2.0 MiB at 0x7fff00000000 from system memory to GPU 0x5a21 "
    "(pagefault_gpu) by pid 4242 (my train job)",
    "MIGRATE_END": "migrated: 2.0 MiB at 0x7fff00000000 from system memory to GPU 0x5a21 "
    "(pagefault_gpu) by pid 4242 (my train job): failed, Cannot allocate memory (os error 12)",
    "PAGE_FAULT_START": "page fault: write at 0x7fff00000000 by pid 4242 (my train job)",
    "PAGE_FAULT_END": "page fault resolved: migrated at 0x7fff00000000 by pid 4242 (my train job)",
    "QUEUE_EVICTION": "queues evicted (ttm) by pid 4242 (my train job)",
    "QUEUE_RESTORE": "queues restored by pid 4242 (my train job)",
    "UNMAP_FROM_GPU": "unmapped 2.0 MiB at 0x7fff00000000 (unmap_from_cpu) by pid 4242 (my train job)",
    "PROCESS_START": "GPU process started by pid 4242 (my train job)",
    "PROCESS_END": "GPU process ended by pid 4242 (my train job)",
}

MIGRATION = {"size": 2 << 20, "to": 0x5A21, "trigger": 1}
FIELDS = {
    "THERMAL_THROTTLE": {"count": 7},
    "GPU_PRE_RESET": {"sequence": 3, "cause": "job hang on ring:gfx_0.0.0"},
    "GPU_POST_RESET": {"sequence": 3},
    "MIGRATE_START": MIGRATION,
    "MIGRATE_END": {**MIGRATION, "error": -12},
    "QUEUE_EVICTION": {"trigger": 2},
    "UNMAP_FROM_GPU": {"size": 2 << 20, "trigger": 2},
}


@pytest.mark.parametrize("type", MESSAGES)
def test_every_type_arrives_whole_and_readable(gpu_machine, handle, reader, type):
    gpu_machine.add_process(4242, "my train job")
    gpu_machine.emit(type, process="my train job", **FIELDS.get(type, {}))
    [event] = reader.read(0)
    assert event["event"] == type
    assert event["message"] == MESSAGES[type]
    assert event["processor_handle"] == handle
    assert event["lost_before"] == 0
    assert set(event) == {"processor_handle", "event", "message", "timestamp", "lost_before"}


def test_nothing_happened_is_an_empty_list_at_once(reader):
    begun = time.monotonic()
    times = (0, 100_000_000, int(time.time()), 1e9)
    assert [reader.read(timestamp) for timestamp in times] == [[]] * 4
    assert time.monotonic() - begun < 5  # the vendor's library takes these for milliseconds to wait


def test_at_most_num_elem_and_the_rest_later_in_order(gpu_machine, reader):
    for number in range(25):
        gpu_machine.emit("GPU_PRE_RESET", sequence=number)
    reads = [reader.read(0, 10) for _ in range(4)]
    assert [len(events) for events in reads] == [10, 10, 5, 0]
    messages = [event["message"] for events in reads for event in events]
    assert messages == [f"GPU reset {number} begins: job hang" for number in range(25)]


def test_ten_is_the_default_of_num_elem(gpu_machine, reader):
    gpu_machine.emit("PROCESS_START", times=11)
    assert len(reader.read(timestamp=0)) == 10


def test_only_events_later_than_the_timestamp(gpu_machine, reader):
    gpu_machine.emit("PAGE_FAULT_START", address=0x1000)
    [first] = reader.read(0)
    gpu_machine.emit("PAGE_FAULT_START", address=0x2000)
    [second] = reader.read(first["timestamp"])
    assert "0x2000" in second["message"]
    assert first["timestamp"] < second["timestamp"] <= time.time()


def test_older_events_are_consumed_and_left_out(gpu_machine, reader):
    gpu_machine.emit("PAGE_FAULT_START", times=5)
    assert reader.read(time.time() + 60) == []
    assert reader.read(0) == []
    gpu_machine.emit("PAGE_FAULT_START")
    assert len(reader.read(int(time.time()) - 5)) == 1


def test_the_drivers_own_time_decides_where_it_gives_one(gpu_machine, reader):
    with open("/proc/uptime") as uptime:
        hour_ago_ns = int((float(uptime.read().split()[0]) - 3600) * 1e9)
    if hour_ago_ns <= 0:
        pytest.skip("needs a machine that has been up for an hour")
    gpu_machine.emit_raw(f"7 {hour_ago_ns} -4242 @7fff00000(5a21) W\n".encode(), 7)
    [event] = reader.read(0)
    assert event["timestamp"] == pytest.approx(time.time() - 3600, abs=60)
    gpu_machine.emit_raw(f"7 {hour_ago_ns} -4242 @7fff00000(5a21) W\n".encode(), 7)
    assert reader.read(int(time.time()) - 5) == []


def test_names_of_any_bytes_never_break_a_read(gpu_machine, reader):
    names = [b"\xff\xfe", b"a b:c", b"caf\xc3\xa9", b"\x1b[2J", b"back\\slash", b""]
    for name in names:
        gpu_machine.emit("VMFAULT", process=name)
    messages = [event["message"] for event in reader.read(0, 100)]
    assert len(messages) == len(names)
    assert "(\\xff\\xfe)" in messages[0]
    assert "(a b:c)" in messages[1]
    assert "(café)" in messages[2]
    assert "(\\x1b[2J)" in messages[3]
    assert all(message.isprintable() for message in messages)


def test_a_newline_in_a_name_makes_no_two_events(gpu_machine, reader):
    gpu_machine.add_process(4242, b"a\n3 1 HWS")
    gpu_machine.emit("VMFAULT", process=b"a\n3 1 HWS")
    events = reader.read(0)
    assert [event["event"] for event in events] == ["VMFAULT"]


def test_types_outside_the_enum_are_left_out(gpu_machine, smi, handle):
    with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
        gpu_machine.emit_raw(b"2a something new\n", 1)
        gpu_machine.emit("VMFAULT")
        assert [event["event"] for event in reader.read(0)] == ["VMFAULT"]


def test_only_the_masks_events(gpu_machine, smi, handle):
    types = [smi.AmdSmiEvtNotificationType.VMFAULT, smi.AmdSmiEvtNotificationType.PAGE_FAULT_START]
    with smi.AmdSmiEventReader(handle, types) as reader:
        for type in ALL_TYPES:
            gpu_machine.emit(type.name)
        assert [event["event"] for event in reader.read(0, 100)] == ["VMFAULT", "PAGE_FAULT_START"]


def test_a_mask_of_none_gives_nothing(gpu_machine, smi, handle):
    for types in ([], [smi.AmdSmiEvtNotificationType.NONE]):
        with smi.AmdSmiEventReader(handle, types) as reader:
            gpu_machine.emit("VMFAULT")
            assert reader.read(0) == []


@pytest.mark.parametrize("type", ALL_TYPES)
def test_the_mask_is_a_bit_for_each_type(gpu_machine, smi, handle, type):
    with smi.AmdSmiEventReader(handle, iter([smi.AmdSmiEvtNotificationType.NONE, type])):
        gpu_machine.emit("VMFAULT")
        # Beside it: events of all processes, and 14, with which AMD's own driver counts what it dropped.
        drivers = 1 << 63 | 1 << 13
        assert gpu_machine.event_files[-1].mask & ~drivers == 1 << (type - 1)


def test_timeout_ms_waits_for_the_first_event(gpu_machine, reader):
    gpu_machine.emit("VMFAULT", times=3)
    assert len(reader.read(0, timeout_ms=60_000)) == 3
    assert reader.read(0, timeout_ms=1) == []
    assert reader.read(0, timeout_ms=0) == []
    with pytest.raises(TypeError):
        reader.read(0, 10, 1000)


@pytest.mark.gpu_machine(kernel="6.1")
def test_a_gap_is_told_in_lost_before(gpu_machine, reader):
    gpu_machine.emit("VMFAULT", times=50_000)  # the driver's queue holds some 70 of them
    events = reader.read(0, 100_000)
    gpu_machine.emit("VMFAULT")
    events += reader.read(0, 100_000)
    [file] = gpu_machine.event_files
    assert len(events) == file.accepted
    assert file.dropped > 0
    assert -1 in [event["lost_before"] for event in events]


@pytest.mark.gpu_machine(kernel="dkms")
def test_drops_that_no_line_counts_for_certain_are_of_unknown_number(gpu_machine, reader):
    gpu_machine.emit("PROCESS_START", times=50_000)
    events = reader.read(0, 100_000)
    gpu_machine.emit("VMFAULT", times=2)
    events += reader.read(0, 100_000)
    [file] = gpu_machine.event_files
    assert file.dropped > 0
    assert any(event["lost_before"] < 0 for event in events)
    assert not any(event["lost_before"] > 0 for event in events)


def test_a_gpu_that_is_gone_is_told_after_what_it_said(gpu_machine, smi, reader):
    gpu_machine.emit("GPU_PRE_RESET")
    gpu_machine.remove_gpu(0)
    assert [event["event"] for event in reader.read(0, timeout_ms=60_000)] == ["GPU_PRE_RESET"]
    with pytest.raises(smi.AmdSmiLibraryException) as raised:
        reader.read(0, timeout_ms=60_000)
    assert raised.value.err_code == 31
    assert "list the GPUs again" in str(raised.value.__cause__)
