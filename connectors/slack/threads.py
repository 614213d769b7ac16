"""
Threads: in which ones the bot takes part.

Who answers in such a thread means the bot without naming it. Knows no messages.
"""

from __future__ import annotations

from bot.interfaces import Shelf
from bot.model import Address

KEPT_S = 30 * 86_400.0  # from the bot's last word, or the last time it was named


class Threads:
    """The threads of channels; in a direct message everything is meant for the bot."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def join(self, address: Address) -> None:
        if address.thread is not None:
            await self._shelf.put(_name(address), b"1", ttl_s=KEPT_S)

    async def has(self, address: Address) -> bool:
        return await self._shelf.get(_name(address)) is not None


def _name(address: Address) -> str:
    return f"thread {address.key}"
