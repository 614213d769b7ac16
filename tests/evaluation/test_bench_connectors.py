from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.store import Store
from bot.evaluation.bench_connectors import Lost, Scale, _check, _Sent, measured
from bot.evaluation.bench_connectors_events import text_of
from bot.testing.makers import an_address, an_event

pytestmark = [pytest.mark.services, pytest.mark.processes]

SMALL = Scale(conversations=4, rate=40.0, seconds=0.5, messages=3, rounds=1)


def ignored(step: str, done: int, total: int | None) -> None:
    """Nobody watches."""


async def test_both_connectors_are_measured_steadily_and_at_full_speed() -> None:
    async with asyncio.timeout(100):
        rows = await measured(SMALL, ignored)

    cases = [row.case.split(",")[0] for row in rows]
    assert cases == ["Slack", "Slack", "Telegram", "Telegram"]
    assert all(row.ours > 0 for row in rows)
    assert [row.theirs is not None for row in rows] == [False, True, False, False]
    assert rows[0].also["p50"] <= rows[0].ours <= rows[0].also["longest"]


@pytest.mark.parametrize(
    ("kept", "right"), [([1, 2], True), ([2, 1], False), ([1], False), ([], False)]
)
async def test_what_is_lost_or_out_of_order_is_no_figure(
    tmp_path: Path, kept: list[int], right: bool
) -> None:
    sent = _Sent()
    sent.next(7)
    sent.next(7)
    with EmbeddedRedis(tmp_path / "redis") as redis:
        async with Store(url=redis.url, settings=ConversationConfig()) as store:
            for number in kept:
                event = an_event(
                    text_of(7, number),
                    id=str(number),
                    address=an_address(platform="slack"),
                )
                await store.accept(event)

        if right:
            await _check("slack", redis.url, sent)
        else:
            with pytest.raises(Lost, match="conversation 7"):
                await _check("slack", redis.url, sent)
