"""The event reader of the documented API."""

from __future__ import annotations

import atexit
import os
import time
from weakref import WeakSet

from .._core import EventReader, processor_handle
from ..errors import Error
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException
from ._session import check_initialized, library_exception
from ._types import AmdSmiEvtNotificationType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Dict, Iterable, List, Optional, Type, Union


class AmdSmiEventReader:
    """
    Event reader for monitoring GPU events and notifications.

    Each reader has its own subscription at the driver and its own buffer: any number of them, on one GPU or
    several, with the same or other types, are independent. From the moment the constructor returns nothing
    is missed between two calls of `read`: a thread, one for all readers of the process, empties the driver's
    queue at once. What exceeds the buffer (64 MiB, some 750,000 events) is counted in `lost_before`.

    A reader may be used from several threads: each event is given to one of them. In a process made by
    fork() it is stopped; the parent's goes on.

    Example:
    ```python
    import amdsmi

    amdsmi.amdsmi_init()
    device = amdsmi.amdsmi_get_processor_handles()[0]
    types = [amdsmi.AmdSmiEvtNotificationType.THERMAL_THROTTLE]
    with amdsmi.AmdSmiEventReader(device, types) as reader:
        for event in reader.read(timestamp=0):
            print(event["event"], event["message"])
    amdsmi.amdsmi_shut_down()
    ```
    """

    __slots__ = ("__weakref__", "_failed", "_reader")

    def __init__(
        self,
        processor_handle: processor_handle,
        event_types: Iterable[AmdSmiEvtNotificationType],
    ) -> None:
        """
        Initialize event reader for a GPU device with specified event types.

        Parameters:
        - processor_handle: Handle for the target GPU device
        - event_types (List[AmdSmiEvtNotificationType]): Event types to monitor; any iterable

        Raises:
        - AmdSmiParameterException: If processor_handle is not valid or event_types is not iterable or
          contains invalid event types
        - AmdSmiLibraryException: On initialization failure; its cause says what to do

        Note:
        - Each event type (except NONE) sets a bit in the notification mask: mask |= 1 << (type - 1)
        - The subscription is live when the constructor returns
        """
        check_initialized()
        _check_handle(processor_handle)
        mask = _mask(event_types)
        vendor = os.environ.get(MESSAGES) == "vendor"
        try:
            self._reader = EventReader(processor_handle, mask, vendor_messages=vendor)
        except Error as error:
            raise library_exception(error) from error
        self._failed = False
        _open.add(self)

    def read(
        self,
        timestamp: Union[int, float],
        num_elem: int = 10,
        *,
        timeout_ms: Optional[float] = None,
    ) -> List[Dict[str, Any]]:
        """
        Read GPU event notifications from the event queue.

        Never raises because nothing happened. What is pending comes at once and whole.

        Parameters:
        - timestamp (int or float): Seconds since 1970, as time.time() has them. Only events later than this
          are returned; older ones are consumed and left out. 0 for all pending events. A number below
          100,000,000 is no time of an event (it lies before 1973): so many milliseconds the call waits for the
          first event, as programs that were written for the vendor's library mean it, then it returns an empty
          list.
        - num_elem (int): Maximum number of events to return; the rest stays for the next read, in order
        - timeout_ms (int or float): Milliseconds to wait for the first event, whatever timestamp is; 0 not to wait

        Returns:
        - List[dict]: Oldest first, each with:
          - processor_handle (processor_handle): GPU device that generated the event
          - event (str): Event type name (e.g., "THERMAL_THROTTLE")
          - message (str): What happened, for people; always printable. Where the environment variable
            GPUEV_AMDSMI_MESSAGES is "vendor" as the reader is made: the vendor's `key: value` text
          - timestamp (float): When, in seconds since 1970: by the driver's own clock where it gives a time
            (types 5 to 11), else when the event was received
          - lost_before (int): How many events were lost between this one and the one returned before it.
            0 as a rule; -1 where some may have been lost and nobody knows whether or how many (the
            driver's own queue, of some 170 events, was full); if there are losses of both kinds, the number
            that is known
          - data (dict): What the driver says, typed; made when it is asked for
          - fields (dict): The vendor's message, taken apart; made when it is asked for

        Raises:
        - AmdSmiParameterException: If timestamp, num_elem or timeout_ms makes no sense
        - AmdSmiLibraryException: Code 32 after stop() or amdsmi_shut_down(); code 31 when the GPU is gone
          and everything before was read. A call that may wait and follows one that failed waits, at most a
          second, before it raises again: a program that ignores the error does not spin.

        Note:
        - Only events matching the event mask are returned, and only types of the enum
        """
        after = _seconds(timestamp)
        most = _count(num_elem)
        if timeout_ms is not None:
            timeout: Optional[float] = _seconds(timeout_ms) / 1000
        else:
            timeout = after / 1000 if 0 < after < _FIRST_TIME else None
        try:
            check_initialized()
            return self._reader.read(after, most, timeout)
        except Error as error:
            self._rest(timeout)
            raise library_exception(error) from error
        except AmdSmiLibraryException:
            self._rest(timeout)
            raise

    def _rest(self, timeout: Optional[float]) -> None:
        """Waits before an error is raised again."""
        if self._failed and timeout:
            time.sleep(min(timeout, 1.0))
        self._failed = True

    def stop(self) -> None:
        """
        Stop GPU event notification and release resources.

        Called by `with`, by garbage collection and at exit. Repeating it does nothing. A thread that waits
        in read() is woken. Other readers are not touched.
        """
        self._reader.stop()

    def __enter__(self) -> AmdSmiEventReader:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = " stopped" if self._reader.stopped else ""
        return f"<AmdSmiEventReader {self._reader.processor_handle!r}{state}>"


