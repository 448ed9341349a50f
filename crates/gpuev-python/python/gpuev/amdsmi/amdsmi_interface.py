"""Where the vendor's package has its functions and types, and a few names more."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import *


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "amdsmi_wrapper":
        return import_module(f"{__package__}.amdsmi_wrapper")
    if name in ("KILO", "NO_OF_32BITS", "NO_OF_64BITS"):
        return {"KILO": 1000.0, "NO_OF_32BITS": 256, "NO_OF_64BITS": 256}[name]
    if name == "_NA_amdsmi_get_gpu_metrics_info":
        return _no_metrics
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(__package__ or ""), name)
    if name != "__all__":
        globals()[name] = value
    return value


def _no_metrics() -> dict[str, str]:
    """The keys of amdsmi_get_gpu_metrics_info, each with "N/A"."""
    from ._telemetry import metrics_keys

    return dict.fromkeys(metrics_keys(), "N/A")


def __dir__() -> list[str]:
    return [*__getattr__("__all__"), "amdsmi_wrapper"]
