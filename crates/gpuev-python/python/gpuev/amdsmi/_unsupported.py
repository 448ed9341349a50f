"""The vendor's functions that are not answered here: they check their parameters as the vendor's do, and raise code 2."""

from __future__ import annotations

from inspect import Parameter, Signature

from .._core import processor_handle
from . import _names, _types
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._session import check_initialized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

_HANDLES = ("amdsmi_processor_handle", "amdsmi_socket_handle")


def _lines(table: str) -> Dict[str, str]:
    """The lines of a table by their first word."""
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in table.splitlines()}


FUNCTIONS = _lines(_names.FUNCTIONS)


def _class_of(kind: str) -> Any:
    if kind in _HANDLES:
        return processor_handle
    # No event handle was ever given out.
    return getattr(_types, kind) if kind.startswith("AmdSmi") else {"int": int, "list": list}.get(kind, ())


def _parameter(word: str) -> Parameter:
    name, _, default = word.partition("=")
    name = name.partition(":")[0]
    if not default:
        return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD)
    value = 4 * 1_048_576 if "*" in default else int(default)
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=value)


def unsupported(name: str) -> Optional[Callable[..., Any]]:
    """The function of this name that is not answered here; None where the vendor has none."""
    line = FUNCTIONS.get(name)
    if line is None:
        return None
    # A default may hold blanks.
    words = line.replace(" * ", "*").split()
    signature = Signature([_parameter(word) for word in words])
    kinds = dict(word.partition("=")[0].split(":") for word in words if ":" in word)

    def function(*arguments: object, **named: object) -> Any:
        bound = signature.bind(*arguments, **named)
        check_initialized()
        for parameter, kind in kinds.items():
            value, wanted = bound.arguments.get(parameter), _class_of(kind)
            if not isinstance(value, wanted):
                raise AmdSmiParameterException(value, wanted or kind)
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_SUPPORTED)

    function.__name__ = function.__qualname__ = name
    function.__module__ = __package__
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = (
        "Not supported: it changes the hardware, or the kernel's files do not answer it.\n\n"
        "    Raises:\n    - AmdSmiParameterException: If a parameter is not valid\n"
        "    - AmdSmiLibraryException: Always, code 2 (NOT_SUPPORTED)\n    "
    )
    return function
