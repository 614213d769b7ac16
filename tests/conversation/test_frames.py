"""Frames on a real server: a reply is shown while it is written, and never after it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from bot.config import Config, ConversationConfig
from bot.conversation.connection import Connection
from bot.conversation.frames import FrameListener, FramePublisher
from bot.conversation.keys import frames_channel
from bot.conversation.manager import ConversationManager
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.interfaces import Connector
from bot.model import Address, Event, Record, Reply, Sent, Turn
from bot.testing import FixedClock, MemoryConnector, an_address, an_event
from tests.conversation.redis_processes import RedisServer, a_cluster

pytestmark = pytest.mark.services

CONFIG = Config.model_validate(
    {"knowledge": {"model": "m"}, "generation": {"model": "m"}}
)
CHANNEL = frames_channel("memory")
Show = Callable[[str], None]


class Writing:
    """Hands its test the turn's `show`, and answers when it is told to."""

    def __init__(self) -> None:
        self.shows: asyncio.Queue[Show] = asyncio.Queue()
        self.replies: asyncio.Queue[str] = asyncio.Queue()

    async def answer(
        self, turn: Turn, cancelled: threading.Event, show: Show, acting: object
    ) -> Record:
        self.shows.put_nowait(show)
        reply = Reply(text=await self.replies.get())
        return Record(turn=turn, outcome="answered", reply=reply, why="", config="")


class Nobody:
    """Observers who do not care."""

    def hear_of_replies(self, address: Address) -> bool:
        return False

    async def turn_started(self, turn: Turn) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...
    async def reply_sent(self, turn: Turn, reply: Reply) -> None: ...
    async def feedback_received(self, event: Any, record: Any) -> None: ...
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None: ...
    async def conversation_resumed(self, address: Address) -> None: ...


@dataclass
class Bot:
    """Managers on one server: as many as a test needs, of any role."""

    url: str
    answerer: Writing = field(default_factory=Writing)

    @contextlib.asynccontextmanager
    async def process(
        self, connector: Connector, *roles: str
    ) -> AsyncIterator[ConversationManager]:
        given: Any = {"roles": roles} if roles else {}
        async with (
            Store(url=self.url, settings=ConversationConfig()) as store,
            ConversationManager(
                store=store,
                answerer=self.answerer,
                connectors={connector.name: connector},
                observers=Nobody(),
                config=CONFIG,
                explain=str,
                clock=FixedClock(),
                seeds=lambda: 1,
                **given,
            ) as manager,
        ):
            yield manager


@pytest.fixture
def bot(server: EmbeddedRedis, client: redis.Redis) -> Bot:
    return Bot(server.url)


async def heard_by(client: redis.Redis, listeners: int) -> None:
    """Wait until so many processes would hear a frame."""
    async with asyncio.timeout(10):
        while client.pubsub_numsub(CHANNEL)[0][1] < listeners:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_reply_is_shown_while_it_is_written_and_sent_once(
    bot: Bot, client: redis.Redis
) -> None:
    connector = MemoryConnector()

    async with bot.process(connector) as manager:
        await heard_by(client, 1)
        await manager.accept(an_event("how long?"))
        show = await bot.answerer.shows.get()
        show("Five")
        first = await connector.next_frame()
        show("Five days.")
        second = await connector.next_frame()
        bot.answerer.replies.put_nowait("Five days. Or six.")
        reply = await connector.next_reply()
        await manager.idle()

    assert (first, second) == ("Five", "Five days.")
    assert reply.text == "Five days. Or six."
    assert len(connector.deliveries) == 1
    assert len(connector.frames) == 2


async def test_a_worker_of_its_own_shows_through_the_process_that_accepted(
    bot: Bot, client: redis.Redis
) -> None:
    accepting, other = MemoryConnector(), MemoryConnector()

    async with (
        bot.process(accepting, "connectors") as manager,
        bot.process(other, "connectors"),
        bot.process(MemoryConnector(), "workers"),
    ):
        await heard_by(client, 2)
        await manager.accept(an_event("how long?"))
        show = await bot.answerer.shows.get()
        await asyncio.to_thread(show, "Five")  # whoever computes has its own thread
        frame = await accepting.next_frame()
        bot.answerer.replies.put_nowait("Five days.")
        await manager.idle()

    assert frame == "Five"
    assert other.frames == []
    assert len(accepting.deliveries) + len(other.deliveries) == 1


