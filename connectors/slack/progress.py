"""
Progress: how far the sending of one reply has come.

Lies on the shelf under the turn's id, so that a second call goes on where the first one
ended, in another process too. Knows no calls of Slack's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import orjson

from bot.errors import StoreError
from bot.interfaces import Shelf

# The core gives a reply up after a day.
KEPT_S = 2 * 86_400.0
# How much earlier than its first attempt a reply's message may have been begun.
BEFORE_S = 900.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """
    `done` are the stamps of the parts that are out, in order, `whole` that these are
    all. `drafts` are messages that become the next parts; the last one is streamed
    where `streams` says so, and `lost` is as a draft's. `trying` means that the next
    part may be out, too. Nothing of it is older than `since`.
    """

    since: str
    done: list[str] = field(default_factory=list)
    whole: bool = False
    drafts: list[str] = field(default_factory=list)
    streams: bool = False
    lost: bool = False
    trying: bool = False


class Ledger:
    """The progress of every reply of the last days; `clock` is the time of day."""

    def __init__(self, shelf: Shelf, clock: Callable[[], float]) -> None:
        self._shelf = shelf
        self._clock = clock

    async def read(self, key: str) -> Progress | None:
        kept = await self._shelf.get(_name(key))
        return None if kept is None else Progress(**orjson.loads(kept))

    def since(self) -> str:
        return f"{max(0.0, self._clock() - BEFORE_S):.6f}"

    async def write(self, key: str, progress: Progress) -> None:
        value = orjson.dumps(asdict(progress))
        await self._shelf.put(_name(key), value, ttl_s=KEPT_S)

    async def note(self, key: str, progress: Progress) -> None:
        """
        Write what Slack has done already. Where the store is away, what was written
        before says that the part may be out, and Slack is asked.
        """
        with suppress(StoreError):
            await self.write(key, progress)


def _name(key: str) -> str:
    return f"reply {key}"
