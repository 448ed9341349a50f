"""What may go wrong. The text of each error names the call, the device or path, and what to do about it."""

from __future__ import annotations


class Error(Exception):
    """Any error of gpuev.

    Attributes:
        hint: what to do about it, where that is known; it ends the text, too.
    """

    hint: str | None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class NoGpuError(Error, LookupError):
    """No AMD GPU driver, or no GPU of this machine may be seen."""


class PermissionDeniedError(Error, PermissionError):
    """The device is there and may not be opened."""


class NotSupportedError(Error, NotImplementedError):
    """The driver is too old for what was asked, or does not have it."""


class GpuRemovedError(Error, ConnectionError):
    """The GPU is not, or no longer, there."""


class LockedError(Error, OSError):
    """The driver is locked while a GPU is being reset, repartitioned or removed. It passes: try again."""


class InvalidInputError(Error, ValueError):
    """What was asked for does not exist or makes no sense."""


class StoppedError(Error, ValueError):
    """The reader or watch has been stopped, or belongs to the process that this one was forked from."""


class OutOfResourcesError(Error, OSError):
    """No more descriptors, memory or the like."""


class IoError(Error, OSError):
    """Any other failure of the operating system."""
