"""
What must not happen, however much comes at once and whoever else is at work.

A group's budget of calls, the size of what a reply becomes, other people's waiting
time, and replies that stand there already. Each was tried to be broken.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Iterator

import pytest

from bot.model import Reply
from connectors.telegram import Telegram
from connectors.telegram.additions import Additions
from connectors.telegram.rendering import rendered
from tests.connectors.telegram.chats import ANN, BEN, BOT
from tests.connectors.telegram.limits import check_text
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.shelf import DictShelf
from tests.connectors.telegram.talking import (
    OTHER,
    TURN,
    Core,
    a_telegram,
    address,
    listening,
)
from tests.connectors.telegram.whole_bot import a_bot, a_connector
from tests.conversation.redis_processes import RedisServer

pytestmark = pytest.mark.slow  # test-fast does without

FRAME_S = 0.25  # the core's pace


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Passing:
    """Time that passes when it is told to; who sleeps wakes in order."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._number = itertools.count()
        self._asleep: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._now + seconds, next(self._number), woken)
        heapq.heappush(self._asleep, entry)
        await woken

    async def go_on(self, seconds: float) -> None:
        end = self._now + seconds
        while self._asleep and self._asleep[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._asleep)
            if not woken.done():
                woken.set_result(None)
                await asyncio.sleep(0.005)  # for a call to the stand-in
        self._now = end


def a_connector_at(
    service: TelegramService, passing: Passing, shelf: DictShelf
) -> Telegram:
    made = a_connector(service, clock=passing, sleep=passing.sleep, feedback=True)
    made.keep_on(shelf)
    return made


# A group's twenty calls a minute


async def test_no_minute_of_long_streamed_replies_has_more_than_twenty_calls() -> None:
    passing = Passing()
    async with TelegramService(passing) as service:
        group = service.supergroup()
        there = address(group, ANN.id)
        connector = a_connector_at(service, passing, DictShelf())
        for turn in range(4):
            key = f"{turn:016x}"
            await connector.status(there, "Thinking …")
            words = ""
            for number in range(160):  # forty seconds
                words += f"word{number} " * (1 + 4 * (turn % 2))
                await connector.frame(there, words)
                await passing.go_on(FRAME_S)
            reply = Reply(text="\n\n".join([words] * 3), feedback=True)
            sending = asyncio.create_task(connector.send(there, reply, key))
            while not sending.done():
                await passing.go_on(0.5)
                await asyncio.sleep(0.001)
            assert sending.result().status == "ok"
            await connector.status(there, "")
        await connector.bot_stopped()

        assert service.busiest_minute(group) <= 20
        assert len(service.called("editMessageText", chat=group)) > 20
        assert len(service.shown(group)) >= 8


# What a reply becomes


@pytest.mark.parametrize("rows", [20, 50])
def test_a_table_with_one_wide_cell_does_not_become_a_flood(rows: int) -> None:
    wide = "word " * (5 * rows)
    markdown = f"| a | b |\n|---|---|\n{'| 1 | 2 |' + chr(10)}" * rows
    markdown += f"| {wide} | y |\n"

    parts = rendered(Reply(text=markdown), Additions(), TURN, feedback=False)

    assert sum(len(part.text) for part in parts) < 3 * len(markdown)


def test_a_reply_of_much_markdown_is_rendered_in_no_time() -> None:
    for text in (
        "**" * 20_000,
        "[" * 20_000,
        "`" * 20_000,
        "> " * 10_000,
        "- " * 10_000,
        "*a " * 10_000,
        "[a](" * 5_000,
        "<" * 20_000,
        "$" * 20_000,
        "||" * 10_000,
        "|" * 20_000,
        "```\n" * 5_000,
        "\n" * 20_000 + "x",
        "&amp;" * 4_000,
        "🚲" * 20_000,
    ):
        begun = time.perf_counter()
        parts = rendered(Reply(text=text), Additions(), TURN, feedback=False)
        took_s = time.perf_counter() - begun
        assert took_s < 2, f"{took_s:.1f} s for {text[:8]!r}"
        for part in parts:
            check_text({"text": part.text, "entities": [e.wire for e in part.entities]})


# What stands there already


async def test_a_reply_sent_by_another_process_is_not_written_over(
    service: TelegramService,
) -> None:
    group, shelf, passing = service.supergroup(), DictShelf(), Passing()
    there = address(group, ANN.id)
    shows, sends = (a_connector_at(service, passing, shelf) for _ in range(2))

    # Frames are shown by who accepted the message; the reply goes out wherever its
    # conversation is held by then.
    await shows.frame(there, "First, as far as")
    await sends.send(there, Reply(text="First, as far as it goes."), TURN)
    await passing.go_on(60)  # there is room for calls again
    await shows.frame(there, "Second")
    await sends.send(there, Reply(text="Second reply."), OTHER)
    for each in (shows, sends):
        await each.bot_stopped()

    assert service.shown(group) == ["First, as far as it goes.", "Second reply."]


async def test_in_a_group_that_moved_a_reply_quotes_no_other_message(
    service: TelegramService,
) -> None:
    old = service.group()
    connector, core = a_telegram(service), Core()

    async with listening(connector, core):
        service.say("@chorus_bot how long?", chat=old)
        event = await core.next()
        new = service.migrate(old)
        await service.until(lambda: not service.pending)
        # In the supergroup messages are numbered anew, and so meet the old numbers.
        for number in range(10):
            service.say(f"talk {number}", chat=new, user=BEN)
        await connector.send(event.address, Reply(text="Five days."), TURN)

    assert service.shown(new) == ["Five days."]
    assert "reply_to_message" not in service.last(new)


# Whom it keeps waiting


@pytest.mark.services
async def test_busy_groups_keep_nobody_else_waiting(
    service: TelegramService, redis: RedisServer
) -> None:
    groups = [service.supergroup() for _ in range(40)]

    async with a_bot(redis.url, a_connector(service)):
        for number, group in itertools.product(range(7), groups):
            service.say(f"@{BOT.username} {number}", chat=group)
        await service.until(
            lambda: all(len(service.shown(group)) >= 5 for group in groups), 30
        )
        begun = time.monotonic()
        service.say("hello")
        service.private(BEN)
        await service.until(service.shown, 30)
        waited_s = time.monotonic() - begun

    assert waited_s < 1.5


async def test_who_presses_feedback_again_and_again_still_gets_replies(
    service: TelegramService,
) -> None:
    service.private()
    connector, core = a_telegram(service), Core()
    here = address(ANN.id, ANN.id)

    async with listening(connector, core):
        await connector.send(here, Reply(text="One.", feedback=True), TURN)
        for number in range(40):
            await service.until(lambda: not service.pending)
            service.press(service.last(), number % 2)
        await service.until(lambda: len(core.events) == 40)
        begun = time.monotonic()
        await connector.send(here, Reply(text="Two."), OTHER)
        waited_s = time.monotonic() - begun

    assert service.shown() == ["One.", "Two."]
    assert waited_s < 3


async def test_a_store_that_comes_back_is_noticed_within_five_seconds(
    service: TelegramService,
) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        await asyncio.sleep(0)

    connector, core = a_connector(service, sleep=sleep), Core()
    connector.keep_on(DictShelf())
    core.away = True

    async with listening(connector, core):
        service.say("hello")
        await service.until(lambda: len(paused) > 10)
        core.away = False
        await service.until(lambda: core.events)

    assert max(paused[:10]) <= 5
