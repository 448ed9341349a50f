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


class AmdSmiTemperatureType(IntEnum):
    """Temperature sensors."""

    EDGE = 0
    HOTSPOT = 1
    JUNCTION = 1
    VRAM = 2
    HBM_0 = 3
    HBM_1 = 4
    HBM_2 = 5
    HBM_3 = 6
    PLX = 7


class AmdSmiTemperatureMetric(IntEnum):
    """What is asked of a temperature sensor."""

    CURRENT = 0
    MAX = 1
    MIN = 2
    MAX_HYST = 3
    MIN_HYST = 4
    CRITICAL = 5
    CRITICAL_HYST = 6
    EMERGENCY = 7
    EMERGENCY_HYST = 8
    CRIT_MIN = 9
    CRIT_MIN_HYST = 10
    OFFSET = 11
    LOWEST = 12
    HIGHEST = 13


class AmdSmiClkType(IntEnum):
    """Clocks."""

    SYS = 0
    GFX = 0
    DF = 1
    DCEF = 2
    SOC = 3
    MEM = 4
    PCIE = 5
    VCLK0 = 6
    VCLK1 = 7
    DCLK0 = 8
    DCLK1 = 9


class AmdSmiMemoryType(IntEnum):
    """Memories of a GPU."""

    VRAM = 0
    VIS_VRAM = 1
    GTT = 2


class AmdSmiGpuBlock(IntEnum):
    """Blocks of a GPU that count errors."""

    INVALID = 0
    UMC = 1
    SDMA = 2
    GFX = 4
    MMHUB = 8
    ATHUB = 16
    PCIE_BIF = 32
    HDP = 64
    XGMI_WAFL = 128
    DF = 256
    SMN = 512
    SEM = 1024
    MP0 = 2048
    MP1 = 4096
    FUSE = 8192
    MCA = 16384
    VCN = 32768
    JPEG = 65536
    IH = 131072
    MPIO = 262144