# What words the messages.
MESSAGES = "GPUEV_AMDSMI_MESSAGES"
# 1973 in seconds since 1970: what is smaller is no time of an event, but milliseconds to wait.
_FIRST_TIME = 100_000_000

_open: WeakSet[AmdSmiEventReader] = WeakSet()


def stop_all() -> None:
    """Stops every reader."""
    for reader in list(_open):
        reader.stop()


atexit.register(stop_all)


def _check_handle(handle: object) -> None:
    if not isinstance(handle, processor_handle):
        raise AmdSmiParameterException(handle, processor_handle)


def _mask(event_types: Iterable[AmdSmiEvtNotificationType]) -> int:
    try:
        members = iter(event_types)
    except TypeError:
        raise AmdSmiParameterException(event_types, list) from None
    mask = 0
    for member in members:
        if not isinstance(member, AmdSmiEvtNotificationType):
            raise AmdSmiParameterException(member, AmdSmiEvtNotificationType)
        if member:
            mask |= 1 << (member - 1)
    return mask


def _seconds(number: object) -> float:
    """A number of time: finite, not negative; no bool and no text."""
    if type(number) is int or type(number) is float:
        value = number
    elif isinstance(number, bool) or not hasattr(type(number), "__float__"):
        raise AmdSmiParameterException(number, float)
    try:
        value = float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise AmdSmiParameterException(number, float) from None
    if not 0 <= value < float("inf"):
        raise AmdSmiParameterException(
            number, float, f"Invalid parameter:\nA time is not negative and finite, not {number!r}"
        )
    return value


_MOST = (1 << 63) - 1


def _count(number: object) -> int:
    """A number of events: at least one."""
    if isinstance(number, bool) or not hasattr(type(number), "__index__"):
        raise AmdSmiParameterException(number, int)
    count: int = number.__index__()  # type: ignore[attr-defined]
    if count < 1:
        raise AmdSmiParameterException(
            number, int, f"Invalid parameter:\nnum_elem is at least 1, not {number!r}"
        )
    return min(count, _MOST)
