"""
What is too much, too long, or not what it seems to be.

Full lanes, huge messages, text that is no text, ids that are made to be taken for other
ids, one person who floods, and events that come again. Each is refused, or kept exactly
as it came, and never costs another conversation anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.model import Address, Event, Record, Reply, Turn
from bot.testing.fakes import FixedClock
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer
from tests.faults.bot_process import Keeps, Nobody, a_config, percentile
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Fleet, Settings

pytestmark = pytest.mark.services


class Echoes:
    """
    Answers with the question, `answer_s` later and not before `free`. `strangers` are
    the turns whose history holds something of another conversation.
    """

    def __init__(self, answer_s: float = 0.0) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.strangers: list[Turn] = []
        self._answer_s = answer_s

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        await self.free.wait()
        await asyncio.sleep(self._answer_s)
        own = turn.message.address.key
        if any(event.address.key != own for event in turn.history):
            self.strangers.append(turn)
        reply = Reply(text=turn.question)
        return Record(turn=turn, outcome="answered", reply=reply, why="", config="")


@asynccontextmanager
async def a_bot(
    url: str,
    config: Config,
    answerer: Echoes,
    connectors: Sequence[Keeps],
    shards: int = 1,
) -> AsyncIterator[tuple[ConversationManager, Store]]:
    async with (
        Store(url=url, settings=config.conversation, shards=shards) as store,
        ConversationManager(
            store=store,
            answerer=answerer,
            connectors={connector.name: connector for connector in connectors},
            observers=Nobody(),
            config=config,
            explain=str,
            clock=FixedClock(),
            seeds=lambda: 1,
        ) as manager,
    ):
        yield manager, store


@pytest.fixture
def connector() -> Keeps:
    return Keeps()


def by(chat: str, text: str, **more: Any) -> Event:
    return an_event(text, address=an_address(chat, platform="fake"), **more)


PLATFORMS = ["fake", "fa:ke", "fa%3Ake", "{s0}", "fa\nke", "fa ke", "%", "FAKE"]


class Running:
    """A bot of many platforms that goes on from one example to the next."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.connectors = {name: Keeps(name) for name in PLATFORMS}
        self.numbers = count()
        self.answerer = Echoes()
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        config = a_config(
            conversation={"window_events": 50, "messages_per_minute": 100_000}
        )
        connectors = list(self.connectors.values())
        self.bot, self.store = await self._stack.enter_async_context(
            a_bot(self.server.url, config, self.answerer, connectors)
        )
        # Whatever is made with the first message of a platform is there from now on.
        await self.said(
            [an_event(address=an_address(platform=name)) for name in PLATFORMS]
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def said(self, events: Sequence[Event]) -> list[tuple[Address, str]]:
        """Say these, and return what was sent for them and where to."""
        for connector in self.connectors.values():
            connector.sent.clear()
        for event in events:
            assert await self.bot.accept(event) == "accepted"
        await self.bot.idle()
        return [
            (one.address, one.text)
            for name, connector in self.connectors.items()
            for one in connector.sent
            if one.address.platform == name
        ]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[asyncio.Runner, Running]]:
    folder = tmp_path_factory.mktemp("redis")
    with RedisServer(folder) as server, asyncio.Runner() as runner:
        running = Running(server)
        runner.run(running.start())
        yield runner, running
        runner.run(running.stop())


# Too much, too long


async def test_a_full_lane_takes_no_more_says_so_once_and_goes_on(
    redis_server: RedisServer, connector: Keeps
) -> None:
    config, answerer = a_config(conversation={"lane_limit": 5}), Echoes()
    async with a_bot(redis_server.url, config, answerer, [connector]) as (bot, _):
        answerer.free.clear()

        answers = [await bot.accept(by("c", f"{n}")) for n in range(10)]
        elsewhere = await bot.accept(by("other", "hello"))
        answerer.free.set()
        await bot.idle()
        again = await bot.accept(by("c", "again"))
        await bot.idle()

    assert answers == ["accepted"] * 5 + ["refused"] * 5
    assert (elsewhere, again) == ("accepted", "accepted")
    assert Counter(connector.replies("fake:a1:c")) == Counter(
        [*map(str, range(5)), config.replies.busy, "again"]
    )
    assert connector.replies("fake:a1:other") == ["hello"]


