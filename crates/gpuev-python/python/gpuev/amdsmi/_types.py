"""The enumerations of the documented API."""

from __future__ import annotations

from enum import IntEnum


class AmdSmiInitFlags(IntEnum):
    """What `amdsmi_init` is to look at. This library knows AMD GPUs, whatever is asked for."""

    INIT_ALL_PROCESSORS = 0xFFFFFFFF
    INIT_AMD_CPUS = 1
    INIT_AMD_GPUS = 2
    INIT_AMD_APUS = 3
    INIT_NON_AMD_CPUS = 4
    INIT_NON_AMD_GPUS = 8


class AmdSmiEvtNotificationType(IntEnum):
    """
    GPU event notification types.

    Values:
    - NONE: No event; sets nothing in a mask and is never returned
    - VMFAULT: Virtual memory fault occurred
    - THERMAL_THROTTLE: GPU entered thermal throttling state due to high temperature
    - GPU_PRE_RESET: GPU is about to be reset (notification before reset)
    - GPU_POST_RESET: GPU has been reset (notification after reset completion)
    - MIGRATE_START: Memory migration operation started
    - MIGRATE_END: Memory migration operation completed
    - PAGE_FAULT_START: Page fault handling started
    - PAGE_FAULT_END: Page fault handling completed
    - QUEUE_EVICTION: Compute queue was evicted from GPU
    - QUEUE_RESTORE: Compute queue was restored to GPU
    - UNMAP_FROM_GPU: Memory unmapped from GPU address space
    - PROCESS_START: Process started using GPU
    - PROCESS_END: Process stopped using GPU

    Note:
    - The bit of a type in the event mask is `1 << (type - 1)`
    - Which types there are depends on the kernel: 1 to 4 since Linux 5.8, 5 to 11 since 6.0, 12 and 13
      since 6.16
    - An event of a later kernel has no place here; `gpuev.watch` gives it
    """

    NONE = 0
    VMFAULT = 1
    THERMAL_THROTTLE = 2
    GPU_PRE_RESET = 3
    GPU_POST_RESET = 4
    MIGRATE_START = 5
    MIGRATE_END = 6
    PAGE_FAULT_START = 7
    PAGE_FAULT_END = 8
    QUEUE_EVICTION = 9
    QUEUE_RESTORE = 10
    UNMAP_FROM_GPU = 11
    PROCESS_START = 12
    PROCESS_END = 13


# The others are made of the table of names when they are first asked for.
def __getattr__(name: str) -> object:
    from . import _names

    for line in _names.ENUMS.splitlines():
        if line.startswith(f"{name} "):
            members = [member.split("=") for member in line.split()[1:]]
            pairs = [(member, int(value)) for member, value in members]
            enum = IntEnum(name, pairs, module=__name__)
            enum.__doc__ = f"Values: {', '.join(member for member, _ in pairs)}"
            globals()[name] = enum
            return enum
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
