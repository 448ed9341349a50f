"""Where the vendor's package has the constants of its C library."""

import gpuev.amdsmi.amdsmi_wrapper as _wrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> "Any":
    return getattr(_wrapper, name)


def __dir__() -> "list[str]":
    return [name for name in dir(_wrapper) if not name.startswith("_")]