async def test_a_message_of_a_megabyte_is_refused_and_not_kept(
    redis_server: RedisServer, connector: Keeps
) -> None:
    config = a_config()
    async with a_bot(redis_server.url, config, Echoes(), [connector]) as (bot, _):
        refused = await bot.accept(by("c", "long " * 200_000))
        accepted = await bot.accept(by("c", "short"))
        await bot.idle()

    assert (refused, accepted) == ("refused", "accepted")
    notice, answer = connector.replies("fake:a1:c")
    assert "1000000 characters" in notice
    assert answer == "short"
    assert sum(map(len, everything(redis_server).values())) < 20_000


async def test_a_message_of_a_megabyte_that_may_come_comes_back_whole(
    redis_server: RedisServer, connector: Keeps
) -> None:
    text = "Ünïcödé 🦜 " * 100_000
    config = a_config(conversation={"max_message_characters": 2_000_000})
    async with a_bot(redis_server.url, config, Echoes(), [connector]) as (bot, _):
        began = time.perf_counter()
        assert await bot.accept(by("c", text)) == "accepted"
        await bot.idle()
        tell(f"a message of 1.5 MB and its answer: {time.perf_counter() - began:.2f} s")

    assert connector.replies("fake:a1:c") == [text]


def everything(server: RedisServer) -> dict[bytes, bytes]:
    """
    Return all keys and values, in Redis's own form; of streams their lengths, because
    the rest of them says who has asked for more, and when.
    """
    return {
        key: b"%d" % server.ask("XLEN", key)
        if server.ask("TYPE", key) == b"stream"
        else server.ask("DUMP", key)
        for key in sorted(server.ask("KEYS", "*"))
    }


# No text


async def test_text_that_is_no_unicode_loses_only_what_is_none(
    redis_server: RedisServer, connector: Keeps
) -> None:
    invalid = b"caf\xe9 \xff\xfe".decode(errors="surrogateescape")
    config = a_config()
    async with a_bot(redis_server.url, config, Echoes(), [connector]) as (bot, _):
        answers = [
            await bot.accept(by("c", invalid, id="1")),
            await bot.accept(by("c", "a\ud800b\x00c\x1b[31m", id="2")),
            await bot.accept(by("c", "\udfff\ud800", id="3")),
        ]
        await bot.idle()

    assert answers == ["accepted", "accepted", "refused"]
    assert Counter(connector.replies("fake:a1:c")) == Counter(
        ["caf ", "abc[31m", config.replies.empty]
    )


LONE = "id\ud800"


@pytest.mark.parametrize("kind", ["message", "command", "cancel", "feedback"])
@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param({"account": LONE}, id="account"),
        pytest.param({"chat": LONE}, id="chat"),
        pytest.param({"thread": LONE}, id="thread"),
        pytest.param({"user": LONE}, id="user"),
        pytest.param({"platform": LONE}, id="platform"),
        pytest.param({"id": LONE}, id="event"),
        pytest.param({"data": {"a": [LONE]}}, id="value in data"),
        pytest.param(
            {"data": {LONE: 1}},
            id="name in data",
        ),
        pytest.param({"data": {"a": b"\xff"}}, id="bytes in data"),
        pytest.param({"data": {"a": object()}}, id="object in data"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    running: tuple[asyncio.Runner, Running], kind: Any, hostile: Mapping[str, Any]
) -> None:
    runner, bot = running
    address = an_address("c", platform="fake")
    parts = {name: value for name, value in hostile.items() if hasattr(address, name)}
    whole = {name: value for name, value in hostile.items() if name not in parts}
    event = an_event("hello", kind, address=replace(address, **parts))
    event = replace(event, **whole)
    before = everything(bot.server)

    answer = runner.run(bot.bot.accept(event))
    runner.run(bot.bot.idle())

    assert answer == "refused"
    assert everything(bot.server) == before


# Ids that are made to be taken for others

