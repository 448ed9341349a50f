"""Objects and errors that go to other processes, or are copied."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import pickle
import weakref

import pytest

import gpuev


@pytest.fixture
def seen():
    """One of each, and the machine that they are of."""
    with gpuev.sim.Machine(gpus=2) as machine, gpuev.watch() as watch:
        machine.emit("PAGE_FAULT_START", pid=42, address=0x7F0000001000, access="write")
        start = watch.wait(timeout=10)
        machine.emit("PAGE_FAULT_END", pid=42, address=0x7F0000001000)
        end = watch.wait(timeout=10)
        machine.emit("GPU_PRE_RESET", gpu=1)
        machine.emit("GPU_POST_RESET", gpu=1)
        machine.emit("VMFAULT", pid=42, process="a b")
        items = [start, end, *(watch.wait(timeout=10) for _ in range(3))]
        yield machine, items, list(gpuev.spans(items))


def copies(one):
    return [
        *(pickle.loads(pickle.dumps(one, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy(one),
        copy.deepcopy(one),
    ]


def test_what_was_seen_comes_whole_out_of_a_pickle(seen):
    _machine, items, spans = seen
    assert {str(span.type) for span in spans} >= {"PAGE_FAULT", "RESET"}
    for one in [*items, *spans, *(item.gpu for item in items)]:
        for again in copies(one):
            assert (again, hash(again), repr(again)) == (one, hash(one), repr(one))
            if hasattr(one, "to_dict"):
                assert again.to_dict() == one.to_dict()
        assert copy.copy(one) is copy.deepcopy(one) is one
        assert weakref.ref(one)() is one


def test_every_kind_of_span_comes_whole_out_of_a_pickle(seen):
    machine, _items, _spans = seen
    with gpuev.watch() as watch:
        machine.play("mixed", seed=7, rate=100_000, count=2000)
        machine.stop_playing(wait=True)
        items = []
        while (item := watch.wait(timeout=0.5)) is not None:
            items.append(item)
    spans = list(gpuev.spans(items))
    assert {str(span.type) for span in spans} == {str(type) for type in gpuev.SpanType}
    assert pickle.loads(pickle.dumps((items, spans))) == (items, spans)


def test_a_gpu_is_found_again_on_its_machine_only(seen):
    gpu = gpuev.list_gpus()[1]
    for again in copies(gpu):
        assert (again, hash(again), again.name) == (gpu, hash(gpu), gpu.name)
    handle = gpuev.amdsmi.processor_handle.of(gpu)
    for again in copies(handle):
        assert (again, hash(again)) == (handle, hash(handle))
    elsewhere = pickle.dumps(gpu)
    with gpuev.sim.Machine(gpus=1), pytest.raises(gpuev.GpuRemovedError, match="not on this machine"):
        pickle.loads(elsewhere)


def _first(queue, items):
    queue.put([item.message for item in items])


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_items_go_to_another_process(seen, method):
    _machine, items, _spans = seen
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_first, args=(queue, items))
    process.start()
    assert queue.get(timeout=60) == [item.message for item in items]
    process.join()


def test_errors_are_pythons_own(tmp_path):
    missing = tmp_path / "none.db"
    with pytest.raises(FileNotFoundError) as raised:
        gpuev.read_history(missing)
    error = raised.value
    assert isinstance(error, gpuev.NotFoundError)
    assert isinstance(error, gpuev.Error)
    assert (error.errno, error.filename) == (errno.ENOENT, str(missing))
    assert "gpuev record" in str(error)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        told = (again.hint, again.errno, again.filename, again.strerror, str(again))
        assert told == (error.hint, error.errno, error.filename, error.strerror, str(error))
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no history" * 1000)
    with pytest.raises(ValueError, match=r"damaged\.db") as raised:
        gpuev.read_history(damaged)
    assert raised.value.filename == str(damaged)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.EISDIR, IsADirectoryError),
        (errno.ENOTDIR, NotADirectoryError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EIO, OSError),
        (None, OSError),
    ],
)
def test_an_error_of_the_system_is_of_pythons_class(number, expected):
    error = gpuev.errors.os_error("read /x: it failed", "look", number, "/x")
    assert isinstance(error, expected)
    assert isinstance(error, gpuev.IoError)
    assert (error.errno, error.filename, error.hint) == (number, "/x", "look")
    assert str(error) == "read /x: it failed"
