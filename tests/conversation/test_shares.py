"""One person with many conversations, and everybody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis

from bot.conversation.manager import ConversationManager
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.shares import Shares
from bot.conversation.store import Store
from bot.model import Event
from bot.testing.makers import an_address, an_event
from tests.conversation.test_manager import CONFIG, Bot, a_config
from tests.conversation.test_regressions import settings_of, until

pytestmark = pytest.mark.services

FOUR = a_config(workers={"concurrency": 4})
GREEDY = [f"thread {number}" for number in range(30)]


@pytest.fixture
def bot(store: Store) -> Bot:
    made = Bot(store)
    made.answerer.gates = {name: asyncio.Event() for name in GREEDY}
    return made


def of(person: str, chat: str) -> Event:
    return an_event(chat, address=an_address(chat, user=person))


def running(bot: Bot) -> set[str]:
    return {name for name in GREEDY if bot.answerer.begun[name].is_set()}


def aside(manager: ConversationManager) -> int:
    return sum(held.aside for crew in manager._crews for held in crew._held)


async def test_who_writes_in_many_threads_gets_half_the_places_and_others_theirs(
    bot: Bot,
) -> None:
    async with bot.manager(config=FOUR) as manager:
        for name in GREEDY:
            await manager.accept(of("greedy", name))
        await until(lambda: len(running(bot)) == 2)
        for number in range(20):
            other = f"other {number}"
            await manager.accept(of(other, other))
            assert (await bot.connector.next_reply(other)).text == f"{other}!"

        assert running(bot) == set(GREEDY[:2])
        for gate in bot.answerer.gates.values():
            gate.set()
        await manager.idle()

    assert [bot.connector.replies(name) for name in GREEDY] == [
        [f"{name}!"] for name in GREEDY
    ]
    assert [
        turn.question for turn in bot.answerer.turns if turn.question in GREEDY
    ] == (GREEDY)
    assert bot.answerer.most <= 4


async def test_others_begin_at_once_while_one_person_floods(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with settings_of(server, messages_per_minute=60) as bot:
        names = [f"thread {number}" for number in range(1000)]
        bot.answerer.gates = {name: asyncio.Event() for name in names}
        async with bot.manager(config=FOUR) as manager:
            answers = [await manager.accept(of("greedy", name)) for name in names]
            await manager.accept(of("other", "other"))
            reply = await bot.connector.next_reply("other")

    assert answers.count("accepted") == 60
    assert reply.text == "other!"
    assert bot.answerer.most == 3


async def test_the_share_can_be_set(bot: Bot) -> None:
    config = a_config(workers={"concurrency": 4, "per_person": 3})

    async with bot.manager(config=config) as manager:
        for name in GREEDY:
            await manager.accept(of("greedy", name))
        await until(lambda: len(running(bot)) == 3)
        await manager.accept(of("other", "other"))
        await bot.connector.next_reply("other")

        assert len(running(bot)) == 3


async def test_what_stands_aside_at_the_end_is_handed_back_and_no_attempt(
    bot: Bot, client: redis.Redis
) -> None:
    async with bot.manager(config=FOUR) as manager:
        for name in GREEDY[:6]:
            await manager.accept(of("greedy", name))
        await until(lambda: len(running(bot)) == 2)
    attempts, leases = (
        {client.hget(meta, field) for meta in client.keys("chorus:*:meta")}
        for field in ("attempts", "lease")
    )
    for gate in bot.answerer.gates.values():
        gate.set()
    async with bot.manager(alone=False) as manager:
        await manager.idle()

    assert attempts <= {"0", None}  # None: it was not begun yet
    assert leases == {None}
    assert [bot.connector.replies(name) for name in GREEDY[:6]] == [
        [f"{name}!"] for name in GREEDY[:6]
    ]


async def test_what_stands_aside_does_not_begin_once_the_end_has_come(bot: Bot) -> None:
    config = a_config(workers={"concurrency": 4, "shutdown_s": 5})

    async def open_all() -> None:
        await asyncio.sleep(0.1)  # the end has begun by then
        for gate in bot.answerer.gates.values():
            gate.set()

    async with bot.manager(config=config) as manager:
        for name in GREEDY[:6]:
            await manager.accept(of("greedy", name))
        await until(lambda: aside(manager) == 4)
        opening = asyncio.create_task(open_all())
    await opening

    assert len(bot.answerer.turns) == 2


async def test_what_stood_aside_begins_with_what_came_meanwhile(bot: Bot) -> None:
    together = a_config(
        workers={"concurrency": 4}, conversation={"during_turn": "merge"}
    )

    async with bot.manager(config=together) as manager:
        for name in GREEDY[:3]:
            await manager.accept(of("greedy", name))
        await until(lambda: aside(manager) == 1)
        more = of("greedy", GREEDY[2])
        await manager.accept(replace(more, id="more", text="and more"))
        for gate in bot.answerer.gates.values():
            gate.set()
        await manager.idle()

    assert bot.connector.replies(GREEDY[2]) == ["thread 2\nand more!"]


async def test_a_message_that_stands_aside_can_be_stopped(bot: Bot) -> None:
    async with bot.manager(config=FOUR) as manager:
        for name in GREEDY[:3]:
            await manager.accept(of("greedy", name))
        await until(lambda: len(running(bot)) == 2)
        stop = an_event("", "cancel", address=an_address(GREEDY[2], user="greedy"))
        await manager.accept(stop)
        for gate in bot.answerer.gates.values():
            gate.set()
        await manager.idle()

    assert bot.connector.replies(GREEDY[2]) == [CONFIG.replies.cancelled]


async def test_a_share_is_forgotten_once_nobody_uses_it() -> None:
    class Anybody:
        def step_aside(self) -> None: ...
        def step_in(self) -> None: ...

    shares = Shares(1)

    async with shares.of("ada", Anybody()) as waited:  # type: ignore[arg-type]  # a stub
        assert not waited
        assert list(shares._of) == ["ada"]

    assert not shares._of