ODD = [
    "",
    " ",
    ":",
    "%",
    "%3A",
    "%25",
    "{",
    "}",
    "{s1}",
    "\n",
    "\r\n",
    "\x00",
    "\\",
    "*",
]
ids = st.one_of(
    st.sampled_from([*ODD, "a", "é", "e\u0301", "?", "\ufffd", "x" * 10_000]),
    st.lists(st.sampled_from([*ODD, "a", "b"]), max_size=4).map("".join),
    st.text(max_size=8),
)
addresses = st.builds(
    Address,
    platform=st.sampled_from(PLATFORMS),
    account=ids,
    chat=ids,
    thread=st.none() | ids,
    user=st.none() | ids,
)


@st.composite
def like(draw: st.DrawFn, first: Address) -> Address:
    """Draw an address that looks like the first, or simply another one."""
    parts = [first.platform, first.account, first.chat, first.thread or ""]
    joined = ":".join(parts[1:])
    cut = draw(st.integers(0, len(joined)))
    looks = st.sampled_from(
        [
            replace(first, account=joined[:cut], chat=joined[cut:], thread=None),
            replace(first, account=joined[:cut], chat=joined[cut + 1 :], thread=None),
            replace(first, chat=f"{first.chat}:{first.thread}", thread=None),
            replace(first, account=first.chat, chat=first.account),
            replace(first, thread="" if first.thread is None else None),
            replace(first, chat=first.key),
            replace(first, chat=f"{first.chat}:lane"),
            replace(first, chat=first.chat.upper()),
            replace(first, chat=first.chat.replace("%", "%25")),
        ]
    )
    return draw(looks | addresses)


pairs = addresses.flatmap(lambda first: st.tuples(st.just(first), like(first)))


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@example(
    pair=(
        Address(platform="fake", account="a", chat="b:c", thread=None),
        Address(platform="fake", account="a", chat="b", thread="c"),
    ),
    event_id="1",
)
@given(pair=pairs, event_id=ids)
def test_different_addresses_never_share_anything(
    running: tuple[asyncio.Runner, Running],
    pair: tuple[Address, Address],
    event_id: str,
) -> None:
    runner, bot = running
    first, second = pair
    assume(replace(first, user=None) != replace(second, user=None))

    async def check() -> None:
        number = next(bot.numbers)
        said = {
            address: f"{number}{name}"
            for address, name in ((first, "first"), (second, "second"))
        }
        # Each platform numbers its events for itself.
        events = [
            an_event(text, id=f"{number}{event_id}", address=address)
            for address, text in said.items()
        ]

        sent = await bot.said(events)

        assert Counter(sent) == Counter(said.items())
        for address, text in said.items():
            kept = (await bot.store.load(address)).history
            others = [other for other in said.values() if other != text]
            assert [event.address for event in kept if event.text == text] == [
                address,  # the message
                replace(address, user=None),  # the reply
            ]
            assert not any(event.text in others for event in kept)
        assert not bot.answerer.strangers

    runner.run(check())


async def test_event_ids_are_told_apart_however_they_are_written(
    redis_server: RedisServer, connector: Keeps
) -> None:
    names = [*ODD, "a", "a ", "é", "e\u0301", "x" * 10_000, "x" * 10_001, "fake:a1:c 1"]
    config = a_config()
    async with a_bot(redis_server.url, config, Echoes(), [connector]) as (bot, _):
        first = [await bot.accept(by("c", "hello", id=name)) for name in names]
        second = [await bot.accept(by("c", "hello", id=name)) for name in names]
        await bot.idle()

    assert first == ["accepted"] * len(names)
    assert second == ["duplicate"] * len(names)
    assert len(connector.replies("fake:a1:c")) == len(names)


# One who floods

FLOOD, CHATS, A_MINUTE = 1000, 50, 60
GUESTS = 200
EVERY_S = 0.01
NOISE_S = 0.1  # of a machine that others use too


def flood() -> list[Event]:
    """Return a person's messages, over many conversations."""
    addresses = [
        an_address(f"flood{number}", platform="fake", user="flooder")
        for number in range(CHATS)
    ]
    return [
        an_event(f"flood {number}", address=addresses[number % CHATS])
        for number in range(FLOOD)
    ]


