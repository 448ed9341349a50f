"""The enumerations of events, gaps and spans."""

from __future__ import annotations

from enum import Enum, IntEnum


class _Name(str, Enum):
    """A name that equals the string which every output of gpuev has for it."""

    def __new__(cls, value: str) -> _Name:
        member = str.__new__(cls, value)
        member._value_ = value
        return member

    def __str__(self) -> str:
        return str(self.value)


class EventType(_Name):
    """What happened."""

    VMFAULT = "VMFAULT"
    THERMAL_THROTTLE = "THERMAL_THROTTLE"
    GPU_PRE_RESET = "GPU_PRE_RESET"
    GPU_POST_RESET = "GPU_POST_RESET"
    MIGRATE_START = "MIGRATE_START"
    MIGRATE_END = "MIGRATE_END"
    PAGE_FAULT_START = "PAGE_FAULT_START"
    PAGE_FAULT_END = "PAGE_FAULT_END"
    QUEUE_EVICTION = "QUEUE_EVICTION"
    QUEUE_RESTORE = "QUEUE_RESTORE"
    UNMAP_FROM_GPU = "UNMAP_FROM_GPU"
    PROCESS_START = "PROCESS_START"
    PROCESS_END = "PROCESS_END"
    UNKNOWN = "UNKNOWN"

    @property
    def id(self) -> int | None:
        """The driver's number, 1 to 13; None for UNKNOWN."""
        if self is EventType.UNKNOWN:
            return None
        return list(EventType).index(self) + 1


class Severity(IntEnum):
    """How much an event matters by itself; they compare."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2


class Clock(_Name):
    """Whose time it is: the driver's, taken when it happened, or that of receipt."""

    DRIVER = "driver"
    RECEIPT = "receipt"


class Access(_Name):
    """What a page fault wanted."""

    READ = "read"
    WRITE = "write"


class FaultOutcome(_Name):
    """How a page fault was resolved: by moving the page, or by mapping it where it is."""

    MIGRATED = "migrated"
    MAPPED = "mapped"


class GapCause(_Name):
    """Where events were lost, or why nothing is seen from now on. Also what a later gpuev recorded, by its name."""

    DRIVER_FIFO_FULL = "driver_fifo_full"
    SUBSCRIBER_SLOW = "subscriber_slow"
    YIELDED = "yielded"
    REOPENED = "reopened"
    GPU_REMOVED = "gpu_removed"
    LOCKED = "locked"
    APPEARED_LATER = "appeared_later"
    OPEN_FAILED = "open_failed"

    @classmethod
    def _missing_(cls, value: object) -> GapCause:
        member = str.__new__(cls, value)
        member._name_, member._value_ = str(value).upper(), str(value)
        return member


class SpanType(_Name):
    """What a span is of."""

    RESET = "RESET"
    PAGE_FAULT = "PAGE_FAULT"
    MIGRATION = "MIGRATION"
    QUEUE_EVICTION = "QUEUE_EVICTION"
    PROCESS = "PROCESS"


class Outcome(_Name):
    """How a span ended, or why it has no end or start."""

    COMPLETED = "completed"
    FAILED = "failed"
    MIGRATED = "migrated"
    MAPPED = "mapped"
    START_MISSING = "start_missing"
    TIMEOUT = "timeout"
    SUPERSEDED = "superseded"
    GAP = "gap"
    GPU_REMOVED = "gpu_removed"
    PROCESS_ENDED = "process_ended"
    CAPACITY = "capacity"
    OPEN = "open"


class Direction(_Name):
    """Which way memory moved."""

    TO_GPU = "to_gpu"
    TO_SYSTEM = "to_system"
    BETWEEN_GPUS = "between_gpus"
