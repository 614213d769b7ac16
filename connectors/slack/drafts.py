"""
Drafts: a reply in Slack while it is being written, until it is whole.

A draft is what a conversation shows of an unfinished reply: one stream or several, or a
message that is edited. It lies on the shelf from before it is begun, so that whoever
sends the reply, after a crash too, finishes that message and posts no second one. Knows
neither how a draft grows nor what becomes of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from bot.interfaces import Shelf
from bot.model import Address

REMEMBERED = 2_000
# Every turn ends with a reply, even one that was stopped: it takes no longer than this.
KEPT_S = 3600.0


@dataclass(slots=True, kw_only=True)
class Draft:
    """
    `stamps` are its messages in Slack, oldest first; the last one is being streamed
    where `streams` says so. `lost` means that Slack may have begun one of which nobody
    knows the stamp. `shown` is all of the text that stands there, None where that is
    not known; `before` is how much of it earlier messages have. A `frozen` draft is
    not shown growing any more.
    """

    stamps: list[str] = field(default_factory=list)
    streams: bool = False
    lost: bool = False
    shown: str | None = None
    before: int = 0
    frozen: bool = False
    began: float = 0.0
    grew: float = 0.0


class Drafts:
    """
    The draft of each conversation; `clock` counts seconds. Whoever asks holds the
    conversation's line, so that no other process changes it meanwhile.
    """

    def __init__(self, shelf: Shelf, clock: Callable[[], float]) -> None:
        self._shelf = shelf
        self._clock = clock
        self._ours: OrderedDict[str, Draft] = OrderedDict()

    def grew_lately(self, address: Address, seconds: float) -> bool:
        """Say whether this process has shown more of it in the last `seconds`."""
        draft = self._ours.get(address.key)
        return draft is not None and self._clock() - draft.grew < seconds

    async def open(self, address: Address) -> Draft | None:
        """Return the draft that this process or another one has begun."""
        kept = await self._shelf.get(_name(address))
        if kept is None:
            # Over: a reply was made of it, in another process maybe.
            self._ours.pop(address.key, None)
            return None
        ours = self._ours.get(address.key)
        return ours if ours is not None and _written(ours) == kept else _read(kept)

    async def keep(self, address: Address, draft: Draft) -> None:
        # What is not on the shelf is not begun.
        await self._shelf.put(_name(address), _written(draft), ttl_s=KEPT_S)
        self._ours[address.key] = draft
        self._ours.move_to_end(address.key)
        if len(self._ours) > REMEMBERED:
            self._ours.popitem(last=False)

    async def drop(self, address: Address) -> None:
        self._ours.pop(address.key, None)
        await self._shelf.remove(_name(address))


def _written(draft: Draft) -> bytes:
    kept = {"stamps": draft.stamps, "streams": draft.streams, "lost": draft.lost}
    return orjson.dumps(kept)


def _read(kept: bytes) -> Draft:
    """Return another process's draft: whole is how it is shown next."""
    return Draft(**orjson.loads(kept), frozen=True)


def _name(address: Address) -> str:
    return f"draft {address.key}"
