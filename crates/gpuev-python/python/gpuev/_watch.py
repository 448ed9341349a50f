"""Watching GPUs, and pairing what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Union

from ._core import Event, Gap, Gpu, Pairing, Span, Stream, select_gpus
from ._enums import EventType, Severity
from .errors import InvalidInputError

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
        while not self.closed:
            item = self.try_next()
            if item is not None:
                return item
            await _readable(self.fileno())
        raise StopAsyncIteration

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


async def _readable(fd: int) -> None:
    """Waits until `fd` is readable; a copy of it, so that it may be closed meanwhile."""
    import asyncio
    import os

    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    copy = os.dup(fd)
    try:
        loop.add_reader(copy, ready.set)
        await ready.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)


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
