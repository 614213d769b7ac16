"""
Which turns are to stop: announced in Redis, heard by every worker.

A stop may come while its turn is just being taken up, so the last ones are remembered.
Knows nothing about how a turn is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from bot.conversation.connection import BLOCK_MS
from bot.conversation.keys import Shard
from bot.conversation.patience import Patience
from bot.conversation.store import Store

REMEMBERED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """Why a turn is to stop; by whose newer message, as a digest of the person."""

    why: Literal["stopped", "newer"]
    who: str


class Stops:
    """Tells `stop` of each announced stop; `of` tells it later on too."""

    def __init__(
        self,
        store: Store,
        patience: Patience,
        stop: Callable[[str, Announced], None],
    ) -> None:
        self._store = store
        self._patience = patience
        self._stop = stop
        self._announced: dict[str, Announced] = {}

    async def listen(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for shard in self._store.shards.all:
                tasks.create_task(self._listen(shard))

    def of(self, turn: str) -> Announced | None:
        return self._announced.get(turn)

    async def _listen(self, shard: Shard) -> None:
        stream = shard.named("stops")
        last = await self._patience(lambda: self._last(stream))
        while True:
            found = await self._patience(partial(self._read, stream, last))
            for id_, fields in found:
                last = id_
                turn, why, who = (fields[name].decode() for name in (b"t", b"w", b"u"))
                self._heard(turn, Announced(why=why, who=who))

    def _heard(self, turn: str, announced: Announced) -> None:
        self._announced[turn] = announced
        if len(self._announced) > REMEMBERED:
            del self._announced[next(iter(self._announced))]
        self._stop(turn, announced)

    async def _last(self, stream: str) -> bytes:
        connection = self._store.connection
        with connection.translated():
            newest: Any = await connection.commands.xrevrange(stream, count=1)
        last: bytes = newest[0][0] if newest else b"0-0"
        return last

    async def _read(self, stream: str, last: bytes) -> list[Any]:
        connection = self._store.connection
        with connection.translated():
            found: Any = await connection.blocking.xread({stream: last}, block=BLOCK_MS)
        return [entry for _, entries in found for entry in entries]
