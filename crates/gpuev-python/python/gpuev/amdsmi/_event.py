"""What `AmdSmiEventReader.read` returns for each event."""

from __future__ import annotations

from .._core import event_data, vendor_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


class AmdSmiEvent(dict):  # type: ignore[type-arg]
    """
    An event: a dict with the keys that `AmdSmiEventReader.read` describes.

    Two more keys are made when they are first asked for, since most programs never do:
    - data (dict): what the driver says, typed, as in every other output of gpuev: addresses and sizes in bytes,
      triggers by name; `pid` and `process` where a process is meant
    - fields (dict): the vendor's message taken apart, keys and values as its library has them
    """

    __slots__ = ("_line",)

    _line: bytes

    def __missing__(self, key: str) -> Dict[str, Any]:
        if key not in self:
            raise KeyError(key)
        if key == "data":
            made = event_data(self._line)
        else:
            pairs = (pair.split(": ", 1) for pair in vendor_message(self._line).split("  "))
            made = {name: value for name, value in pairs}
        self[key] = made
        return made

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in ("data", "fields") and hasattr(self, "_line")

    def __getstate__(self) -> object:
        # For protocols 0 and 1 of pickle, which refuse slots otherwise.
        return None, {"_line": self._line} if hasattr(self, "_line") else {}

    def get(self, key: str, default: object = None) -> Any:
        """The value of `key`, or `default` where there is no such key."""
        return self[key] if key in self else default

    def setdefault(self, key: str, default: object = None) -> Any:
        """The value of `key`, which becomes `default` where there is no such key."""
        return self[key] if key in self else super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Removes `key` and gives its value, or `default` where there is no such key."""
        if key in self:
            self[key]
        return super().pop(key, *default)

    def copy(self) -> AmdSmiEvent:
        """A shallow copy, which makes the rarer keys as this one does."""
        # Not at the import of the package, which costs what it imports.
        from copy import copy

        return copy(self)
