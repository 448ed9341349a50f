"""The constants of the vendor's C library, as its package has them.

Handles are of the class `processor_handle`. The C functions and structures are not here: there is no C library.
"""

from __future__ import annotations

from .._core import processor_handle as amdsmi_processor_handle
from . import _names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

amdsmi_socket_handle = amdsmi_cpusocket_handle = amdsmi_processor_handle

_VALUES = "__enumvalues"
# The members of each enum of the C library, by the name of its type.
_ENUMS: dict[str, dict[str, int]] = {}
for _line in _names.C_ENUMS.splitlines():
    _type, *_members = _line.split()
    _pairs = (_member.rpartition("=") for _member in _members)
    _ENUMS[_type] = {_name: int(_value) for _name, _, _value in _pairs}
    globals().update(_ENUMS[_type])
del _line, _members, _pairs, _type


def __getattr__(name: str) -> Any:
    kind = name[: -len(_VALUES)] if name.endswith(_VALUES) else name
    members = _ENUMS.get(kind)
    if members is None:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}: it has the constants of the vendor's C library, and "
            "no C library"
        )
    if kind != name:
        return {value: member for member, value in members.items()}
    import ctypes

    return ctypes.c_uint64 if max(members.values()) >> 32 else ctypes.c_uint32
