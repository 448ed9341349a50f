"""Watching GPUs, and pairing what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import close, dup
from typing import TYPE_CHECKING, Union

from ._core import Event, Gap, Gpu, Pairing, Span, Stream, select_gpus
from ._enums import EventType, Severity
from .errors import InvalidInputError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

Item = Union[Event, Gap]


class Watch(Stream):
    """
    Events and gaps, as they happen: a blocking iterator, an asynchronous iterator, a context manager.

    `for item in watch` waits for the next one and ends when the watch is closed, from whatever thread.
    `async for item in watch` does the same without blocking the event loop. Both give `Event`s and, where some
    were lost, a `Gap` in their place; `item.type` of a gap is None.
    """

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = None if self.closed else self.wait()
        if item is None:
            raise StopIteration
        return item

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Item:
        from asyncio import get_running_loop, sleep
        from time import monotonic

        # While items wait, nothing else would make the loop's other tasks run.
        self._taken += 1
        if self._taken >= _TURN_ITEMS or monotonic() - self._turn_began >= _TURN_SECONDS:
            await sleep(0)
            self._begin_turn(monotonic())
        while not self.closed:
            item = self.try_next()
            if item is not None:
                return item
            ready = self._ready
            if ready is None or ready.loop is not get_running_loop():
                ready = self._ready = _Ready(get_running_loop(), self.fileno())
            await ready.wait()
            self._begin_turn(monotonic())
        raise StopAsyncIteration

    # Of the asynchronous iterator: how many items were given without letting the loop run, since when, and what
    # tells that there are more.
    _taken: int = 0
    _turn_began: float = 0.0
    _ready: _Ready | None = None

    def _begin_turn(self, now: float) -> None:
        self._taken = 0
        self._turn_began = now

    def close(self) -> None:
        """End it. Repeating it does nothing."""
        super().close()
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


# An asynchronous iterator lets the loop run after so many items, or so much time.
_TURN_ITEMS = 64
_TURN_SECONDS = 0.005


class _Ready:
    """
    Wakes tasks of a loop when a descriptor is readable. The loop watches a copy of it, so that the descriptor may be
    closed meanwhile, and goes on watching as long as tasks wait each time that it is readable.
    """

    def __init__(self, loop: AbstractEventLoop, fd: int) -> None:
        self.loop = loop
        self._fd = dup(fd)
        self._watched = False
        self._waiting: set[Future[None]] = set()

    async def wait(self) -> None:
        """Return when it is readable, or closed."""
        if self._fd < 0:
            return
        if not self._watched:
            self.loop.add_reader(self._fd, self._wake)
            self._watched = True
        waiter = self.loop.create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        if not self._waiting:
            # What nobody takes now would wake the loop again and again.
            self.loop.remove_reader(self._fd)
            self._watched = False
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Wake all, and watch it no more; from whatever thread."""
        try:
            self.loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop is closed, and watches nothing
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._watched and not self.loop.is_closed():
            self.loop.remove_reader(fd)
        self._watched = False
        close(fd)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def __del__(self) -> None:
        # A watch that was dropped without being closed.
        if self._fd >= 0 and not self._watched:
            close(self._fd)


def watch(
    types: Iterable[EventType | str] | EventType | str | None = None,
    gpus: Iterable[Gpu | str | int] | Gpu | str | int | None = None,
    *,
    pids: Iterable[int] | None = None,
    severity: Severity | str | None = None,
    limit: int | None = None,
) -> Watch:
    """
    Watch GPUs. The subscription is live when this returns.

    Args:
        types: only these types, as `EventType` or by name; all if None, those of later kernels included
        gpus: only these, as `Gpu`, index, PCI address, or unique id; all if None, those that come later included
        pids: only events of these processes
        severity: only events at least this severe
        limit: bytes of events that may wait to be taken, 64 MiB if None; what exceeds them becomes a `Gap`

    Raises:
        NoGpuError: there is no GPU
        PermissionDeniedError: the device may not be opened
        InvalidInputError: a type or GPU that does not exist
    """
    ids, unknown = event_types(types)
    return Watch(
        ids,
        unknown,
        None if gpus is None else _gpus(_several(gpus)),
        None if pids is None else list(pids),
        None if severity is None else severity_place(severity),
        limit,
    )


def event_types(
    types: Iterable[EventType | str] | EventType | str | None,
) -> tuple[list[int] | None, bool]:
    """The driver's numbers of types, and whether those that it has and we do not know are among them."""
    if types is None:
        return None, True
    wanted = [_event_type(one) for one in _several(types)]
    return [one.id for one in wanted if one.id is not None], EventType.UNKNOWN in wanted


def _several(value: object) -> Iterable[object]:
    single = isinstance(value, (str, int, Gpu)) or not isinstance(value, Iterable)
    return (value,) if single else value  # type: ignore[return-value]


def _event_type(value: object) -> EventType:
    try:
        return EventType(str(value).upper())
    except ValueError:
        hint = "there are " + ", ".join(EventType)
        raise InvalidInputError(f"no event type {value!r}; {hint}", hint) from None


def severity_place(value: Severity | str) -> int:
    """The place of a severity in their order."""
    try:
        return Severity[value.upper()] if isinstance(value, str) else Severity(value)
    except (KeyError, ValueError):
        hint = "there are info, warning and critical"
        raise InvalidInputError(f"no severity {value!r}; {hint}", hint) from None


def _gpus(wanted: Iterable[object]) -> list[Gpu]:
    chosen: list[Gpu] = []
    for one in wanted:
        chosen += [one] if isinstance(one, Gpu) else select_gpus(str(one))
    return chosen


def spans(items: Iterable[Item]) -> Iterator[Span]:
    """
    Pair starts with their ends: page faults, migrations, evictions, resets, processes.

    What cannot be paired is given too, with the reason in `outcome`; what is open when `items` end comes last.

        for span in gpuev.spans(gpuev.watch()):
            print(span.type, span.duration, span.outcome)
    """
    pairing = Pairing()
    for item in items:
        yield from pairing.push(item)
    yield from pairing.finish()


__all__ = ["Item", "Watch", "spans", "watch"]
