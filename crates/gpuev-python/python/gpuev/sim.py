"""A simulated machine with AMD GPUs, to test one's own monitoring without a GPU.

    def test_my_monitor(gpu_machine):                  # a pytest fixture that comes with gpuev
        with MyMonitor() as monitor:
            gpu_machine.emit("VMFAULT", pid=4242, process="train")
            assert monitor.alerts == 1

    with gpuev.sim.Machine(gpus=2) as machine:         # the same without pytest
        machine.play("thermal", seconds=5)
"""

from __future__ import annotations

from os import PathLike, fspath

from ._core import SimMachine, machines, scenarios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import Counter
    from typing import NamedTuple

    from ._enums import EventType

    class EventFile(NamedTuple):
        """What became of the lines of one event file."""

        gpu: int
        mask: int
        accepted: int
        dropped: int
        closed: bool

else:
    from collections import Counter, namedtuple

    EventFile = namedtuple("EventFile", ("gpu", "mask", "accepted", "dropped", "closed"))


class Machine:
    """
    A machine with simulated AMD GPUs and the driver's rules.

    As a context manager it is what gpuev and amdsmi look at, in this process, until it ends.

    Args:
        gpus: number of GPUs
        kernel: whose driver it imitates: "oldest", "6.1", "6.12", "6.12-nul", "7.2", "7.3" or "dkms"; the
            newest unless said, and for `machine` the one that is the likest to its own
        partitions: partitions of each GPU
        denied: further GPUs that may not be used, as in a container
        machine: a machine as somebody found it, with its own GPUs and files; `machines()` has the names
        visible: places of the GPUs of `machine` that may be used, as in a container; all unless said
    """

    def __init__(
        self,
        gpus: int = 1,
        *,
        kernel: str | None = None,
        partitions: int = 1,
        denied: int = 0,
        machine: str | None = None,
        visible: list[int] | None = None,
    ) -> None:
        self._machine = SimMachine(
            gpus=gpus,
            kernel=kernel,
            partitions=partitions,
            denied=denied,
            machine=machine,
            visible=visible,
        )

    def __enter__(self) -> Machine:
        self._machine.activate()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop_playing()
        self._machine.deactivate()

    @property
    def root(self) -> str:
        """The folder that stands for `/`."""
        return fspath(self._machine.root)

    def emit(
        self, type: EventType | str, *, gpu: int = 0, times: int = 1, **fields: object
    ) -> None:
        """
        Raise an event, as the driver would.

        Args:
            type: which; a name of `EventType`
            gpu: index of the GPU
            times: how often
            fields: what the event says, where it shall be something particular: pid, process (str or bytes),
                address, size (bytes), write, migrated, from_, to, prefetch, preferred, trigger (number), error,
                throttlers (bits), count, sequence, cause, rescheduled
        """
        self._machine.emit(str(type), gpu, times, **fields)

    def emit_raw(self, message: bytes, id: int, *, gpu: int = 0) -> None:
        """Put the bytes of one message about event number `id` through the driver's rules as they are."""
        self._machine.emit_raw(message, id, gpu)

    def page_faults(
        self, count: int, *, rate: int = 0, gpu: int = 0, pid: int = 4242
    ) -> int:
        """
        Raise page faults, `rate` a second, or as fast as they are read; returns when all are raised.

        One that an event file has no room for is raised later, so that none is lost in the driver.
        """
        return self._machine.page_faults(count, rate, gpu, pid)

    def play(
        self,
        story: str,
        *,
        seed: int = 1,
        rate: int | None = None,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """
        Play a story in the background: idle, thermal, reset, fault-storm, migration-thrash, eviction-cascade,
        training or mixed. The same seed gives the same events.
        """
        self._machine.play(story, seed=seed, rate=rate, count=count, seconds=seconds)

    def stop_playing(self, *, wait: bool = False) -> Counter[tuple[int, str]]:
        """
        End what is being played, or with `wait` wait for its end.

        Returns how many events were raised, by index of the GPU and type.
        """
        from ._enums import EventType

        names = [type.value for type in EventType]
        counts: Counter[tuple[int, str]] = Counter()
        for gpu, number, count in self._machine.stop_playing(wait):
            counts[gpu, names[number - 1]] += count
        return counts

    @property
    def event_files(self) -> list[EventFile]:
        """What became of the lines of each event file, in order of opening; closed ones included."""
        return [EventFile(*file) for file in self._machine.event_files()]

    def set_temperature(self, sensor: str, millidegrees: int, *, gpu: int = 0) -> None:
        """Set a temperature: of "edge", "junction" or "memory", in thousandths of a degree Celsius."""
        self._machine.set_temperature(sensor, millidegrees, gpu)

    def set_power(self, microwatts: int, *, gpu: int = 0) -> None:
        """Set the power drawn."""
        self._machine.set_power(microwatts, gpu)

    def set_activity(self, percent: int, *, gpu: int = 0) -> None:
        """Set how busy a GPU is."""
        self._machine.set_activity(percent, gpu)

    def add_ras_error(self, block: str, *, uncorrectable: bool = False, gpu: int = 0) -> None:
        """Count one more error of "umc", "sdma", "gfx", "mmhub" or "xgmi_wafl"."""
        self._machine.add_ras_error(block, uncorrectable=uncorrectable, gpu=gpu)

    def add_process(
        self,
        pid: int,
        name: str | bytes,
        *,
        gpus: list[int] | None = None,
        vram: int = 0,
        cgroup: str | None = None,
    ) -> None:
        """Start a process that uses GPUs (the first, unless told otherwise). No event is raised."""
        raw = name.encode() if isinstance(name, str) else name
        used = [0] if gpus is None else gpus
        self._machine.add_process(pid, raw, gpus=used, vram=vram, cgroup=cgroup)

    def remove_process(self, pid: int) -> None:
        """End a process. No event is raised."""
        self._machine.remove_process(pid)

    def add_gpu(self) -> int:
        """Plug in one more GPU; gives its index."""
        return self._machine.add_gpu()

    def remove_gpu(self, gpu: int) -> None:
        """Take a GPU out."""
        self._machine.remove_gpu(gpu)

    def restore_gpu(self, gpu: int) -> None:
        """Plug a GPU that was taken out in again."""
        self._machine.restore_gpu(gpu)

    def write_file(self, path: str | PathLike[str], content: str | bytes) -> None:
        """Write a file of the machine, such as `sys/class/...`."""
        raw = content.encode() if isinstance(content, str) else content
        self._machine.write_file(path, raw)

    def remove_file(self, path: str | PathLike[str]) -> None:
        """Remove a file of the machine, or a folder with all in it."""
        self._machine.remove_file(path)


__all__ = ["EventFile", "Machine", "machines", "scenarios"]