async def guests_wait_s(
    bot: ConversationManager, connector: Keeps, name: str
) -> list[float]:
    """Let others ask, one after the other, and return how long each waited."""
    asked: dict[str, float] = {}
    async with asyncio.TaskGroup() as tasks:
        for guest in range(GUESTS):
            text = f"{name} {guest}"
            address = an_address(text, platform="fake", user=text)
            asked[text] = time.monotonic()
            tasks.create_task(bot.accept(an_event(text, address=address)))
            await asyncio.sleep(EVERY_S)

    def answers() -> list[float]:
        return [one.at - asked[one.text] for one in connector.sent if one.text in asked]

    await connector.until(lambda: len(answers()) == GUESTS, "guests had to wait")
    return answers()


async def test_who_floods_is_refused_and_costs_the_others_nothing(
    redis_server: RedisServer, connector: Keeps
) -> None:
    config = a_config(conversation={"messages_per_minute": A_MINUTE})
    answers: Counter[str] = Counter()

    async def pour(bot: ConversationManager) -> None:
        for event in flood():
            answers[await bot.accept(event)] += 1
            await asyncio.sleep(GUESTS * EVERY_S / FLOOD)

    async with a_bot(redis_server.url, config, Echoes(0.005), [connector]) as (bot, _):
        alone = await guests_wait_s(bot, connector, "alone")
        pouring = asyncio.create_task(pour(bot))
        beside = await guests_wait_s(bot, connector, "beside")
        await pouring
        await bot.idle()

    notices = Counter(
        one.address.chat for one in connector.sent if one.text == config.replies.busy
    )
    answered = sum(one.text.startswith("flood ") for one in connector.sent)
    tell(
        f"{FLOOD} messages of one person in {CHATS} conversations: {answered} "
        f"answered, {answers['refused']} refused with {notices.total()} notices, at "
        f"most {max(notices.values())} in one conversation; p95 of the others "
        f"{1000 * percentile(alone, 95):.0f} ms before, "
        f"{1000 * percentile(beside, 95):.0f} ms meanwhile"
    )
    assert answers == {"accepted": A_MINUTE, "refused": FLOOD - A_MINUTE}
    assert answered == A_MINUTE
    assert max(notices.values()) == 1
    assert percentile(beside, 95) < 1.2 * percentile(alone, 95) + NOISE_S


async def test_who_floods_is_told_once(
    redis_server: RedisServer, connector: Keeps
) -> None:
    config = a_config(conversation={"messages_per_minute": A_MINUTE})
    async with a_bot(redis_server.url, config, Echoes(), [connector]) as (bot, _):
        for event in flood()[:200]:
            await bot.accept(event)
        await bot.idle()

    texts = [one.text for one in connector.sent]
    assert texts.count(config.replies.busy) == 1


async def test_a_limit_is_not_shared_with_a_stranger_of_the_same_number(
    redis_server: RedisServer,
) -> None:
    config = a_config(conversation={"messages_per_minute": A_MINUTE})
    connectors = [Keeps("fake"), Keeps("other")]
    async with a_bot(redis_server.url, config, Echoes(), connectors) as (bot, _):
        for number in range(A_MINUTE):
            address = an_address("c", platform="fake", user="4711")
            await bot.accept(an_event(f"{number}", address=address))

        stranger = an_address("c", platform="other", user="4711")
        answer = await bot.accept(an_event("hello", address=stranger))
        await bot.idle()

    assert answer == "accepted"


# Again


async def test_what_comes_three_times_is_answered_once_whoever_takes_it(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    for _ in range(2):
        await fleet.start(settings)
    events = [by(f"c{chat}", "question") for chat in range(20)]
    last = by("last", "question")
    await platform.until(lambda: platform.connectors == 2, "no two connectors")

    first = [await platform.offer(event) for event in events]
    second = [await platform.offer(event) for event in events[::-1]]
    await platform.until(lambda: len(platform.arrived) >= 20, "no answers")
    third = [await platform.offer(event) for event in events]
    await platform.offer(last)
    await platform.until(lambda: bool(platform.replies(last.address.key)), "no answer")

    assert set(first) == {"accepted"}
    assert set(second + third) == {"duplicate"}
    assert [len(platform.replies(event.address.key)) for event in events] == [1] * 20
    readings = [
        await child.reading("chorus_events_total", platform="fake", answer="duplicate")
        for child in fleet.alive
    ]
    assert sum(readings) == 40
    assert all(readings), "one process took all of them"
