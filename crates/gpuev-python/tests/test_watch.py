"""The typed stream."""

import asyncio
import json
import threading
from datetime import datetime, timedelta, timezone

import pytest

import gpuev
from gpuev import EventType, Severity


def take(watch, count):
    return [next(watch) for _ in range(count)]


def test_an_event_has_types(gpu_machine):
    gpu_machine.add_process(4242, "python3")
    before = datetime.now(timezone.utc)
    with gpuev.watch() as watch:
        gpu_machine.emit("PAGE_FAULT_START", address=0x7FFF00000000)
        event = next(watch)
    assert isinstance(event, gpuev.Event)
    assert event.type is EventType.PAGE_FAULT_START
    assert event.type == "PAGE_FAULT_START"
    assert event.type.id == 7
    assert event.severity is Severity.INFO < Severity.CRITICAL
    assert event.clock is gpuev.Clock.DRIVER
    assert event.access is gpuev.Access.WRITE
    assert event.address == 0x7FFF00000000
    assert event.node == 0x5A21
    assert (event.pid, event.process) == (4242, "python3")
    assert event.outcome is event.trigger is event.error is event.cause is None
    assert before - timedelta(seconds=1) < event.time <= datetime.now(timezone.utc)
    assert event.time.tzinfo is timezone.utc
    assert event.unix_ns // 1000 == round(event.time.timestamp() * 1e6)
    assert event.raw.startswith(b"7 ")
    assert event.message == "page fault: write at 0x7fff00000000 by pid 4242 (python3)"
    assert not event.doubtful


