"""
Conversations that people have: what an operator looks at, and may change.

An operator's word counts at once: a turn that is running meanwhile is not committed but
begun again, and finds whose the conversation is. Knows nothing about turns, nor about
how anything is printed.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from operator import attrgetter
from typing import Any, Literal

from bot.conversation import entries, scripts
from bot.conversation.keys import Shard
from bot.conversation.state import REPLIES, HandedOver, Undelivered
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.model import Address, Reply, digest_of


async def handed_over(store: Store) -> list[HandedOver]:
    """Return the conversations that people have, the longest first."""
    found: list[HandedOver] = []
    with store.connection.translated():
        for shard in store.shards.all:
            found += [one async for one in _of_shard(store, shard)]
    return sorted(found, key=attrgetter("since_s"), reverse=True)


async def _of_shard(store: Store, shard: Shard) -> AsyncIterator[HandedOver]:
    client: Any = store.connection.commands
    seconds, microseconds = await client.time()
    now = 1000 * seconds + microseconds // 1000
    for member in await client.zrange(shard.named("handed"), 0, -1):
        key = member.decode()
        handed = entries.handed(
            await client.hmget(shard.of(key, "meta"), entries.HANDED), now
        )
        if handed is None:  # it expired with everything else of its conversation
            await client.zrem(shard.named("handed"), member)
        elif handed.lasts(store.handoff_hours):
            address = Address.from_key(key)
            yield HandedOver(
                key=key,
                digest=address.digest,
                platform=address.platform,
                since_s=handed.since_s,
                quiet_s=handed.quiet_s,
                why=handed.why,
            )


async def find(store: Store, name: str) -> Address:
    """
    Return the conversation with this key or digest. Raises StoreError when there is
    none, which is also said of one that was silent for conversation.ttl_days.
    """
    client: Any = store.connection.commands
    with store.connection.translated():
        for shard in store.shards.all:
            for known in ("handed", "active"):
                for member in await client.zrange(shard.named(known), 0, -1):
                    key = member.decode()
                    if name in (key, digest_of(key)):
                        return Address.from_key(key)
    raise StoreError(
        f"no conversation {name!r}; `chorus conversations` lists those there are, with "
        "digest and key"
    )


async def hand_over(store: Store, address: Address, why: str, told: Reply) -> bool:
    """Give people the conversation and tell the customer; False: they have it."""
    return await _changed(store, address, "people", why, told)


async def give_back(store: Store, address: Address, told: Reply) -> bool:
    """Give it back to the bot and tell the customer; False: the bot has it."""
    return await _changed(store, address, "bot", "", told)


async def _changed(
    store: Store,
    address: Address,
    keeper: Literal["people", "bot"],
    why: str,
    told: Reply,
) -> bool:
    shard, step = store.shards.of(address.key), uuid.uuid4().hex
    # No turn says it, but whoever delivers knows a reply by its turn.
    undelivered = Undelivered(
        turn_id=step[: scripts.TURN_LENGTH],
        address=address,
        reply=told,
        urgency="interactive",
    )
    keys = [
        shard.of(address.key, "meta"),
        shard.named("handed"),
        shard.of(address.key, "outbox"),
        shard.queue("out", address.platform),
        shard.named("owed"),
    ]
    args = [
        step,
        address.key,
        keeper,
        why.encode(errors="replace"),
        store.handoff_ms,
        store.ttl_s,
        undelivered.turn_id,
        REPLIES.write(undelivered),
    ]
    script = store.connection.script(scripts.HAND_OVER)
    with store.connection.translated():
        return bool(await script(keys=keys, args=args) == b"done")
