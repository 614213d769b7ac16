"""
Reminders: what the bot brings up by itself, put into its lane when it is due.

Any number of processes look; what is due is moved by one step of Redis, so it is moved
once, and its turn is answered as any other. The time is Redis's. Knows nothing about
who sets reminders, or what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from bot.conversation.keys import Shard
from bot.conversation.patience import Patience
from bot.conversation.store import Store

# Whoever sets a reminder sees to it. This is for those of a process that has died
# since: with many shards, each look is a round trip for each of them.
LOOK_S = 5.0


class Reminders:
    """Fires the reminders of some platforms, of all shards."""

    def __init__(
        self, store: Store, platforms: Sequence[str], patience: Patience
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._patience = patience

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            # One for each shard: one that is away must not keep the others waiting.
            for shard in self._store.shards.all:
                tasks.create_task(self._watch(shard))

    async def _watch(self, shard: Shard) -> None:
        fire = partial(self._store.fire, shard, self._platforms)
        scheduled = self._store.scheduled[shard]
        while True:
            scheduled.clear()  # before the look: what is set after it wakes us
            next_s = await self._patience(fire)
            wait_s = LOOK_S if next_s is None else min(next_s, LOOK_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await scheduled.wait()
