"""
Shelves: the small things that connectors keep in Redis.

Each platform has its own; what lies there is the connector's affair. Knows nothing
about conversations, so forgetting one takes nothing from a shelf: a connector puts no
words of a customer there, and names nobody for longer than it must.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import LockError

from bot.conversation.connection import Connection
from bot.conversation.keys import Shards

PAUSE_S = 0.05  # between two looks at a lock that is held

# What is there already may be our own, sent again because its answer was lost.
_PUT = """
local there = redis.call('GET', KEYS[1])
if ARGV[3] == 'absent' and there and there ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""

# Scripts, although each is one command: they travel together with other scripts.
_GET = "return redis.call('GET', KEYS[1])"
_REMOVE = "return redis.call('DEL', KEYS[1])"

_TAKE = """
local there = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return there
"""


class RedisShelf:
    """The shelf of one platform; see `bot.interfaces.Shelf`."""

    def __init__(self, connection: Connection, shards: Shards, platform: str) -> None:
        self._connection = connection
        self._shards = shards
        self._platform = platform
        self._get = connection.script(_GET)
        self._put = connection.script(_PUT)
        self._remove = connection.script(_REMOVE)
        self._take = connection.script(_TAKE)

    async def get(self, name: str) -> bytes | None:
        with self._connection.translated():
            kept: bytes | None = await self._get(keys=[self._key(name)])
        return kept

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        ttl_ms = "" if ttl_s is None else max(1, round(1000 * ttl_s))
        args = [value, ttl_ms, "absent" if absent else ""]
        with self._connection.translated():
            return bool(await self._put(keys=[self._key(name)], args=args))

    async def take(self, name: str) -> bytes | None:
        with self._connection.translated():
            kept: bytes | None = await self._take(keys=[self._key(name)])
        return kept

    async def remove(self, name: str) -> None:
        with self._connection.translated():
            await self._remove(keys=[self._key(name)])

    @asynccontextmanager
    async def lock(self, name: str, ttl_s: float) -> AsyncIterator[None]:
        client: Any = self._connection.commands
        key = self._key(f"lock:{name}")
        held = client.lock(key, timeout=ttl_s, sleep=PAUSE_S, thread_local=False)
        token = uuid.uuid4().hex.encode()
        try:
            with self._connection.translated():
                await held.acquire(token=token)
            yield
        finally:
            # Whoever is cancelled while acquiring may hold it without knowing.
            held.local.token = token
            # It is another's or nobody's after `ttl_s`, or was never ours.
            with self._connection.translated(), suppress(LockError):
                await held.release()

    def _key(self, name: str) -> str:
        """A digest, because a name may name a person, and may hold braces."""
        named = f"{self._platform} {name}".encode(errors="replace")
        digest = hashlib.sha256(named).hexdigest()[:32]
        shard = self._shards.all[zlib.crc32(named) % len(self._shards.all)]
        return f"{shard.prefix}:shelf:{digest}"
