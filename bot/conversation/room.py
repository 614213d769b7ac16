"""
A room that many share, or one has alone.

A message whose worker died may have killed it. It is tried again with nothing beside
it, so that it cannot take others along, and they, who were only near, are not blamed.
Knows nothing about messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Whoever wants to be alone is let in before those who would share."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._sharing = 0
        self._is_taken = False
        self._wanting = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._is_taken and not self._wanting
            )
            self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        self._wanting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: not self._is_taken and not self._sharing
                )
                self._is_taken = True
        finally:
            self._wanting -= 1
            await self._tell()
        try:
            yield
        finally:
            self._is_taken = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
