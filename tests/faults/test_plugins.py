"""
Plugins that misbehave, in whole bots: the customer is answered, or told that something
went wrong, and so is the next one.

What a plugin can do to a turn is tried in the test's process, what it can do to the
process in others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot import plugin_manager
from bot.conversation import overview
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.model import Event, EventKind
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer
from tests.faults.bot_process import (
    EXIT_CODE,
    Bots,
    BotSettings,
    Fault,
    Finds,
    Keeps,
    Misbehaves,
    a_bot_here,
    a_config,
    connectors_only,
)
from tests.faults.figures import tell
from tests.faults.worker_process import Child

pytestmark = pytest.mark.services

TIMEOUT_S = 0.2
BAD = "bad"
CONFIG = a_config(
    ranking={"plugin_timeout_s": TIMEOUT_S}, workers={"attempts": 2, "lease_s": 1}
)
ANSWER = "answer to QUESTION"
APOLOGY, FALLBACK = CONFIG.replies.apology, CONFIG.replies.fallback
HANGS, LEAKS = 5, 12
LOOK_S = 0.02


def by(chat: str, text: str, **more: Any) -> Event:
    return an_event(text, address=an_address(chat, platform="fake"), **more)


# What it does to a turn


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_manager, "OBSERVER_TIMEOUT_S", TIMEOUT_S)


@pytest.mark.parametrize(
    ("fault", "place", "expected"),
    [
        ("raises", "plugin", ANSWER),
        ("raises", "retrievers", ANSWER),
        ("raises", "filters", FALLBACK),
        ("raises", "scorers", ANSWER),
        ("raises", "sinks", ANSWER),
        ("raises", "actions", APOLOGY),
        ("hangs, waiting", "plugin", ANSWER),
        ("hangs, waiting", "retrievers", ANSWER),
        ("hangs, waiting", "actions", APOLOGY),
        ("hangs, computing", "filters", FALLBACK),
        ("hangs, computing", "scorers", ANSWER),
        ("hangs, computing", "sinks", ANSWER),
        ("says NaN", "scorers", ANSWER),
    ],
)
async def test_a_plugin_that_misbehaves_costs_no_customer_his_answer(
    redis_server: RedisServer, fault: Fault, place: str, expected: str
) -> None:
    plugin, connector = Misbehaves(fault=fault, when=BAD), Keeps()
    special: Mapping[str, Mapping[str, Any]] = {
        "plugin": {"plugin": plugin},
        "retrievers": {"retrievers": [plugin, Finds()]},
        "actions": {"actions": [plugin], "action_timeout_s": TIMEOUT_S},
    }
    parts = special.get(place, {place: [plugin]})
    kind: EventKind = "command" if place == "actions" else "message"
    bad = by("c", f"misbehaves {BAD}", kind=kind)
    async with a_bot_here(redis_server.url, CONFIG, connector, **parts) as bot:
        began = time.monotonic()
        for event in (bad, by("c", "next"), by("other", "else")):
            assert await bot.accept(event) == "accepted"

        await bot.idle()
        took_s = time.monotonic() - began
        plugin.released.set()

    tell(f"a plugin in {place} that {fault}: all answered in {took_s:.2f} s")
    first, second = connector.replies("fake:a1:c")
    assert first == expected.replace("QUESTION", bad.text)
    assert second == "answer to next"
    assert connector.replies("fake:a1:other") == ["answer to else"]


async def test_a_computation_that_hangs_is_left_out_before_it_takes_many_threads(
    redis_server: RedisServer,
) -> None:
    plugin, connector = Misbehaves(fault="hangs, computing", when=BAD), Keeps()
    parts: Mapping[str, Any] = {"scorers": [plugin]}
    async with a_bot_here(redis_server.url, CONFIG, connector, **parts) as bot:
        await bot.accept(by("c", "first"))
        await bot.idle()
        before = threading.active_count()
        for number in range(HANGS):
            await bot.accept(by(f"c{number}", f"{BAD} {number}"))
            await bot.idle()

        left = threading.active_count() - before
        plugin.released.set()

    tell(f"{HANGS} computations that hang leave {left} threads behind")
    assert left == 3  # then the plugin is left out
    assert sum(one.text.startswith(f"answer to {BAD}") for one in connector.sent) == 5


# What it does to its process


@pytest.fixture
async def bots(tmp_path: Path) -> AsyncIterator[Bots]:
    async with Bots(tmp_path / "bots") as bots:
        yield bots


@asynccontextmanager
async def workers_kept(
    bots: Bots, number: int, settings: BotSettings
) -> AsyncIterator[None]:
    """Start another worker whenever one ends, as systemd does."""
    keeping = asyncio.create_task(bots.keep(number, lambda: settings))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def ended(bots: Bots) -> list[Child]:
    return [child for child in bots.children if child.pid and not child.is_alive]


@pytest.fixture
async def connector() -> Keeps:
    return Keeps()


@pytest.fixture
async def bot(
    redis_server: RedisServer, connector: Keeps
) -> AsyncIterator[ConversationManager]:
    """The connectors, in the test's process."""
    async with (
        Store(url=redis_server.url, settings=CONFIG.conversation) as store,
        connectors_only(store, CONFIG, connector) as manager,
    ):
        yield manager


