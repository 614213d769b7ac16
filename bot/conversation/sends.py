"""
What one connector is sending: a few things at once, what matters most first.

Final replies go before interactive ones, these before statuses, these before frames of
a reply that is still being written. Statuses and frames are worth having only while
nothing newer is there: of each address the latest one counts. A reply that goes out
drops its address's frames, and waits for the one that is just being shown. Knows
nothing about what sending means.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

from bot.model import Address

AT_ONCE = 16


class Priority(IntEnum):
    """Lower goes first."""

    FINAL = 0
    INTERACTIVE = 1
    STATUS = 2
    FRAME = 3


class Gate:
    """Lets a few through at once; who waits is let in by priority, then in order."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._number = itertools.count()

    @asynccontextmanager
    async def admitted(self, priority: Priority) -> AsyncIterator[None]:
        if self._free > 0:
            self._free -= 1
        else:
            await self._turn(priority)
        try:
            yield
        finally:
            self._admit_next()

    async def _turn(self, priority: Priority) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._number), admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            # It may have been let in at the same moment: then the place is free again.
            if not admitted.cancelled():
                self._admit_next()
            raise

    def _admit_next(self) -> None:
        while self._waiting:
            _, _, admitted = heapq.heappop(self._waiting)
            if not admitted.done():
                admitted.set_result(None)
                return
        self._free += 1


class Shown:
    """
    The statuses and frames of one connector: the latest of each address, one at a time
    for each address. `show` never waits.
    """

    def __init__(
        self, gate: Gate, show: Callable[[Priority, Address, str], Awaitable[None]]
    ) -> None:
        self._gate = gate
        self._show = show
        self._latest: dict[str, dict[Priority, tuple[Address, str]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._frames: dict[str, asyncio.Event] = {}

    def show(self, priority: Priority, address: Address, text: str) -> None:
        self._latest.setdefault(address.key, {})[priority] = (address, text)
        if address.key not in self._tasks:
            self._tasks[address.key] = asyncio.create_task(self._run(address.key))

    async def drop_frames(self, address: Address) -> None:
        """Forget the frame that waits; wait for the one that is just being shown."""
        self._latest.get(address.key, {}).pop(Priority.FRAME, None)
        if address.key in self._frames:
            await self._frames[address.key].wait()

    async def settled(self) -> None:
        """Wait until everything was shown."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: str) -> None:
        try:
            while latest := self._latest.get(key):
                priority = min(latest)
                async with self._gate.admitted(priority):
                    # What waited may be out of date by now, or not wanted any more.
                    if priority in latest:
                        await self._show_one(key, priority, *latest.pop(priority))
        finally:
            self._latest.pop(key, None)
            self._tasks.pop(key, None)

    async def _show_one(
        self, key: str, priority: Priority, address: Address, text: str
    ) -> None:
        if priority is not Priority.FRAME:
            await self._show(priority, address, text)
            return
        shown = self._frames[key] = asyncio.Event()
        try:
            await self._show(priority, address, text)
        finally:
            del self._frames[key]
            shown.set()