async def test_what_is_shown_when_the_turn_is_over_is_shown_to_nobody(
    bot: Bot, client: redis.Redis
) -> None:
    connector = MemoryConnector()

    async with bot.process(connector) as manager:
        await heard_by(client, 1)
        await manager.accept(an_event("one"))
        show = await bot.answerer.shows.get()
        bot.answerer.replies.put_nowait("1")
        await connector.next_reply()
        show("late")
        await manager.accept(an_event("two"))
        (await bot.answerer.shows.get())("2 is")
        frame = await connector.next_frame()
        bot.answerer.replies.put_nowait("2 is it")
        await manager.idle()

    assert frame == "2 is"
    assert len(connector.frames) == 1


class SlowFrames(MemoryConnector):
    """A platform that takes its time for frames."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def frame(self, address: Address, text: str) -> None:
        self.begun.set()
        await self.go.wait()
        self.order.append(f"frame {text}")

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.order.append(f"reply {reply.text}")
        return await super().send(address, reply, key)


async def test_a_reply_waits_for_the_frame_that_is_just_being_shown(
    bot: Bot, client: redis.Redis
) -> None:
    connector = SlowFrames()

    async with bot.process(connector) as manager:
        await heard_by(client, 1)
        await manager.accept(an_event("how long?"))
        (await bot.answerer.shows.get())("Five")
        await connector.begun.wait()
        bot.answerer.replies.put_nowait("Five days.")
        while not client.llen("chorus:{s0}:c:memory:a1:c1:outbox"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        connector.go.set()
        await manager.idle()

    assert connector.order == ["frame Five", "reply Five days."]


class NoFrames(MemoryConnector):
    frame = None  # type: ignore[assignment]  # a service that shows none


async def test_a_platform_that_shows_no_frames_is_not_subscribed_to(
    bot: Bot, client: redis.Redis
) -> None:
    connector = NoFrames()

    async with bot.process(connector) as manager:
        await manager.accept(an_event("how long?"))
        (await bot.answerer.shows.get())("Five")
        bot.answerer.replies.put_nowait("Five days.")
        await connector.next_reply()
        listening = client.pubsub_numsub(CHANNEL)[0][1]

    assert listening == 0


# The fence


HELLO = an_event("hello")


async def a_lane(store: Store, message: Event = HELLO) -> Token:
    """Accept a message and begin its turn."""
    await store.accept(message)
    tokens = Tokens(store.connection, store.shards, "ready", ["memory"])
    shard = store.shards.of(message.address.key)
    [token] = await tokens.take(shard, 1) or await tokens.take(shard, 1)
    assert await store.begin(token) is not None
    return token


async def test_nobody_publishes_without_the_lease_or_past_a_reply_on_its_way(
    store: Store,
) -> None:
    token = await a_lane(store)
    turn = turn_id(an_event("hello"))

    held = await store.publish_frame(token, turn, "so far")
    lost = await store.publish_frame(replace(token, lease="another's"), turn, "so far")
    await store.turn_away(an_event("too much"), Reply(text="one moment"))
    behind = await store.publish_frame(token, turn, "so far")

    assert (held, lost, behind) == (True, False, False)


async def test_nothing_of_a_frame_is_kept(store: Store, client: redis.Redis) -> None:
    token = await a_lane(store)
    before = sorted(client.keys())

    await store.publish_frame(token, "t" * 16, "nobody reads this")

    assert sorted(client.keys()) == before


# The publisher


class Gone:
    """A store that answers when it is let, or fails."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.let = asyncio.Semaphore(0)
        self.out: asyncio.Queue[str] = asyncio.Queue()

    async def publish_frame(self, token: Token, turn: str, text: str) -> bool:
        await self.let.acquire()
        self.texts.append(text)
        self.out.put_nowait(text)
        return True


TOKEN: Any = None


