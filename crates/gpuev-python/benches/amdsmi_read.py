"""What `AmdSmiEventReader.read` costs for each event at 1,000 a read, beside a reader by ctypes on the vendor's library.

It prints the lines that `cargo xtask bench` makes its table of, which puts it on a simulated machine whose first GPU
throttles all the time: the one event whose lines the vendor's library of Debian reads without going astray.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from statistics import median

import amdsmi
import gpuev.sim

READS = 50
A_READ = 1_000
VENDOR = "librocm_smi64"
LIBRARY = "librocm_smi64.so.1"


def figure(what: str, who: str, value: float, unit: str) -> None:
    print("figure", what, who, f"{value:.2f}", unit, sep="\t", flush=True)


def reads(reader: amdsmi.AmdSmiEventReader) -> list[float]:
    """Nanoseconds an event, of reads of as many events as were asked for."""
    costs = []
    while len(costs) < READS:
        begun = time.perf_counter_ns()
        events = reader.read(0, A_READ)
        took = time.perf_counter_ns() - begun
        if len(events) == A_READ:
            costs.append(took / A_READ)
        else:
            time.sleep(0.1)  # more is to come
    return costs


def page_faults() -> float:
    """A burst of page faults that wait to be read, on a machine of this process's own."""
    with gpuev.sim.Machine() as machine:
        handle = amdsmi.amdsmi_get_processor_handles()[0]
        with amdsmi.AmdSmiEventReader(handle, amdsmi.AmdSmiEvtNotificationType) as reader:
            machine.page_faults(READS * A_READ)
            return median(reads(reader))


def throttling() -> float:
    """On the machine that this program runs on."""
    handle = amdsmi.amdsmi_get_processor_handles()[0]
    types = [amdsmi.AmdSmiEvtNotificationType.THERMAL_THROTTLE]
    with amdsmi.AmdSmiEventReader(handle, types) as reader:
        time.sleep(2)  # the page's polling: what happens meanwhile waits
        return median(reads(reader))


class Notification(ctypes.Structure):
    """`rsmi_evt_notification_data_t`"""

    _fields_ = [
        ("dv_ind", ctypes.c_uint32),
        ("event", ctypes.c_uint32),
        ("message", ctypes.c_char * 64),
    ]


def by_ctypes(library: ctypes.CDLL) -> float:
    """The same events by the vendor's library: dicts of the same keys, as its own Python package makes them."""
    for status in (
        library.rsmi_init(ctypes.c_uint64(0)),
        library.rsmi_event_notification_init(0),
        library.rsmi_event_notification_mask_set(0, ctypes.c_uint64(1 << 1)),
    ):
        if status:
            raise OSError(f"{VENDOR}: status {status}")
    room = (Notification * A_READ)()
    names = {type.value: type.name for type in amdsmi.AmdSmiEvtNotificationType}
    spent = seen = 0
    while seen < READS * A_READ // 10:
        time.sleep(0.005)  # some 100 events: the driver's queue holds 400
        got = ctypes.c_uint32(A_READ)
        begun = time.perf_counter_ns()
        library.rsmi_event_notification_get(0, ctypes.byref(got), room)
        events = [
            {
                "processor_handle": one.dv_ind,
                "event": names[one.event],
                "message": one.message.decode(),
            }
            for one in room[: got.value]
            if one.event in names
        ]
        spent += time.perf_counter_ns() - begun
        seen += len(events)
    return spent / seen


def start(statements: str) -> float:
    """Milliseconds that the statements take in an interpreter of their own."""
    program = f"import time; begun = time.perf_counter(); {statements}; print(time.perf_counter() - begun)"
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(20)]
    return median(float(run) for run in runs) * 1000


def vendors_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        print(f"left out: ctypes on {VENDOR}: {error}", file=sys.stderr)
        return None


def main() -> None:
    amdsmi.amdsmi_init()
    library = vendors_library()
    figure("Python read, a page fault", "amdsmi", page_faults(), "ns")
    figure("Python import", "amdsmi", start("import amdsmi"), "ms")
    if library is not None:
        figure("Python import", VENDOR, start(f"import ctypes; ctypes.CDLL('{LIBRARY}')"), "ms")
    # What happens on the machine begins with the first reader.
    figure("Python read, a throttling", "amdsmi", throttling(), "ns")
    if library is not None:
        figure("Python read, a throttling", VENDOR, by_ctypes(library), "ns")


main()
