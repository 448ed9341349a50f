"""The documented Python API of AMD SMI, on gpuev: no ROCm is needed."""

from . import _units
from ._units import use_units as use_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core import processor_handle as processor_handle
    from ._event import AmdSmiEvent as AmdSmiEvent
    from ._exceptions import *
    from ._functions import *
    from ._identity import *
    from ._improve import improve as improve
    from ._policies import *
    from ._processes import *
    from ._ras import *
    from ._reader import AmdSmiEventReader as AmdSmiEventReader
    from ._session import amdsmi_init as amdsmi_init, amdsmi_shut_down as amdsmi_shut_down
    from ._telemetry import *
    from ._topology import *
    from ._types import *

    __version__: str

_SUBMODULES = ("amdsmi_exception", "amdsmi_interface", "amdsmi_wrapper")
# What the vendor's package has not.
_OWN = ("AmdSmiEvent", "improve", "processor_handle", "use_units")


def __getattr__(name: str) -> "Any":
    # Everything is loaded when it is first asked for: `import amdsmi` takes next to no time.
    if name == "__version__":
        from ._identity import version

        return version()
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _SUBMODULES:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    from ._directory import MISSING, find, names

    if name == "__all__":
        return sorted({*names(), *_OWN})
    value = find(name)
    if value is MISSING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return [*__getattr__("__all__"), *_SUBMODULES, "__version__"]


_units.describe()
