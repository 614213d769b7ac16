"""
More messages than can be answered at once, and one whose answer takes very long.

What was accepted is answered, once and in order; the process that accepts does not grow
with what waits; /metrics says what happened; and nobody waits for a conversation that
is not his own.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bot.conversation import overview
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.model import Event
from bot.operations import Operations
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer, free_port
from tests.faults.bot_process import (
    Bots,
    BotSettings,
    Keeps,
    Samples,
    connectors_only,
    percentile,
    rss_mib,
    scraped,
    summed,
)
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Fleet, Settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CONVERSATIONS = 500
BURST, FULL_BURST = 3_000, 10_000
AT_ONCE = 64  # requests of the platform that wait for their answer
GENERATION_S = 0.005
MOST_GROWTH_MIB = 100  # for the full burst

OTHERS = 200
EVERY_S = 0.01
SLOW_S, FULL_SLOW_S = 5.0, 30.0
BUSY_S = 4.0
NOISE_S = 0.1  # of a machine that others use too

BACKLOGS = (
    "chorus_lanes",
    "chorus_waiting_messages",
    "chorus_oldest_waiting_seconds",
    "chorus_outbox_addresses",
    "chorus_outbox_replies",
    "chorus_outbox_oldest_seconds",
    "chorus_dead_letters",
)


# A burst


def messages(number: int) -> list[list[Event]]:
    """Return so many messages, by conversation, in the order they are written in."""
    return [
        [
            an_event(f"{chat}-{place}", address=an_address(f"c{chat}", platform="fake"))
            for place in range(number // CONVERSATIONS)
        ]
        for chat in range(CONVERSATIONS)
    ]


async def accepted(
    manager: ConversationManager, conversations: Sequence[Sequence[Event]]
) -> list[float]:
    """
    Hand in everything at once, as a platform does: a conversation's next message when
    the one before was acknowledged. Return how long each took.
    """
    each_s: list[float] = []
    requests = asyncio.Semaphore(AT_ONCE)

    async def hand_in(events: Sequence[Event]) -> None:
        for event in events:
            async with requests:
                began = time.perf_counter()
                assert await manager.accept(event) == "accepted"
                each_s.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as tasks:
        for events in conversations:
            tasks.create_task(hand_in(events))
    return each_s


@pytest.fixture
async def bots(tmp_path: Path) -> AsyncIterator[Bots]:
    async with Bots(tmp_path / "bots") as bots:
        yield bots


async def test_a_burst_is_answered_once_and_in_order_and_counted(
    bots: Bots, redis_server: RedisServer, full: bool
) -> None:
    number = FULL_BURST if full else BURST
    ports = [free_port(), free_port()]
    settings = BotSettings(
        url=redis_server.url, platform="", roles=["workers"], answer_s=GENERATION_S
    )
    for port in ports:
        await bots.start(replace(settings, port=port))
    connector = Keeps()
    conversations = messages(number)
    async with (
        Store(url=settings.url, settings=settings.config.conversation) as store,
        connectors_only(store, settings.config, connector) as manager,
        Operations(
            host="127.0.0.1",
            port=0,
            checks={},
            backlogs=partial(overview.backlogs, store),
        ) as operations,
    ):
        before = await scraped(operations.url)
        rss_before, began = rss_mib(), time.perf_counter()

        each_s = await accepted(manager, conversations)
        accepted_s = time.perf_counter() - began
        await connector.until(
            lambda: len(connector.sent) >= number, "not all was answered", 200
        )
        answered_s = time.perf_counter() - began
        await manager.idle()
        grown = rss_mib() - rss_before
        after = await scraped(operations.url)

    workers = [await scraped(f"http://127.0.0.1:{port}") for port in ports]
    tell(
        f"burst of {number} messages in {CONVERSATIONS} conversations: all accepted in "
        f"{accepted_s:.1f} s, p99 {1000 * percentile(each_s, 99):.0f} ms; "
        f"{number / answered_s:.0f} turns/s; the accepting process grew {grown:.0f} MiB"
    )
    assert by_conversation(connector) == {
        events[0].address.key: [f"answer to {event.text}" for event in events]
        for events in conversations
    }
    assert grown < MOST_GROWTH_MIB * number / FULL_BURST
    check_counts(before, after, workers, number)


def by_conversation(connector: Keeps) -> dict[str, list[str]]:
    replies: defaultdict[str, list[str]] = defaultdict(list)
    for one in connector.sent:
        replies[one.address.key].append(one.text)
    return replies


def check_counts(
    before: Samples, after: Samples, workers: Sequence[Samples], number: int
) -> None:
    """Compare what /metrics of the three processes say with what happened."""

    def counted(name: str, **labels: str) -> float:
        return summed([after], name, **labels) - summed([before], name, **labels)

    assert counted("chorus_events_total", platform="fake", answer="accepted") == number
    assert counted("chorus_events_total", platform="fake") == number
    assert counted("chorus_deliveries_total", platform="fake", outcome="ok") == number
    assert counted("chorus_deliveries_total", platform="fake") == number
    assert summed(workers, "chorus_turns_total", outcome="answered") == number
    assert summed(workers, "chorus_turns_total") == number
    assert summed(workers, "chorus_wait_seconds_count") == number
    assert summed(workers, "chorus_turn_seconds_count", stage="generate") == number
    for name in ("chorus_lease_losses_total", "chorus_store_failures_total"):
        assert counted(name) + summed(workers, name) == 0
    for process in (after, *workers):
        assert summed([process], "chorus_redis_up") == 1
        for gauge in BACKLOGS:
            assert summed([process], gauge) == 0


# A slow one


async def others_wait_s(platform: Platform, chats: Sequence[str]) -> list[float]:
    """Let others ask, one after the other, and return how long each waited."""
    asked: dict[str, float] = {}

    async def ask(chat: str) -> None:
        address = an_address(chat, platform="fake")
        asked[address.key] = time.monotonic()
        await platform.deliver(an_event(f"of {chat}", address=address))

    async with asyncio.TaskGroup() as tasks:
        for chat in chats:
            tasks.create_task(ask(chat))
            await asyncio.sleep(EVERY_S)
    await platform.until(
        lambda: all(platform.replies(key) for key in asked), "others had to wait"
    )
    return [
        arrived.at - asked[arrived.conversation]
        for arrived in platform.arrived
        if arrived.conversation in asked
    ]


async def test_nobody_else_waits_for_a_slow_answer(
    fleet: Fleet, platform: Platform, settings: Settings, full: bool
) -> None:
    slow_s = FULL_SLOW_S if full else SLOW_S
    worker = await fleet.start(replace(settings, roles=["workers"]))
    await fleet.start(replace(settings, roles=["connectors"]))
    slow = an_event("slow", address=an_address("slow", platform="fake"))
    slow = replace(slow, data={"answer_s": slow_s})
    without = await others_wait_s(platform, [f"a{chat}" for chat in range(OTHERS)])

    began = time.monotonic()
    await platform.deliver(slow)
    beside = await others_wait_s(platform, [f"b{chat}" for chat in range(OTHERS)])
    others_s = time.monotonic() - began
    slow_was_running = not platform.replies(slow.address.key)
    await platform.until(
        lambda: bool(platform.replies(slow.address.key)), "no slow answer", slow_s + 20
    )

    tell(
        f"an answer of {slow_s:g} s beside {OTHERS} other conversations: p95 of the "
        f"others {1000 * percentile(without, 95):.0f} ms without it, "
        f"{1000 * percentile(beside, 95):.0f} ms beside it, longest "
        f"{1000 * max(beside):.0f} ms"
    )
    assert slow_was_running, f"the others took {others_s:.1f} s"
    assert max(beside) < slow_s / 2
    assert percentile(beside, 95) < 1.2 * percentile(without, 95) + NOISE_S
    assert await worker.reading("chorus_lease_losses_total", of="lane") == 0
    assert len(platform.replies(slow.address.key)) == 1


async def test_a_generator_that_is_busy_holds_up_no_more_than_its_process_has_begun(
    bots: Bots, platform: Platform, redis_server: RedisServer
) -> None:
    """
    A model answers one after the other, so what a process has taken waits for a slow
    answer there; the rest goes to the other processes.
    """
    settings = BotSettings(url=redis_server.url, platform=str(platform.path))
    for _ in range(2):
        await bots.start(replace(settings, roles=["workers"]))
    await bots.start(replace(settings, roles=["connectors"]))
    slow = an_event("slow", address=an_address("slow", platform="fake"))

    await platform.deliver(replace(slow, data={"slowly": BUSY_S}))
    waited_s = await others_wait_s(platform, [f"c{chat}" for chat in range(OTHERS)])

    held_up = sum(waited > BUSY_S / 2 for waited in waited_s)
    tell(
        f"one of two models busy for {BUSY_S:g} s: {held_up} of {OTHERS} others waited "
        f"for it; p95 of all {1000 * percentile(waited_s, 95):.0f} ms"
    )
    assert held_up < settings.config.workers.concurrency
    await platform.until(
        lambda: platform.replies(slow.address.key) == ["answer to slow"],
        "the slow one was not answered",
    )
