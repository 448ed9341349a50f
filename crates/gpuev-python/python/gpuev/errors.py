"""What may go wrong. The text of each error names the call, the device or path, and what to do about it.

Those that come of the operating system are Python's own too, with `errno`, `strerror` and `filename`: a history that
is not there is a `FileNotFoundError`, a device that may not be opened a `PermissionError`.
"""

from __future__ import annotations

from os import strerror


class Error(Exception):
    """Any error of gpuev.

    Attributes:
        hint: what to do about it, where that is known; it ends the text, too.
        errno: the operating system's number, where it gave one.
        filename: the file, folder or device that it is about, where it is about one.
    """

    hint: str | None
    errno: int | None
    filename: str | None

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.errno = errno
        self.filename = filename
        if isinstance(self, OSError):
            # Set as any attribute: a type checker takes it for one of all errors else.
            setattr(self, "strerror", message if errno is None else strerror(errno))  # noqa: B010

    def __str__(self) -> str:
        # Python's own would leave out the hint.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args[:1], self.hint, self.errno, self.filename)


class NoGpuError(Error, LookupError):
    """No AMD GPU driver, or no GPU of this machine may be seen."""


class PermissionDeniedError(Error, PermissionError):
    """The file or device is there and may not be opened."""


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


class NotFoundError(IoError, FileNotFoundError):
    """A file or folder is not there."""


class ExistsError(IoError, FileExistsError):
    """A file or folder is there already."""


class FolderError(IoError, IsADirectoryError):
    """A folder is where a file should be."""


class NotAFolderError(IoError, NotADirectoryError):
    """A file is where a folder should be."""


class TimedOutError(IoError, TimeoutError):
    """The operating system, or a file server, has not answered in time."""


class BusyError(IoError, BlockingIOError):
    """Somebody else has it now."""


_OF_ERRNO: tuple[type[IoError], ...] = (
    NotFoundError,
    ExistsError,
    FolderError,
    NotAFolderError,
    TimedOutError,
    BusyError,
)


def os_error(
    message: str, hint: str | None = None, errno: int | None = None, filename: str | None = None
) -> IoError:
    """The error of the class that Python has for `errno`."""
    # OSError(2, "") is a FileNotFoundError: Python knows which number is which class.
    builtin = OSError if errno is None else type(OSError(errno, ""))
    found = (one for one in _OF_ERRNO if builtin is not OSError and issubclass(one, builtin))
    return next(found, IoError)(message, hint, errno, filename)
