"""What happens on AMD GPUs, as it happens.

Events come from the Linux kernel's amdgpu driver (KFD SMI events); no ROCm library is needed.

    for item in gpuev.watch():
        print(item.time, item.gpu.bdf, item.message)
"""

from ._core import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import amdsmi, errors, sim
    from ._core import Event, Gap, Gpu, GpuId, Pairing, Sensors, Span, list_gpus, use_keeper
    from ._enums import (
        Access,
        Clock,
        Direction,
        EventType,
        FaultOutcome,
        GapCause,
        Outcome,
        Severity,
        SpanType,
    )
    from ._history import History, Report, read_history
    from ._watch import Item, Watch, spans, watch
    from .errors import (
        BusyError,
        Error,
        ExistsError,
        FolderError,
        GpuRemovedError,
        InvalidInputError,
        IoError,
        LockedError,
        NoGpuError,
        NotAFolderError,
        NotFoundError,
        NotSupportedError,
        OutOfResourcesError,
        PermissionDeniedError,
        StoppedError,
        TimedOutError,
    )

# Where each name lives: loaded when it is first asked for, so that `import gpuev` takes next to no time.
_HOMES = {
    "_core": ("Event", "Gap", "Gpu", "GpuId", "Pairing", "Sensors", "Span", "list_gpus", "use_keeper"),
    "_enums": (
        "Access",
        "Clock",
        "Direction",
        "EventType",
        "FaultOutcome",
        "GapCause",
        "Outcome",
        "Severity",
        "SpanType",
    ),
    "_history": ("History", "Report", "read_history"),
    "_watch": ("Item", "Watch", "spans", "watch"),
    "errors": (
        "BusyError",
        "Error",
        "ExistsError",
        "FolderError",
        "GpuRemovedError",
        "InvalidInputError",
        "IoError",
        "LockedError",
        "NoGpuError",
        "NotAFolderError",
        "NotFoundError",
        "NotSupportedError",
        "OutOfResourcesError",
        "PermissionDeniedError",
        "StoppedError",
        "TimedOutError",
    ),
}
_MODULES = ("amdsmi", "errors", "sim")

__all__ = [
    "Access",
    "BusyError",
    "Clock",
    "Direction",
    "Error",
    "Event",
    "EventType",
    "ExistsError",
    "FaultOutcome",
    "FolderError",
    "Gap",
    "GapCause",
    "Gpu",
    "GpuId",
    "GpuRemovedError",
    "History",
    "InvalidInputError",
    "IoError",
    "Item",
    "LockedError",
    "NoGpuError",
    "NotAFolderError",
    "NotFoundError",
    "NotSupportedError",
    "OutOfResourcesError",
    "Outcome",
    "Pairing",
    "PermissionDeniedError",
    "Report",
    "Sensors",
    "Severity",
    "Span",
    "SpanType",
    "StoppedError",
    "TimedOutError",
    "Watch",
    "__version__",
    "amdsmi",
    "errors",
    "list_gpus",
    "read_history",
    "sim",
    "spans",
    "use_keeper",
    "watch",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
