"""
Shares: how many conversations of one person a process answers at once.

Who writes in a hundred threads gets a few places, and others find theirs free. What is
over a person's share steps aside: it stays held, so that it keeps its turn, and takes
nobody's place. Knows nothing about what is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bot.conversation.crew import Held


@dataclass(slots=True)
class _Share:
    places: asyncio.Semaphore
    users: int = 0


class Shares:
    """`each` conversations of a person at once; first come, first served."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._of: dict[str, _Share] = {}

    @asynccontextmanager
    async def of(self, person: str, held: Held) -> AsyncIterator[bool]:
        """Wait for a place of the person's; tell whether it was waited for."""
        share = self._of.setdefault(person, _Share(asyncio.Semaphore(self._each)))
        share.users += 1
        try:
            waited = share.places.locked()
            if waited:
                held.step_aside()
            async with share.places:
                if waited:
                    held.step_in()
                yield waited
        finally:
            share.users -= 1
            if not share.users:
                del self._of[person]
