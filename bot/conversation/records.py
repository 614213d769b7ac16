"""
The records of turns, read back for an operator: all of them, with what led up to each,
and with what another arm of an experiment would have said.

Reads, and keeps what was computed in the shadow of a turn; changes nothing of the turn.
Knows nothing about experiments but that a turn may have a shadow.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bot.conversation import scripts
from bot.conversation.keys import Shard
from bot.conversation.state import EVENTS, RECORDS, Unreadable
from bot.conversation.store import Store
from bot.model import Event, Record

logger = logging.getLogger(__name__)

AT_ONCE = 50  # records read in one round trip; one has tens of kilobytes
# From connectors; everything else is logged after the message of its turn.
FROM_OUTSIDE = frozenset(
    {"message", "command", "intent", "button", "cancel", "feedback"}
)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A turn's record, and that of its shadow where it has one."""

    record: Record
    shadow: Record | None


async def kept(store: Store, since: datetime = LONG_AGO) -> AsyncGenerator[Kept, None]:
    """
    Yield the records of turns since then, conversation by conversation, the latest
    heard of first. What another version wrote is left out, and said so.
    """
    client: Any = store.connection.commands
    oldest_ms = 1000 * since.timestamp()
    for shard in store.shards.all:
        with store.connection.translated():
            active = await client.zrevrangebyscore(
                shard.named("active"), "+inf", oldest_ms
            )
        for key in active:
            with store.connection.translated():
                turns = shard.of(key.decode(), "turns")
                names = [one.decode() for one in await client.lrange(turns, 0, -1)]
            for first in range(0, len(names), AT_ONCE):
                for one in await _read(store, shard, names[first : first + AT_ONCE]):
                    if one.record.turn.message.time >= since:
                        yield one


async def _read(store: Store, shard: Shard, turns: Sequence[str]) -> list[Kept]:
    client: Any = store.connection.commands
    keys = [key for turn in turns for key in (shard.record(turn), _shadow(shard, turn))]
    with store.connection.translated():
        written = await client.mget(keys)
    found: list[Kept] = []
    for record, shadow in zip(written[::2], written[1::2], strict=True):
        try:
            if record is not None:  # it may have expired before its name
                found.append(
                    Kept(
                        record=RECORDS.read(record),
                        shadow=None if shadow is None else RECORDS.read(shadow),
                    )
                )
        except Unreadable as error:
            logger.warning("a record is left out: %s", error)
    return found


async def before(store: Store, record: Record) -> list[Event] | None:
    """
    Return the log from before the turn's message, the oldest first. None when it does
    not go back so far any more.
    """
    message = record.turn.message
    shard = store.shards.of(message.address.key)
    client: Any = store.connection.commands
    with store.connection.translated():
        log = await client.lrange(shard.of(message.address.key, "log"), 0, -1)
    events: list[Event] = []
    asked: int | None = None
    for written in log:
        try:
            event = EVENTS.read(written)
        except Unreadable as error:
            logger.warning("a part of a conversation is left out: %s", error)
            continue
        came_of_it = event.kind not in FROM_OUTSIDE
        if came_of_it and event.data.get("turn") == record.turn.id:
            break
        # A message that was set aside and tried again stands there twice.
        if event.id == message.id and event.kind == message.kind:
            asked = len(events)
        events.append(event)
    return None if asked is None else events[:asked]


# Shadows


@dataclass(frozen=True, slots=True)
class ShadowKeeper:
    """Keeps what was computed in the shadow of turns, for one experiment."""

    store: Store
    experiment: str

    async def keep(self, record: Record) -> bool:
        """
        Keep what another arm would have said in this turn, for as long as the turn's
        record is kept. False when that is gone: it expired, or was forgotten.
        """
        turn = record.turn
        shard = self.store.shards.of(turn.message.address.key)
        keys = [shard.record(turn.id), _shadow(shard, turn.id)]
        written = RECORDS.write(replace(record, turn=replace(turn, history=())))
        script = self.store.connection.script(scripts.SHADOW)
        with self.store.connection.translated():
            return bool(await script(keys=keys, args=[written]))

    async def count_left_out(self, turns: int) -> None:
        """Count turns that were not answered in the shadow."""
        client: Any = self.store.connection.commands
        with self.store.connection.translated():
            # Sent again after a lost answer it counts twice, which this number may.
            await client.incrby(self._left_out, turns)
            await client.expire(self._left_out, self.store.ttl_s)

    async def left_out(self) -> int:
        """Return how many were, by all processes."""
        client: Any = self.store.connection.commands
        with self.store.connection.translated():
            return int(await client.get(self._left_out) or 0)

    @property
    def _left_out(self) -> str:
        return self.store.shards.all[0].named(f"left_out:{self.experiment}")


def _shadow(shard: Shard, turn: str) -> str:
    """Name it so that `chorus explain TURN:shadow` finds it."""
    return shard.record(f"{turn}:shadow")
