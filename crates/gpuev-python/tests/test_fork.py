"""fork(): the child's copy is closed, the parent's goes on."""

import os
import threading

import pytest
from conftest import ALL_TYPES


def in_child(work):
    """What `work` prints in a forked child, or how it failed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, str(work()).encode())
            status = 0
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, told
    return told


def targets():
    """What this process has open: sockets, eventfds, epoll."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass
    return links


def test_the_parent_goes_on(gpu_machine, reader):
    gpu_machine.emit("VMFAULT")
    in_child(lambda: None)
    gpu_machine.emit("PROCESS_END")
    assert [event["event"] for event in reader.read(0)] == ["VMFAULT", "PROCESS_END"]
    assert [file.closed for file in gpu_machine.event_files] == [False]


def test_the_childs_copy_is_closed(gpu_machine, smi, reader):
    def child():
        try:
            reader.read(0)
        except smi.AmdSmiLibraryException as error:
            reader.stop()
            return error.err_code

    assert in_child(child) == "32"
    gpu_machine.emit("VMFAULT")
    assert len(reader.read(0)) == 1


def test_the_child_has_no_descriptor_of_the_readers(gpu_machine, smi, handle):
    def anonymous():
        return sum("anon_inode" in target for target in targets())

    before = anonymous()
    readers = [smi.AmdSmiEventReader(handle, ALL_TYPES) for _ in range(5)]
    for reader in readers:
        reader.read(0, timeout_ms=1)
    assert anonymous() > before
    assert in_child(anonymous) == str(before)


def test_dropping_a_copy_in_the_child_leaves_the_parents_alone(gpu_machine, smi, handle):
    readers = [smi.AmdSmiEventReader(handle, ALL_TYPES) for _ in range(5)]

    def child():
        readers.clear()
        smi.amdsmi_shut_down()

    in_child(child)
    gpu_machine.emit("VMFAULT")
    assert [len(reader.read(0, timeout_ms=60_000)) for reader in readers] == [1] * 5


def test_a_child_may_read_on_its_own(gpu_machine, smi, reader):
    def child():
        import gpuev.sim

        with gpuev.sim.Machine() as machine:
            handle = smi.amdsmi_get_processor_handles()[0]
            with smi.AmdSmiEventReader(handle, ALL_TYPES) as mine:
                machine.emit("VMFAULT")
                return len(mine.read(0, timeout_ms=60_000))

    assert in_child(child) == "1"
    assert in_child(lambda: in_child(child)) == "1"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forks_while_threads_read_open_and_close(gpu_machine, smi, handle, open_files):
    done = threading.Event()

    def read():
        with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
            while not done.is_set():
                reader.read(0, 1000, timeout_ms=5)

    def open_and_close():
        while not done.is_set():
            with smi.AmdSmiEventReader(handle, ALL_TYPES) as reader:
                reader.read(0)

    threads = [threading.Thread(target=work) for work in [read, read, open_and_close, open_and_close]]
    threads.append(threading.Thread(target=gpu_machine.page_faults, args=(5_000,), kwargs={"rate": 20_000}))
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            in_child(lambda: [smi.AmdSmiEventReader, handle.gpu.bdf])
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_watch_is_closed_in_the_child_and_goes_on_in_the_parent(gpu_machine):
    import gpuev

    with gpuev.watch() as watch:
        assert in_child(lambda: watch.closed) == "True"
        gpu_machine.emit("VMFAULT")
        assert next(watch).type is gpuev.EventType.VMFAULT
