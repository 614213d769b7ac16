"""
What people thought of replies, as an operator reads it.

The last word of each person on a turn is kept as long as a record, and longer than the
turn's own record where it was judged late. Knows who judged by a digest only, and no
word of what was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from bot.conversation import entries, scripts
from bot.conversation.keys import platform_of
from bot.conversation.state import Judged
from bot.conversation.store import Store
from bot.model import digest_of


async def judged(store: Store, since: datetime | None = None) -> list[Judged]:
    """Return the turns that somebody judged since then, the latest first."""
    script = store.connection.script(scripts.JUDGED)
    oldest_ms = 0 if since is None else round(1000 * since.timestamp())
    found: list[Judged] = []
    with store.connection.translated():
        for shard in store.shards.all:
            rows = await script(
                keys=[shard.named("judgements")], args=[oldest_ms, shard.record("")]
            )
            found += [_judged(row) for row in rows if row[3]]
    return sorted(found, key=attrgetter("time"), reverse=True)


def _judged(row: Sequence[Any]) -> Judged:
    turn, ms, recorded, flat = row
    kept = dict(zip(flat[::2], flat[1::2], strict=True))
    conversation, words = kept[b"c"].decode(), entries.ratings(kept)
    return Judged(
        turn=turn.decode(),
        digest=digest_of(conversation),
        platform=platform_of(conversation),
        time=datetime.fromtimestamp(int(ms) / 1000, UTC),
        good=words.count(1),
        bad=words.count(-1),
        candidate=int(kept[b"n"]) if kept[b"n"] else None,
        origin=kept[b"o"].decode(),
        recorded=bool(recorded),
        arm=kept.get(b"a", b"").decode(),  # older ones have none
    )
