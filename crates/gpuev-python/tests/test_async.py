"""`async for`: the loop's other tasks run, whatever comes."""

from __future__ import annotations

import asyncio
import gc
import os

import gpuev


def test_other_tasks_run_while_items_wait():
    async def run():
        with gpuev.sim.Machine(gpus=1) as machine:
            watch = gpuev.watch()
            ran = 0

            async def other():
                nonlocal ran
                while True:
                    ran += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            sent = await asyncio.to_thread(machine.page_faults, 20_000)
            assert sent
            before, taken = ran, 0
            async for item in watch:
                taken += 1 if item.type is not None else item.count or 0
                if taken >= 10_000:
                    break
            during = ran - before
            # Once in 64 items at least.
            assert during >= 100
            task.cancel()
            watch.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_slow_body_lets_others_run_after_each_item():
    async def run():
        with gpuev.sim.Machine(gpus=1) as machine:
            watch = gpuev.watch()
            machine.page_faults(20)
            order = []

            async def other():
                while True:
                    order.append("other")
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            async for _item in watch:
                order.append("item")
                # Longer than a turn, by the clock that turns go by.
                watch._turn_began -= 1
                if order.count("item") == 10:
                    break
            task.cancel()
            watch.close()
            items = [place for place, what in enumerate(order) if what == "item"]
            assert all(later - earlier > 1 for earlier, later in zip(items, items[1:]))

    asyncio.run(asyncio.wait_for(run(), 60))


def test_one_descriptor_is_watched_however_often_it_waits():
    async def run():
        with gpuev.sim.Machine(gpus=1) as machine:
            async with gpuev.watch() as watch:
                loop = asyncio.get_running_loop()
                added = 0
                add_reader = loop.add_reader

                def counted(*arguments):
                    nonlocal added
                    added += 1
                    return add_reader(*arguments)

                loop.add_reader = counted
                for _ in range(20):
                    waiting = asyncio.create_task(watch.__anext__())
                    await asyncio.sleep(0)
                    machine.emit("VMFAULT", pid=1, process="x")
                    assert (await waiting).type == "VMFAULT"
                assert 1 <= added <= 20
                descriptors = len(os.listdir("/proc/self/fd"))
                for _ in range(20):
                    waiting = asyncio.create_task(watch.__anext__())
                    await asyncio.sleep(0)
                    machine.emit("VMFAULT", pid=1, process="x")
                    await waiting
                assert len(os.listdir("/proc/self/fd")) == descriptors

    asyncio.run(asyncio.wait_for(run(), 60))


def test_waiting_ends_with_a_close_a_cancel_and_a_timeout():
    async def run():
        with gpuev.sim.Machine(gpus=1) as machine:
            watch = gpuev.watch()
            try:
                await asyncio.wait_for(watch.__anext__(), 0.05)
                raise AssertionError("nothing happened")
            except asyncio.TimeoutError:
                pass
            waiting = [asyncio.create_task(watch.__anext__()) for _ in range(2)]
            await asyncio.sleep(0)
            machine.emit("VMFAULT", pid=1, process="x")
            done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            # From another thread, as a handler of a signal or a pool would.
            await asyncio.to_thread(watch.close)
            for task in pending:
                try:
                    await task
                    raise AssertionError("the watch is closed")
                except StopAsyncIteration:
                    pass
            assert [item async for item in watch] == []

    asyncio.run(asyncio.wait_for(run(), 60))


def test_nothing_is_left_of_a_watch():
    async def once():
        with gpuev.sim.Machine(gpus=1) as machine:
            async with gpuev.watch() as watch:
                machine.emit("VMFAULT", pid=1, process="x")
                async for _item in watch:
                    break
                try:
                    await asyncio.wait_for(watch.__anext__(), 0.01)
                except asyncio.TimeoutError:
                    pass

    asyncio.run(once())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(once())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
