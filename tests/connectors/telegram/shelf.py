"""A shelf in memory, for tests in which nothing is to survive."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class DictShelf:
    """Keeps everything for ever: `ttl_s` is noted in `ttls` and not carried out."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.ttls: dict[str, float | None] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        assert isinstance(value, bytes), f"{name} is no bytes: {value!r}"
        if absent and self.kept.get(name, value) != value:
            return False
        self.kept[name], self.ttls[name] = value, ttl_s
        return True

    async def take(self, name: str) -> bytes | None:
        return self.kept.pop(name, None)

    async def remove(self, name: str) -> None:
        self.kept.pop(name, None)

    @asynccontextmanager
    async def lock(self, name: str, ttl_s: float) -> AsyncIterator[None]:
        async with self._locks[name]:
            yield