async def test_the_latest_text_counts_and_the_rest_is_left_out() -> None:
    store, pauses = Gone(), asyncio.Semaphore(0)

    async def pause(seconds: float) -> None:
        await pauses.acquire()

    async with FramePublisher(store, pause).of(TOKEN, "t1") as show:  # type: ignore[arg-type]
        for text in ("a", "ab", "abc"):
            show(text)
        store.let.release()
        first = await store.out.get()
        for text in ("abcd", "abcde"):
            show(text)
        store.let.release()
        pauses.release()
        second = await store.out.get()

    assert (first, second) == ("abc", "abcde")
    assert store.texts == ["abc", "abcde"]


async def test_a_store_that_hangs_costs_the_turn_nothing() -> None:
    store = Gone()

    async with asyncio.timeout(0.5):
        async with FramePublisher(store, asyncio.sleep).of(TOKEN, "t1") as show:  # type: ignore[arg-type]
            show("never out")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    assert store.texts == []


def test_show_may_be_called_when_the_loop_is_gone() -> None:
    shows: list[Show] = []

    async def keep() -> None:
        async with FramePublisher(Gone(), asyncio.sleep).of(TOKEN, "t1") as show:  # type: ignore[arg-type]
            shows.append(show)

    asyncio.run(keep())

    shows[0]("too late")


# The listener


async def test_frames_are_heard_again_when_redis_is_back(tmp_path: Path) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    event = an_event("hello", address=an_address())

    with RedisServer(tmp_path) as server:
        async with Connection(server.url) as connection:
            listener = FrameListener(connection, ["memory"], asyncio.sleep)
            listener.expect(event)
            listening = asyncio.create_task(
                listener.listen(lambda address, text: heard.put_nowait(text))
            )
            texts = []
            for number in (1, 2):
                with redis.Redis.from_url(server.url) as client:
                    await heard_by(client, 1)
                    frame = f"{turn_id(event)}{number:013d}frame {number}"
                    client.publish(CHANNEL, frame)
                texts.append(await asyncio.wait_for(heard.get(), 10))
                server.kill()
                server.start()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    assert texts == ["frame 1", "frame 2"]


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [((1, 2, 3), "123"), ((2, 1, 3), "23"), ((1, 1), "1")],
)
def test_an_older_frame_does_not_come_after_a_newer_one(
    numbers: tuple[int, ...], shown: str
) -> None:
    listener = FrameListener(None, [], asyncio.sleep)  # type: ignore[arg-type]
    listener.expect(an_event("hello"))
    seen: list[str] = []

    for number in numbers:
        frame = f"{turn_id(an_event('hello'))}{number:013d}{number}".encode()
        listener._heard(frame, lambda address, text: seen.append(text))

    assert "".join(seen) == shown


def test_a_frame_is_shown_of_an_expected_turn_until_it_is_over() -> None:
    listener = FrameListener(None, [], asyncio.sleep)  # type: ignore[arg-type]
    seen: list[str] = []

    def hear(text: str, number: int, frame: str) -> None:
        written = f"{turn_id(an_event(text))}{number:013d}{frame}".encode()
        listener._heard(written, lambda address, text: seen.append(text))

    listener.expect(an_event("mine"))
    hear("mine", 1, "shown")
    hear("another's", 1, "not ours")
    listener.over(turn_id(an_event("mine")))
    hear("mine", 2, "over")

    assert seen == ["shown"]


async def test_in_a_cluster_a_frame_is_heard_from_every_node(tmp_path: Path) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(connection: Connection) -> None:
        async with contextlib.aclosing(connection.published([CHANNEL])) as frames:
            async for frame in frames:
                heard.put_nowait(frame)

    with a_cluster(tmp_path) as cluster:
        async with Store(
            url=cluster.url, settings=ConversationConfig(), shards=4
        ) as store:
            listening = asyncio.create_task(listen(store.connection))
            nodes = [redis.Redis.from_url(node.url) for node in cluster.nodes]
            async with asyncio.timeout(10):
                while not any(node.pubsub_numsub(CHANNEL)[0][1] for node in nodes):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            chats = [f"c{number}" for number in range(8)]
            for chat in chats:
                await store.publish_frame(
                    await a_lane(store, an_event(chat, address=an_address(chat))),
                    turn_id(an_event(chat, address=an_address(chat))),
                    chat,
                )
            texts = [(await heard.get())[29:].decode() for _ in chats]
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            for node in nodes:
                node.close()

    assert sorted(texts) == chats
