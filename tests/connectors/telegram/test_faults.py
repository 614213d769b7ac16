"""
What Telegram and the network do to a bot: every message is answered once, whatever.

Connector, store, manager and turn are real, and so is the redis-server. Telegram is the
stand-in, which fails where a test wants it to.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bot.conversation.manager import ConversationManager
from bot.errors import StoreError
from bot.interfaces import WebRequest
from bot.model import Record, Reply, Turn
from connectors.telegram import Telegram
from tests.connectors.telegram.chats import ANN, BEN, Person
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.whole_bot import a_bot, a_connector, says
from tests.connectors.telegram.wire import (
    BadRequest,
    Call,
    Conflict,
    DropAfter,
    DropBefore,
    Fault,
    FloodWait,
    Hang,
    Slow,
    Status,
    Well,
)
from tests.conversation.redis_processes import RedisServer

pytestmark = [pytest.mark.services, pytest.mark.timeout(60)]

SECRET = "Correct-Horse_9"  # noqa: S105 (of nothing)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(started: RedisServer) -> RedisServer:
    """Give a server that is empty, whatever the test before did to it."""
    if not started.running:
        started.start()
    started.ask("FLUSHALL")
    return started


def long_answer(question: str, parts: int = 3) -> str:
    """Make a text that has to be sent in so many messages, each named."""
    return "\n\n".join(
        f"{question} part {number}: " + " ".join(["word" * 20] * 45)
        for number in range(1, parts + 1)
    )


def parts_of(shown: list[str]) -> list[str]:
    """Return the names of the parts that a customer reads, in order."""
    return [
        text[: text.index(":")] if ":" in text[:60] else text[:60] for text in shown
    ]


CROWD = [Person(id=1000 + number, first_name=f"No. {number}") for number in range(20)]


def answers_to(service: TelegramService) -> list[list[str]]:
    """Return what each of the crowd reads."""
    return [service.shown(one.id) if one.id in service.chats else [] for one in CROWD]


def penalised(service: TelegramService) -> list[Call]:
    return service.called("sendMessage", "sendChatAction", chat=ANN.id)


WHOLE = ["q part 1", "q part 2", "q part 3"]


class Waits:
    """An answerer that begins when it is let, and shows what it is told to."""

    def __init__(self, text: str = "at last") -> None:
        self.turns: list[Turn] = []
        self.text = text
        self.go = asyncio.Event()
        self.frames: list[str] = []
        self.pause_s = 0.0

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        self.turns.append(turn)
        for frame in self.frames:
            show(frame)
            await asyncio.sleep(self.pause_s)
        while not (self.go.is_set() or cancelled.is_set()):  # noqa: ASYNC110 (a thread's)
            await asyncio.sleep(0.005)
        stopped = cancelled.is_set()
        return Record(
            turn=turn,
            outcome="cancelled" if stopped else "answered",
            reply=Reply(text="Stopped." if stopped else self.text),
            why="",
            config="",
        )


# Sending


async def test_a_penalty_within_a_long_reply_delays_the_rest_of_it(
    service: TelegramService, redis: RedisServer
) -> None:
    service.fail("sendMessage", Well(), FloodWait(1), Well(), FloodWait(1))

    async with a_bot(redis.url, a_connector(service), says(long_answer)):
        service.say("q")
        await service.until(lambda: len(service.shown()) >= 3)

    assert parts_of(service.shown()) == WHOLE
    assert len(service.called("sendMessage")) == 5


async def test_a_penalty_in_one_chat_delays_no_other(
    service: TelegramService, redis: RedisServer
) -> None:
    service.private()
    service.penalise(ANN.id, 3600)

    async with a_bot(redis.url, a_connector(service)):
        service.say("first")
        await service.until(lambda: penalised(service))
        for someone in CROWD:
            service.say("hello", user=someone)
        await service.until(lambda: all(answers_to(service)))

    assert service.shown() == []
    assert answers_to(service) == [["answer to hello"]] * len(CROWD)
    # Who is told to wait an hour does not ask again in a moment.
    assert len(penalised(service)) == 1


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_an_error_of_the_service_makes_no_second_copy(
    service: TelegramService, redis: RedisServer, code: int
) -> None:
    service.fail("sendMessage", Well(), Status(code))

    connector = a_connector(service)
    async with a_bot(redis.url, connector, says(long_answer)) as manager:
        service.say("q")
        await service.until(lambda: WHOLE[-1] in parts_of(service.shown()))
        await manager.idle()

    shown = parts_of(service.shown())
    # Of 504 nobody knows whether something was done behind it.
    assert shown == (["q part 1", "q part 3"] if code == 504 else WHOLE)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(("fault", "lost"), [(DropBefore(), 1), (DropAfter(), 0)])
async def test_a_part_of_which_nobody_knows_is_not_sent_again_and_the_rest_is(
    service: TelegramService, redis: RedisServer, place: int, fault: Fault, lost: int
) -> None:
    service.fail("sendMessage", *[Well()] * place, fault)

    connector = a_connector(service)
    async with a_bot(redis.url, connector, says(long_answer)) as manager:
        service.say("q")
        await service.until(lambda: len(service.called("sendMessage")) >= 3)
        await manager.idle()

    assert parts_of(service.shown()) == WHOLE[:place] + WHOLE[place + lost :]


async def test_a_slow_answer_is_waited_for(
    service: TelegramService, redis: RedisServer
) -> None:
    service.fail("sendMessage", Slow(1), Slow(1))

    async with a_bot(redis.url, a_connector(service), says(long_answer)):
        service.say("q")
        await service.until(lambda: len(service.shown()) >= 3)

    assert parts_of(service.shown()) == WHOLE


async def test_entities_that_are_refused_cost_their_marks_and_nothing_else(
    service: TelegramService, redis: RedisServer
) -> None:
    service.fail("sendMessage", BadRequest("can't parse entities: no idea"))
    service.fail(
        "sendMessage",
        BadRequest("entity begins in a middle of a UTF-16 symbol at byte offset 4"),
        chat=BEN.id,
    )

    async with a_bot(redis.url, a_connector(service), says("**{}** is bold".format)):
        service.say("this")
        await service.until(service.shown)
        service.say("that", user=BEN)
        await service.until(lambda: service.shown(BEN.id))

    assert service.shown() == ["this is bold"]
    assert service.shown(BEN.id) == ["that is bold"]


async def test_who_blocked_the_bot_is_left_alone_until_they_come_back(
    service: TelegramService, redis: RedisServer
) -> None:
    waits = Waits()

    async with a_bot(redis.url, a_connector(service), waits) as manager:
        service.say("hello")
        await service.until(lambda: waits.turns)
        service.chats[ANN.id].shut = "bot was blocked by the user"
        waits.go.set()
        await manager.idle()
        tried = len(service.called("sendMessage"))
        service.block()
        await service.until(lambda: not service.pending)
        service.unblock()
        service.say("hello again")
        await service.until(service.shown)

    assert tried == 1
    assert service.shown() == ["at last"]


async def test_a_group_that_moves_goes_on_with_its_conversation(
    service: TelegramService, redis: RedisServer
) -> None:
    group = service.group()
    waits = Waits()

    async with a_bot(redis.url, a_connector(service), waits) as manager:
        service.say("@chorus_bot one?", chat=group)
        await service.until(lambda: waits.turns)
        new = service.migrate(group)
        waits.go.set()
        await service.until(lambda: service.shown(new))
        service.say("@chorus_bot two?", chat=new)
        await service.until(lambda: len(service.shown(new)) == 2)
        await manager.idle()

    first, second = waits.turns
    assert service.shown(group) == []
    assert [event.text for event in second.history] == ["one?", "at last"]
    assert second.message.address.key == first.message.address.key


# Coming in


async def test_another_poller_is_reported_and_outlived(
    service: TelegramService, redis: RedisServer
) -> None:
    connector = a_connector(service)
    service.fail("getUpdates", Conflict())

    async with a_bot(redis.url, connector):
        await service.until(connector.trouble)
        trouble = connector.trouble()
        service.say("hello")
        await service.until(service.shown)
        await service.until(lambda: connector.trouble() is None)

    assert trouble is not None
    assert "telegram" in trouble
    assert service.shown() == ["answer to hello"]


async def test_what_the_store_could_not_take_is_not_confirmed(
    service: TelegramService, redis: RedisServer
) -> None:
    async with a_bot(redis.url, a_connector(service)):
        service.say("before")
        await service.until(service.shown)
        redis.kill()
        said = service.say("meanwhile")
        asked = len(service.called("getUpdates"))
        await service.until(lambda: len(service.called("getUpdates")) > asked + 1)
        away = (service.confirmed, len(service.pending))
        redis.start()
        await service.until(lambda: len(service.shown()) == 2)
        await service.until(lambda: not service.pending)

    assert away[0] < said["update_id"]
    assert away[1] == 1
    assert service.shown() == ["answer to before", "answer to meanwhile"]


async def test_who_ends_between_taking_and_confirming_answers_once(
    service: TelegramService, redis: RedisServer
) -> None:
    service.fail("getUpdates", Well(), Hang())
    said = service.say("hello")

    async with a_bot(redis.url, a_connector(service)):
        await service.until(lambda: len(service.called("getUpdates")) == 2)
        await service.until(service.shown)
    unconfirmed = service.pending
    async with a_bot(redis.url, a_connector(service)) as manager:
        await service.until(lambda: not service.pending)
        await manager.idle()

    assert [update["update_id"] for update in unconfirmed] == [said["update_id"]]
    assert service.shown() == ["answer to hello"]


async def test_who_ends_while_a_part_is_sent_sends_no_part_twice(
    service: TelegramService, redis: RedisServer
) -> None:
    service.fail("sendMessage", Well(), Hang())

    async with a_bot(redis.url, a_connector(service), says(long_answer)):
        service.say("q")
        await service.until(lambda: len(service.called("sendMessage")) == 2)
    async with a_bot(redis.url, a_connector(service)):
        service.say("and")
        await service.until(lambda: "answer to and" in service.shown())

    counted = Counter(parts_of(service.shown()))
    assert counted["q part 1"] == 1
    assert max(counted.values()) == 1


async def test_two_processes_on_one_redis_answer_everything_once(
    service: TelegramService, redis: RedisServer
) -> None:
    async with (
        a_bot(redis.url, a_connector(service)),
        a_bot(redis.url, a_connector(service)),
    ):
        for number in range(3):
            for someone in CROWD:
                service.say(f"{number}", user=someone)
            await service.until(
                lambda: all(len(read) > number for read in answers_to(service)),  # noqa: B023 (waited for in the loop)
                timeout_s=30,
            )
        await service.until(lambda: not service.pending)

    assert answers_to(service) == [[f"answer to {n}" for n in range(3)]] * len(CROWD)


# The webhook


@asynccontextmanager
async def served(connector: Telegram) -> AsyncIterator[str]:
    """Let requests reach a connector as the core's server does."""

    async def respond(request: web.Request) -> web.Response:
        asked = WebRequest(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
        try:
            answer = await connector.respond(asked)
        except StoreError:
            return web.Response(status=503)
        return web.Response(
            status=answer.status, body=answer.body, headers=answer.headers
        )

    app = web.Application(client_max_size=20_000_000)
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_pushed_bot(
    service: TelegramService, redis: RedisServer
) -> AsyncIterator[ConversationManager]:
    connector = a_connector(
        service, mode="webhook", url="https://bot.example", secret_token=SECRET
    )
    async with served(connector) as url, a_bot(redis.url, connector) as manager:
        await service.until(lambda: service.webhook)
        service.webhook_url = url + connector.paths[0]
        yield manager


async def test_an_update_pushed_again_and_at_once_is_answered_once(
    service: TelegramService, redis: RedisServer
) -> None:
    async with a_pushed_bot(service, redis) as manager:
        said = service.say("hello")
        pushed = await asyncio.gather(*[service.push(said) for _ in range(11)])
        pushed.append(await service.push(said))
        await service.until(service.shown)
        await manager.idle()

    assert {status for status, *_ in pushed} == {200}
    assert service.shown() == ["answer to hello"]


async def test_updates_out_of_order_are_each_answered_once(
    service: TelegramService, redis: RedisServer
) -> None:
    async with a_pushed_bot(service, redis) as manager:
        said = [
            service.say(f"{number}", user=someone)
            for number in range(2)
            for someone in CROWD
        ]
        for update in [*reversed(said), *said]:
            await service.push(update)
        await service.until(lambda: all(len(read) > 1 for read in answers_to(service)))
        await manager.idle()

    assert [sorted(read) for read in answers_to(service)] == [
        ["answer to 0", "answer to 1"]
    ] * len(CROWD)


async def test_what_is_pushed_while_the_store_is_away_comes_again(
    service: TelegramService, redis: RedisServer
) -> None:
    async with a_pushed_bot(service, redis):
        redis.kill()
        said = service.say("hello")
        refused, *_ = await service.push(said)
        redis.start()
        async with asyncio.timeout(20):
            while (await service.push(said))[0] != 200:  # noqa: ASYNC110 (Telegram's)
                await asyncio.sleep(0.05)
        await service.until(service.shown)

    assert refused == 503
    assert service.shown() == ["answer to hello"]


async def test_an_update_is_taken_in_well_under_a_second(
    service: TelegramService, redis: RedisServer
) -> None:
    async with a_pushed_bot(service, redis):
        took = [
            (await service.push(service.say("hello", user=someone)))[2]
            for someone in CROWD
        ]
        await service.until(lambda: all(answers_to(service)))

    assert sorted(took)[10] < 0.2