async def test_a_leak_ends_the_process_and_loses_no_message(
    bots: Bots, bot: ConversationManager, connector: Keeps, redis_server: RedisServer
) -> None:
    settings = BotSettings(url=redis_server.url, platform="", roles=["workers"])
    first = await bots.start(settings)
    limit = round(first.rss_mib()) + 120
    first.terminate()
    await first.ended()
    workers = {"max_memory_mb": limit, "concurrency": 2}
    leaking = replace(settings, fault="leaks", workers=workers)
    async with workers_kept(bots, 1, leaking):
        for number in range(LEAKS):
            await bot.accept(by(f"c{number}", f"question {number}"))

        await connector.until(lambda: len(connector.sent) >= LEAKS, "messages are lost")
        await bot.idle()

    recycled = [child for child in ended(bots) if child is not first]
    tell(
        f"{LEAKS} turns that leak 50 MB each, at a limit of {limit} MB: "
        f"{len(recycled)} processes ended, none lost"
    )
    assert Counter(one.text for one in connector.sent) == Counter(
        f"answer to question {number}" for number in range(LEAKS)
    )
    assert len(recycled) >= 2
    for child in recycled:
        assert await child.ended() == 1
        assert "workers.max_memory_mb: the process grew to" in child.log


async def test_what_a_full_process_has_not_begun_is_taken_up_at_once(
    bots: Bots, bot: ConversationManager, connector: Keeps, redis_server: RedisServer
) -> None:
    lease_s = 4.0
    settings = BotSettings(
        url=redis_server.url,
        platform="",
        roles=["workers"],
        fault="leaks",
        workers={"max_memory_mb": 100, "lease_s": lease_s},
    )
    for number in range(LEAKS):
        await bot.accept(by(f"c{number}", f"question {number}"))
    async with workers_kept(bots, 1, settings):
        await connector.until(lambda: len(connector.sent) >= LEAKS, "messages are lost")

    waited_s = connector.sent[-1].at - connector.sent[0].at
    tell(
        f"handed over by a process that stops in {waited_s:.2f} s, at a lease of "
        f"{lease_s:g} s"
    )
    assert waited_s < lease_s / 2


async def test_what_ends_every_process_is_set_aside_and_the_lane_goes_on(
    bots: Bots, bot: ConversationManager, connector: Keeps, redis_server: RedisServer
) -> None:
    settings = BotSettings(
        url=redis_server.url,
        platform="",
        roles=["workers"],
        fault="exits",
        when=BAD,
        workers={"lease_s": 0.5, "attempts": 3},
    )
    async with workers_kept(bots, 2, settings):
        await bot.accept(by("c", BAD))
        await bot.accept(by("c", "next"))

        await connector.until(lambda: len(connector.sent) == 2, "the lane stopped")
        await bot.idle()

    assert connector.replies("fake:a1:c") == [APOLOGY, "answer to next"]
    assert [await child.ended() for child in ended(bots)] == [EXIT_CODE] * 3
    async with Store(url=redis_server.url, settings=CONFIG.conversation) as store:
        (letter,) = await overview.dead_letters(store)
    assert letter.why == "it was tried 3 times, and no worker came to its end"


async def test_who_is_answered_beside_what_ends_every_process_is_answered(
    bots: Bots, bot: ConversationManager, connector: Keeps, redis_server: RedisServer
) -> None:
    settings = BotSettings(
        url=redis_server.url,
        platform="",
        roles=["workers"],
        fault="exits",
        when=BAD,
        answer_s=0.02,
        workers={"lease_s": 0.5, "attempts": 3},
    )
    innocent = [f"innocent {number}" for number in range(7)]
    for text in (BAD, *innocent):
        await bot.accept(by(text, text))
    async with workers_kept(bots, 1, settings):
        await connector.until(lambda: len(connector.sent) == 8, "the lanes stopped")
        await bot.idle()

    answers = {one.address.chat: one.text for one in connector.sent}
    apologies = sum(answers[text] == APOLOGY for text in innocent)
    tell(
        f"beside a message that ends each process: {apologies} of {len(innocent)} "
        f"others were set aside too"
    )
    assert answers == {BAD: APOLOGY, **{text: f"answer to {text}" for text in innocent}}


async def test_a_process_whose_loop_hangs_loses_its_turns_to_another(
    bots: Bots, bot: ConversationManager, connector: Keeps, redis_server: RedisServer
) -> None:
    settings = BotSettings(
        url=redis_server.url,
        platform="",
        roles=["workers"],
        workers={"lease_s": 0.5},
    )
    hung = await bots.start(replace(settings, fault="blocks the loop", when=BAD))
    began = time.monotonic()
    await bot.accept(by("c", BAD))
    await bot.accept(by("c", "next"))
    async with Store(url=redis_server.url, settings=CONFIG.conversation) as store:
        while not await is_answering(store):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(LOOK_S)

    await bots.start(settings)
    await connector.until(lambda: len(connector.sent) == 2, "nobody took it over")

    tell(
        f"a plugin that blocks the event loop: another process answered "
        f"{time.monotonic() - began:.2f} s after the message came, at a lease of 0.5 s"
    )
    assert connector.replies("fake:a1:c") == [f"answer to {BAD}", "answer to next"]
    assert hung.is_alive


async def is_answering(store: Store) -> bool:
    found = await overview.conversations(store, 1)
    return bool(found) and found[0].state == "answering"
