"""Where each name lives, so that it is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module

from . import _names

MISSING = object()

_SESSION = ("amdsmi_init", "amdsmi_shut_down")
# In this order: those that programs ask for most are found first.
_FUNCTION_HOMES = ("_functions", "_processes", "_identity", "_topology", "_policies", "_telemetry", "_ras")
_HOMES = {
    "AmdSmiEvent": "_event",
    "AmdSmiEventReader": "_reader",
    "improve": "_improve",
    "use_units": "_units",
}


def _home(name: str) -> object:
    return import_module(f".{name}", __package__)


def _function(name: str) -> object:
    if name in _SESSION:
        return getattr(_home("_session"), name)
    for home in _FUNCTION_HOMES:
        found = vars(_home(home)).get(name)
        if found is not None:
            return found
    from ._unsupported import unsupported

    return unsupported(name) or MISSING


def find(name: str) -> object:
    """What `name` stands for; MISSING where there is no such name."""
    if name.startswith("amdsmi_"):
        return _function(name)
    if name == "processor_handle":
        from .._core import processor_handle

        return processor_handle
    if name in _HOMES:
        return getattr(_home(_HOMES[name]), name)
    if name.startswith("AmdSmi") and name.endswith(("Exception", "RetCode")):
        return vars(_home("_exceptions")).get(name, MISSING)
    if name.startswith(("AmdSmi", "MaxUInteger")):
        return getattr(_home("_types"), name, MISSING)
    return constants().get(name, MISSING) if name.isupper() else MISSING


def constants() -> dict[str, float]:
    """Sizes and limits, by name."""
    numbers = (line.split("=") for line in _names.CONSTANTS.splitlines())
    return {name: int(value) for name, value in numbers}


def _first_words(table: str) -> list[str]:
    return [line.split(maxsplit=1)[0] for line in table.splitlines()]


def names() -> list[str]:
    """The public names of the vendor's package, and AmdSmiRetCode."""
    from . import _exceptions

    classes = [*_first_words(_names.ENUMS), *_exceptions.__all__, "AmdSmiEventReader"]
    return [*_first_words(_names.FUNCTIONS), *classes, *constants()]
