"""
Lines: one writer at a time for each conversation.

Slack refuses an edit of a message that is being streamed, and takes calls in any order,
so frames and replies of one conversation wait for each other, in other processes too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bot.interfaces import Shelf

# A call of Slack's takes 20 s at most. Who has died holds up others for no longer.
HELD_S = 30.0


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Lines:
    """Locks by name, kept for as long as somebody wants them."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lines: dict[str, _Line] = {}

    def is_held(self, name: str) -> bool:
        """Say whether this process holds it, or waits for it."""
        return name in self._lines

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        line = self._lines.setdefault(name, _Line())
        line.waiting += 1
        try:
            async with line.lock, self._shelf.lock(f"line {name}", HELD_S):
                yield
        finally:
            line.waiting -= 1
            if line.waiting == 0:
                del self._lines[name]
