"""
What an operator may look at and mend: conversations, backlogs, dead letters.

Reads what the store keeps, for all shards. Shows keys, counts and why something failed,
which may quote what people wrote. Knows nothing about how it is printed or served.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from bot.conversation import entries, scripts
from bot.conversation.keys import Shard, platform_of
from bot.conversation.state import DeadLetter, LaneState, Overview, retried
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.metrics import Backlog
from bot.model import digest_of

MOST = 10_000  # conversations of a shard that a backlog counts


async def backlogs(store: Store) -> tuple[list[Backlog], int]:
    """Return what waits on each platform, and how many messages were set aside."""
    rows: defaultdict[str, list[tuple[int, float, int, float]]] = defaultdict(list)
    dead = 0
    with store.connection.translated():
        for shard in store.shards.all:
            for row in await _waiting(store, shard):
                rows[platform_of(row[0])].append(row[1:])
            dead += await store.connection.commands.xlen(shard.named("dead"))
    return [_backlog(platform, rows[platform]) for platform in sorted(rows)], dead


def _backlog(platform: str, rows: Sequence[tuple[int, float, int, float]]) -> Backlog:
    waiting, waiting_s, undelivered, undelivered_s = zip(*rows, strict=True)
    return Backlog(
        platform=platform,
        lanes=sum(number > 0 for number in waiting),
        waiting=sum(waiting),
        oldest_waiting_s=max(waiting_s),
        addresses=sum(number > 0 for number in undelivered),
        undelivered=sum(undelivered),
        oldest_undelivered_s=max(undelivered_s),
    )


async def _waiting(
    store: Store, shard: Shard
) -> list[tuple[str, int, float, int, float]]:
    """Return conversation, messages, seconds, replies, seconds; where there are any."""
    script = store.connection.script(scripts.BACKLOG)
    keys = [shard.named("waiting"), shard.named("owed")]
    now, rows = await script(keys=keys, args=[f"{shard.prefix}:c:", MOST])

    def ago(ms: bytes) -> float:
        return max(0, int(now) - int(ms)) / 1000 if int(ms) else 0.0

    return [
        (key.decode(), messages, ago(since), replies, ago(owed_since))
        for key, messages, since, replies, owed_since in rows
    ]


async def conversations(store: Store, limit: int) -> list[Overview]:
    """Return the conversations heard of last, those with work to do first."""
    found: list[Overview] = []
    with store.connection.translated():
        for shard in store.shards.all:
            found += await _overviews(store, shard, limit)
    return heapq.nsmallest(
        limit, found, key=lambda one: (one.state == "idle", one.quiet_s)
    )


async def _overviews(store: Store, shard: Shard, limit: int) -> list[Overview]:
    client: Any = store.connection.commands
    busy = {row[0]: row[1:] for row in await _waiting(store, shard)}
    now = _ms(await client.time())
    active = {
        key.decode(): ms
        for key, ms in await client.zrevrange(
            shard.named("active"), 0, limit - 1, withscores=True
        )
    }
    overviews = []
    for key in dict.fromkeys([*busy, *active]):
        messages, messages_s, replies, replies_s = busy.get(key, (0, 0.0, 0, 0.0))
        meta = shard.of(key, "meta")
        lease, *fields = await client.hmget(meta, "lease", *entries.HANDED)
        handed = entries.handed(fields, round(now))
        if handed is not None and not handed.lasts(store.handoff_hours):
            handed = None
        overviews.append(
            Overview(
                key=key,
                digest=digest_of(key),
                state=_state(messages, replies, begun=lease is not None),
                waiting=messages,
                waiting_s=messages_s,
                undelivered=replies,
                undelivered_s=replies_s,
                events=await client.llen(shard.of(key, "log")),
                quiet_s=max(0.0, now - active.get(key, now)) / 1000,
                handed_s=None if handed is None else handed.since_s,
            )
        )
    return overviews


def _state(messages: int, replies: int, *, begun: bool) -> LaneState:
    if messages:
        return "answering" if begun else "waiting"
    return "delivering" if replies else "idle"


def _ms(time: tuple[int, int]) -> float:
    seconds, microseconds = time
    return 1000 * seconds + microseconds / 1000


async def dead_letters(store: Store) -> list[DeadLetter]:
    """Return the messages that were set aside, the newest first."""
    client: Any = store.connection.commands
    found: list[DeadLetter] = []
    with store.connection.translated():
        for shard in store.shards.all:
            now = _ms(await client.time())
            for id_, fields in await client.xrange(shard.named("dead")):
                turn = fields[b"t"].decode()
                letter = await client.hgetall(shard.letter(turn))
                if letter:
                    age_ms = now - int(id_.partition(b"-")[0])
                    found.append(_dead_letter(turn, letter, age_ms))
    return sorted(found, key=attrgetter("age_s"))


def _dead_letter(turn: str, letter: dict[bytes, bytes], age_ms: float) -> DeadLetter:
    conversation = letter[b"c"].decode()
    return DeadLetter(
        id=turn,
        digest=digest_of(conversation),
        platform=platform_of(conversation),
        attempts=int(letter[b"a"]),
        why=letter[b"w"].decode(errors="replace"),
        age_s=max(0.0, age_ms) / 1000,
    )


async def retry(store: Store, id_: str) -> str:
    """
    Put a message that was set aside at the end of its lane again; return the turn that
    will answer it. Raises StoreError when there is no such message.
    """
    script = store.connection.script(scripts.RETRY)
    client: Any = store.connection.commands
    with store.connection.translated():
        for shard in store.shards.all:
            letter = shard.letter(id_).encode(errors="replace")
            found = await client.hget(letter, "c")
            if found is None:
                continue
            conversation, turn = found.decode(), retried(id_)
            keys = [
                shard.named("dead"),
                letter,
                shard.of(conversation, "letters"),
                shard.of(conversation, "lane"),
                shard.of(conversation, "meta"),
                shard.queue("ready", platform_of(conversation)),
                shard.named("waiting"),
                shard.named("active"),
            ]
            await script(keys=keys, args=[id_, conversation, store.ttl_s, turn])
            return turn
    raise StoreError(
        f"no dead letter {id_!r}; `chorus dead-letters` lists those there are"
    )
