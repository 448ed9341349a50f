"""Where the vendor's package has its functions and types."""

import gpuev.amdsmi.amdsmi_interface as _interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuev.amdsmi import *


def __getattr__(name: str) -> "Any":
    if name == "amdsmi_wrapper":
        from importlib import import_module

        return import_module(f"{__package__}.amdsmi_wrapper")
    return getattr(_interface, name)


def __dir__() -> "list[str]":
    return dir(_interface)
