"""
Writing the server's append-only file anew: what was deleted is still in the old one.

Knows nothing about what was deleted.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bot.conversation.connection import Connection
from bot.errors import StoreError

REWRITE_S = 60.0
PAUSE_S = 0.02


class Rewriting:
    """Rewrites the file of one server, one rewrite at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rewriting = asyncio.Lock()
        self._asked = 0
        self._covered = 0

    async def rewrite(self) -> None:
        """
        Return when the file was written anew, or raise StoreError. A rewrite that is
        already running began too early to count; one that began while this call waited
        will do.
        """
        self._asked += 1
        mine = self._asked
        async with self._rewriting:
            if self._covered >= mine:
                return
            await self._over()
            covering = self._asked
            client: Any = self._connection.commands
            with self._connection.translated():
                await client.bgrewriteaof()
            await self._over()
            await self._check()
            self._covered = covering

    async def _over(self) -> None:
        # Redis tells nobody when a rewrite is over, so it has to be asked.
        try:
            async with asyncio.timeout(REWRITE_S):
                while await self._is_running():  # noqa: ASYNC110
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError as error:
            raise self._failed(f"took longer than {REWRITE_S:g} s") from error

    async def _is_running(self) -> bool:
        found = await self._persistence()
        return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])

    async def _check(self) -> None:
        if (await self._persistence())["aof_last_bgrewrite_status"] != "ok":
            raise self._failed("failed, as the server's log explains")

    def _failed(self, why: str) -> StoreError:
        return StoreError(
            f"redis.url: {self._connection.where!r}: what was erased may still be in "
            f"the append-only file, whose rewriting {why}; run BGREWRITEAOF"
        )

    async def _persistence(self) -> dict[str, Any]:
        client: Any = self._connection.commands
        with self._connection.translated():
            found: dict[str, Any] = await client.info("persistence")
        return found
