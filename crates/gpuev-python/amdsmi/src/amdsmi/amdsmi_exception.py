"""Where the vendor's package has its exceptions."""

from gpuev.amdsmi._exceptions import *

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> "Any":
    if name == "amdsmi_wrapper":
        from importlib import import_module

        return import_module(f"{__package__}.amdsmi_wrapper")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
