"""Calls a function for whatever is a warning or worse, in a loop that does other things too, until Ctrl-C."""

import asyncio

import gpuev


def alert(item: gpuev.Item) -> None:
    severity = item.severity.name if isinstance(item, gpuev.Event) else "GAP"
    print(f"{severity}: GPU {item.gpu.index} ({item.gpu.bdf}): {item.message}")


async def main() -> None:
    async with gpuev.watch(severity="warning") as watch:
        async for item in watch:
            alert(item)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("no more alerts")
