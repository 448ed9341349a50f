"""The documented Python API of AMD SMI, from `gpuev.amdsmi`."""

import gpuev.amdsmi as _api
from gpuev.amdsmi import use_units as use_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuev.amdsmi import *

__doc__ = _api.__doc__


def __getattr__(name: str) -> "Any":
    if name in _api._SUBMODULES:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    value = getattr(_api, name)
    # These change.
    if name not in ("__all__", "__version__"):
        globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return dir(_api)