def test_to_dict_is_the_documented_json(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.emit("THERMAL_THROTTLE", throttlers=1 << 36 | 1, count=3)
        event = next(watch)
    told = event.to_dict()
    assert told == json.loads(event.to_json())
    assert told["v"] == 1
    assert told["record"] == "event"
    assert told["type"] == "THERMAL_THROTTLE"
    assert told["gpu"] == {
        "index": 0,
        "bdf": "0000:03:00.0",
        "unique_id": "9246f3a1b0c70000",
        "partition": 0,
    }
    assert told["data"] == {
        "throttlers": 1 << 36 | 1,
        "reasons": ["PPT0", "TEMP_HOTSPOT"],
        "count": 3,
    }
    assert (event.throttlers, event.reasons, event.count) == tuple(told["data"].values())
    assert told["boot_ns"] == event.boot_ns
    assert told["message"] == event.message
    assert told["raw"] == event.raw.decode()


def test_every_field(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.emit("MIGRATE_START", size=1 << 21, to=5, preferred=5, trigger=1)
        gpu_machine.emit("MIGRATE_END", size=1 << 21, to=5, trigger=99, error=-12)
        gpu_machine.emit("PAGE_FAULT_END", migrated=False)
        gpu_machine.emit("QUEUE_EVICTION", trigger=2)
        gpu_machine.emit("QUEUE_RESTORE", rescheduled=True)
        gpu_machine.emit("UNMAP_FROM_GPU", size=8192, trigger=1)
        gpu_machine.emit("GPU_PRE_RESET", sequence=9, cause="RAS error")
        start, end, fault, eviction, restore, unmap, reset = take(watch, 7)
    assert (start.size, start.source, start.destination) == (1 << 21, 0, 5)
    assert (start.prefetch, start.preferred, start.trigger) == (None, 5, "pagefault_gpu")
    assert (end.error, end.trigger, end.severity) == (-12, 99, Severity.WARNING)
    assert fault.outcome is gpuev.FaultOutcome.MAPPED
    assert eviction.trigger == "ttm"
    assert restore.rescheduled is True
    assert (unmap.size, unmap.trigger) == (8192, "mmu_notify_migrate")
    assert (reset.sequence, reset.cause) == (9, "RAS error")


def test_an_event_of_a_later_kernel(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.emit_raw(b"2a new \xff\n", 42)
        event = next(watch)
    assert event.type is EventType.UNKNOWN
    assert event.type.id is None
    assert event.raw == b"2a new \xff"
    assert event.to_dict()["raw"] == "2a new \\xff"


@pytest.mark.gpu_machine(gpus=3)
def test_choosing(gpu_machine):
    def seen(**wanted):
        with gpuev.watch(**wanted) as watch:
            for gpu in range(3):
                gpu_machine.emit("VMFAULT", gpu=gpu, pid=100 + gpu)
                gpu_machine.emit("QUEUE_EVICTION", gpu=gpu, pid=100 + gpu)
                gpu_machine.emit_raw(b"2a new\n", 42, gpu=gpu)
            gpu_machine.emit("THERMAL_THROTTLE", gpu=2)
            events = []
            while (event := watch.wait(timeout=0.2)) is not None:
                events.append((event.gpu.index, str(event.type)))
            return events

    everything = seen()
    assert len(everything) == 10
    assert seen(types="vmfault") == [(gpu, "VMFAULT") for gpu in range(3)]
    assert seen(types=[EventType.VMFAULT, "THERMAL_THROTTLE"], gpus=2) == [
        (2, "VMFAULT"),
        (2, "THERMAL_THROTTLE"),
    ]
    assert seen(types=EventType.UNKNOWN, gpus=["0000:04:00.0", "2"]) == [
        (1, "UNKNOWN"),
        (2, "UNKNOWN"),
    ]
    assert seen(pids=[101]) == [(1, "VMFAULT"), (1, "QUEUE_EVICTION")]
    assert len(seen(severity="warning")) == 4
    assert len(seen(severity=Severity.CRITICAL, gpus=gpuev.list_gpus()[:2])) == 2


@pytest.mark.parametrize("wanted", [{"types": "x"}, {"gpus": "9"}, {"severity": "bad"}])
def test_what_does_not_exist_is_a_value_error_with_a_hint(gpu_machine, wanted):
    with pytest.raises(ValueError) as raised:
        gpuev.watch(**wanted)
    assert isinstance(raised.value, gpuev.InvalidInputError)
    assert raised.value.hint
    assert str(raised.value).endswith(raised.value.hint)


@pytest.mark.gpu_machine(gpus=0)
def test_no_gpu_is_a_lookup_error(gpu_machine):
    assert gpuev.list_gpus() == []
    with pytest.raises(LookupError) as raised:
        gpuev.watch()
    assert isinstance(raised.value, gpuev.NoGpuError)
    assert raised.value.hint


def test_a_gap_stands_where_events_are_missing(gpu_machine):
    with gpuev.watch(limit=1_000) as watch:
        gpu_machine.page_faults(1_000)
        items = []
        while (item := watch.wait(timeout=0.5)) is not None:
            items.append(item)
    gaps = [item for item in items if isinstance(item, gpuev.Gap)]
    assert gaps
    # A full queue of the driver's may stand among them, with nothing lost.
    assert sum(gap.count or 0 for gap in gaps) + len(items) - len(gaps) == 1_000
    assert gpuev.GapCause.SUBSCRIBER_SLOW in [gap.cause for gap in gaps]
    for gap in gaps:
        assert gap.type is None
        assert (gap.count is None) == (gap.cause is gpuev.GapCause.DRIVER_FIFO_FULL)
        assert isinstance(gap.duration, timedelta)
        assert gap.to_dict()["count"] == gap.count
        assert "lost" in gap.message


def test_close_ends_the_iteration_from_another_thread(gpu_machine):
    watch = gpuev.watch()
    threading.Timer(0.05, watch.close).start()
    assert list(watch) == []
    assert watch.closed
    watch.close()
    assert list(watch) == []
    with pytest.raises(gpuev.StoppedError):
        watch.fileno()


async def test_async_for(gpu_machine):
    async with gpuev.watch() as watch:
        gpu_machine.emit("VMFAULT")
        asyncio.get_running_loop().call_later(0.02, gpu_machine.emit, "PROCESS_END")
        asyncio.get_running_loop().call_later(0.2, watch.close)
        seen = [str(event.type) async for event in watch]
    assert seen == ["VMFAULT", "PROCESS_END"]


async def test_a_cancelled_wait_loses_nothing(gpu_machine):
    async with gpuev.watch() as watch:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(watch.__anext__(), 0.01)
        gpu_machine.emit("VMFAULT", times=3)
        assert [(await watch.__anext__()).seq for _ in range(3)] == [0, 1, 2]


async def test_a_watch_of_another_thread_wakes_the_loop(gpu_machine):
    with gpuev.watch() as watch:
        threading.Timer(0.02, gpu_machine.emit, ["VMFAULT"]).start()
        assert (await watch.__anext__()).type is EventType.VMFAULT
        threading.Timer(0.02, watch.close).start()
        with pytest.raises(StopAsyncIteration):
            await watch.__anext__()


def test_a_descriptor_for_ones_own_loop(gpu_machine):
    import select

    with gpuev.watch() as watch:
        assert select.select([watch], [], [], 0)[0] == []
        gpu_machine.emit("VMFAULT")
        assert select.select([watch], [], [], 60)[0] == [watch]
        assert watch.try_next().type is EventType.VMFAULT
        assert watch.try_next() is None
        assert select.select([watch], [], [], 0)[0] == []


def test_spans(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.emit("PAGE_FAULT_START", address=0x1000)
        gpu_machine.emit("PAGE_FAULT_END", address=0x1000)
        gpu_machine.emit("MIGRATE_START", size=1 << 21, to=0x5A21)
        gpu_machine.emit("MIGRATE_END", size=1 << 21, to=0x5A21)
        gpu_machine.emit("GPU_PRE_RESET", sequence=4, cause="MES hang")
        items = take(watch, 5)
    fault, migration, reset = gpuev.spans(items)
    assert fault.type is gpuev.SpanType.PAGE_FAULT
    assert fault.outcome is gpuev.Outcome.MIGRATED
    assert fault.duration == fault.end - fault.start or fault.duration_ns > 0
    assert fault.duration_ns == items[1].boot_ns - items[0].boot_ns
    assert (fault.address, fault.access) == (0x1000, gpuev.Access.WRITE)
    assert migration.direction is gpuev.Direction.TO_GPU
    assert migration.bytes_per_second > 0
    assert (reset.outcome, reset.end, reset.duration) == (gpuev.Outcome.OPEN, None, None)
    assert (reset.sequence, reset.cause) == (4, "MES hang")
    for span in (fault, migration, reset):
        told = span.to_dict()
        assert told == json.loads(span.to_json())
        assert told["record"] == "span"
        assert told["type"] == span.type
    pairing = gpuev.Pairing()
    assert pairing.push(items[4]) == []
    assert pairing.open == [reset]


def test_gpus(gpu_machine):
    [gpu] = gpuev.list_gpus()
    assert (gpu.index, gpu.bdf, gpu.unique_id) == (0, "0000:03:00.0", "9246f3a1b0c70000")
    assert (gpu.name, gpu.gfx_target) == ("AMD Radeon PRO W7900", "gfx1100")
    assert {gpu: 1}[gpuev.list_gpus()[0]] == 1
    gpu_machine.set_power(5_000_000)
    assert gpu.sensors.power()["average"] == 5_000_000
    assert gpu.sensors.temperature(0) == 38_000


def test_gpus_that_come_and_go(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.remove_gpu(0)
        gap = next(watch)
        assert gap.cause is gpuev.GapCause.GPU_REMOVED
        gpu_machine.restore_gpu(0)
        assert next(watch).cause is gpuev.GapCause.REOPENED
        gpu_machine.emit("VMFAULT")
        assert next(watch).type is EventType.VMFAULT
