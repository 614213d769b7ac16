"""
Whoever asks to be forgotten is: nothing that he wrote, or that names him, is left in
Redis, in its files, in any log or on /metrics.

Everything of his has the same rare word in it, so that one search finds all of it. What
our own loggers write never has it, not even before; the bot's processes log at DEBUG.
There are no OpenTelemetry traces yet, so none are searched.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from bot import hookimpl
from bot.cli.logs import _Json
from bot.conversation import overview
from bot.conversation.manager import Role
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import Forgotten, turn_id
from bot.conversation.store import Store
from bot.errors import DeliveryError, KnowledgeError
from bot.interfaces import Tools
from bot.model import (
    ActionResult,
    Address,
    Candidate,
    Event,
    Passage,
    Record,
    Reply,
    Sent,
    Turn,
)
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer, free_port, wait_for
from tests.faults.bot_process import (
    Bots,
    BotSettings,
    Keeps,
    a_bot_here,
    a_config,
)
from tests.faults.figures import tell
from tests.faults.platform import Platform

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

RARE, OTHERS = "quetzal", "magpie"  # in all that is his, and in all that is not
OURS = {"bot", "chorus"}
USER = f"{RARE}-user"
LONG_S = 600.0
LOOK_S = 0.02


def of(word: str) -> Address:
    return an_address(
        f"{word}-chat", platform="fake", thread=f"{word}-thread", user=f"{word}-user"
    )


HIS, NEIGHBOURS = of(RARE), of(OTHERS)


def found(content: bytes, word: str = RARE) -> bool:
    return word.encode() in content.lower()


# Where there is something to find


def in_redis(url: str, word: str = RARE) -> list[str]:
    """Return the keys with the word in their name, or in what they hold in any form."""
    with redis.Redis.from_url(url) as client:
        return [
            key.decode()
            for key in client.scan_iter(count=1000)
            if found(key, word)
            or found(client.dump(key) or b"", word)  # with what was deleted inside it
            or found(_read(client, key), word)  # and groups' consumers
        ]


def _read(client: redis.Redis, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return repr(client.get(key)).encode()
        case b"list":
            return repr(client.lrange(key, 0, -1)).encode()
        case b"hash":
            return repr(client.hgetall(key)).encode()
        case b"set":
            return repr(client.smembers(key)).encode()
        case b"zset":
            return repr(client.zrange(key, 0, -1)).encode()
        case b"stream":
            groups = [
                (group, client.xinfo_consumers(key, group["name"]))
                for group in client.xinfo_groups(key)
            ]
            return repr((client.xrange(key), groups)).encode()
        case other:
            raise AssertionError(other)


def in_files(folder: Path, word: str = RARE) -> list[str]:
    return [
        str(file.relative_to(folder))
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (found(file.read_bytes(), word) or word in file.name)
    ]


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Return what the processes have logged."""
    return [
        json.loads(line)
        for log in sorted(folder.glob("*.log"))
        for line in log.read_text().splitlines()
    ]


def leaks(lines: Sequence[dict[str, Any]], *, ours: bool) -> list[str]:
    """Return the lines of our loggers, or of the libraries', with the word in them."""
    return [
        line["message"]
        for line in lines
        if found(json.dumps(line).encode())
        and (line["logger"].partition(".")[0] in OURS) is ours
    ]


# What is there before


@dataclass(frozen=True, slots=True, kw_only=True)
class Bot:
    """A bot of three processes, and where everything of it lies."""

    url: str
    bots: Bots
    platform: Platform
    ports: Sequence[int]
    logs: Path

    async def say(self, text: str, address: Address = HIS, **more: Any) -> Event:
        event = an_event(text, address=address, **more)
        answer = await self.platform.deliver(event)
        assert answer in {"accepted", "refused"}
        return event

    async def hear(self, text: str, address: Address = HIS) -> None:
        await self.platform.until(
            lambda: any(text in one for one in self.platform.replies(address.key)),
            f"nobody heard {text!r}",
        )

    async def logged(self, text: str) -> None:
        """Wait until one of the processes says so; files tell nobody of their lines."""
        async with asyncio.timeout(30):
            while not any(  # noqa: ASYNC110
                text in line["message"] for line in log_lines(self.logs)
            ):
                await asyncio.sleep(LOOK_S)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "data" / "redis") as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("rdbcompression", "no")  # which would hide words
        yield server


@asynccontextmanager
async def a_bot(url: str, platform: Platform, logs: Path) -> AsyncIterator[Bot]:
    settings = BotSettings(
        url=url,
        platform=str(platform.path),
        workers={"attempts": 2},
        conversation={"max_message_characters": 100},
    )
    ports = [free_port() for _ in range(3)]
    roles: list[Role] = ["connectors", "workers", "workers"]
    async with Bots(logs) as bots:
        for port, role in zip(ports, roles, strict=True):
            await bots.start(replace(settings, port=port, roles=[role]))
        yield Bot(url=url, bots=bots, platform=platform, ports=ports, logs=logs)


@pytest.fixture
async def bot(
    embedded: EmbeddedRedis, platform: Platform, tmp_path: Path
) -> AsyncIterator[Bot]:
    async with a_bot(embedded.url, platform, tmp_path / "logs") as bot:
        yield bot


async def leave_traces(bot: Bot, word: str) -> None:
    """Let somebody do everything that a customer can do, with the word in all of it."""
    his = of(word)
    question = await bot.say(f"{word} question", his)
    await bot.hear(f"answer to {word} question", his)
    await bot.say(f"remember {word}-slot {word}-value", his, kind="command")
    await bot.hear(f"noted {word}-value", his)
    await bot.say(f"{word} " * 50, his)
    await bot.hear("characters", his)
    await bot.say(f"{word} stopped", his, data={"slowly": LONG_S})
    await bot.say("", his, kind="cancel", id=f"{word}-cancel")
    await bot.hear("Stopped.", his)
    await bot.say(f"{word} fails", his, data={"fails": True})
    await bot.hear("something went wrong", his)
    judged = {
        "turn": turn_id(question),
        "rating": -1,
        f"{word}-name": f"{word}-value",
    }
    await bot.say(f"{word} comment", his, kind="feedback", data=judged)
    assert await bot.platform.offer(question) == "duplicate"


def of_one_process(url: str) -> Store:
    return Store(url=url, settings=a_config().conversation, embedded=True)


async def forgotten(server: EmbeddedRedis) -> Forgotten:
    async with of_one_process(server.url) as store:
        return await store.forget(USER)


async def metrics_pages(bot: Bot) -> list[bytes]:
    """Return what the processes that still run say on /metrics."""
    pages = []
    async with aiohttp.ClientSession() as client:
        for port, child in zip(bot.ports, bot.bots.children, strict=True):
            if child.is_alive:
                async with client.get(f"http://127.0.0.1:{port}/metrics") as response:
                    pages.append(await response.read())
                    assert b"chorus_redis_up 1.0" in pages[-1]
    return pages


async def check_nothing_is_left(bot: Bot, server: EmbeddedRedis) -> None:
    keys, files, lines = in_redis(bot.url), in_files(server.folder), log_lines(bot.logs)
    ours, libraries = leaks(lines, ours=True), leaks(lines, ours=False)
    pages = await metrics_pages(bot)
    tell(
        f"left of him: {len(keys)} keys, {len(files)} of the server's files, "
        f"{len(ours)} of {len(lines)} log lines ({len(libraries)} of the libraries'), "
        f"{sum(map(found, pages))} of {len(pages)} pages of metrics"
    )
    assert (keys, files, ours, libraries) == ([], [], [], [])
    assert not any(map(found, pages))


async def forget_command(folder: Path, where: Mapping[str, Any]) -> tuple[str, str]:
    """Run `chorus forget`; return what it writes, and what it says beside."""
    file = folder / "bot.yaml"
    models = {name: {"model": "none"} for name in ("knowledge", "generation")}
    plugins = [{"use": "multinomial"}, {"use": "best"}]
    file.write_text(json.dumps({**where, **models, "plugins": plugins}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "forget", USER, "--config", str(file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    told, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return told.decode(), said.decode()


async def are_answered(store: Store, keys: set[str]) -> bool:
    found = await overview.conversations(store, 10)
    return keys == {one.key for one in found if one.state == "answering"}


# Forgotten


async def test_nothing_is_left_of_who_is_forgotten_at_the_command_line(
    bot: Bot, embedded: EmbeddedRedis, tmp_path: Path
) -> None:
    await leave_traces(bot, RARE)
    await bot.say(f"{OTHERS} question", NEIGHBOURS)
    await bot.hear(f"answer to {OTHERS}", NEIGHBOURS)
    assert len(in_redis(bot.url)) > 8
    assert in_files(embedded.folder)

    told, _ = await forget_command(tmp_path, {"data": str(tmp_path / "data")})

    assert told == (
        f"erased about {USER!r}: conversations 1, events 11, slots 1, records 4, "
        "messages 1, replies 0\n"
    )
    await check_nothing_is_left(bot, embedded)
    assert in_redis(bot.url, OTHERS)
    assert in_files(embedded.folder, OTHERS)


async def test_nothing_is_left_of_who_is_forgotten_among_others_who_are_not(
    bot: Bot, embedded: EmbeddedRedis
) -> None:
    """The others have dead letters too, and are being answered at this moment."""
    await leave_traces(bot, OTHERS)
    await leave_traces(bot, RARE)
    async with of_one_process(bot.url) as store:
        for his in (NEIGHBOURS, HIS):
            await bot.say("is being answered", his, data={"slowly": LONG_S})
        while not await are_answered(store, {HIS.key, NEIGHBOURS.key}):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

        erased = await store.forget(USER)

        assert (erased.conversations, erased.messages) == (1, 2)
        assert len(await overview.dead_letters(store)) == 1
        assert await are_answered(store, {NEIGHBOURS.key})
    await check_nothing_is_left(bot, embedded)


async def test_what_is_on_its_way_when_he_is_forgotten_stays_forgotten(
    bot: Bot, embedded: EmbeddedRedis
) -> None:
    connectors, *_ = bot.bots.children
    running, waiting, sending = (
        replace(HIS, chat=f"{RARE}-{name}")
        for name in ("running", "waiting", "sending")
    )
    bot.platform.retry_after_s = LONG_S
    bot.platform.treatments.append("later")
    await bot.say("its answer waits", waiting)
    later = {"platform": "fake", "outcome": "later"}
    while not await connectors.reading(  # noqa: ASYNC110 (nobody tells)
        "chorus_deliveries_total", **later
    ):
        await asyncio.sleep(LOOK_S)
    await bot.say("is being answered", running, data={"slowly": 2.0})
    await bot.say("waits behind it", running)
    bot.platform.latency_s = 1.0
    await bot.say("its answer is being sent", sending)
    await bot.hear("its answer is being sent", sending)
    assert len(in_redis(bot.url)) > 8

    erased = await forgotten(embedded)
    await check_nothing_is_left(bot, embedded)
    heard = len(bot.platform.arrived)
    await bot.logged("its conversation was erased meanwhile")
    for child in bot.bots.children:
        child.terminate()
        assert await child.ended() == 0
    await check_nothing_is_left(bot, embedded)

    assert (erased.conversations, erased.messages, erased.replies) == (3, 2, 2)
    assert len(bot.platform.arrived) == heard


async def test_who_was_forgotten_begins_anew(bot: Bot, embedded: EmbeddedRedis) -> None:
    await bot.say(f"remember {RARE}-slot {RARE}-value", kind="command")
    await bot.hear("noted")
    await forgotten(embedded)

    await bot.say("hello again")
    await bot.hear("answer to hello again")

    async with of_one_process(bot.url) as store:
        state = await store.load(HIS)
    assert [event.text for event in state.history] == [
        "hello again",
        "answer to hello again",
    ]
    assert state.slots == {}


async def test_a_redis_of_ones_own_forgets_in_its_file_when_it_is_rewritten(
    platform: Platform, tmp_path: Path
) -> None:
    """As docs/deploy.md says: BGREWRITEAOF is the operator's."""
    # A slow log keeps what the slow commands were about, until the server ends.
    options = ["--slowlog-log-slower-than", "-1", "--rdbcompression", "no"]
    with RedisServer(tmp_path / "redis", options) as server:
        async with a_bot(server.url, platform, tmp_path / "logs") as bot:
            await leave_traces(bot, RARE)

            _, said = await forget_command(tmp_path, {"redis": {"url": server.url}})
            keys, files = in_redis(server.url), in_files(server.folder)
            server.ask("BGREWRITEAOF")
            wait_for(lambda: not in_files(server.folder), "it is still in the file")

    assert "run BGREWRITEAOF on your Redis" in said
    assert keys == []
    assert files


# What strangers say


class Refuses(Keeps):
    """A connector whose first send raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = [error]

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        if self._errors:
            raise self._errors.pop()
        return await super().send(address, reply, key)


@dataclass(frozen=True, slots=True)
class Quotes:
    """A plugin of several kinds that fails, and quotes what it failed at."""

    name: str = "quotes"
    description: str = ""

    @hookimpl
    async def turn_started(self, turn: Turn) -> None:
        raise RuntimeError(f"cannot look up {turn.message.address.user}")

    def turn_over(self, record: Record) -> None:
        raise RuntimeError(f"cannot count {record.turn.question}")

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[float]:
        raise RuntimeError(f"cannot score {turn.question}")

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        raise KnowledgeError(f"cannot find {turn.question}")

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        if arguments.startswith("sets"):
            unwritable: Any = {"a": {f"{RARE} value"}}
            return ActionResult(reply=Reply(text="done"), slots=unwritable)
        raise RuntimeError(f"cannot do {turn.question}")


QUESTION = an_event(f"{RARE} question", address=HIS)
FAILS = replace(QUESTION, data={"fails": True})
DOES = an_event(f"quotes {RARE}", "command", address=HIS)
SETS = an_event(f"quotes sets {RARE}", "command", address=HIS)


@pytest.mark.parametrize(
    ("event", "raised", "more"),
    [
        pytest.param(FAILS, None, {}, id="the model"),
        pytest.param(QUESTION, None, {"scorers": [Quotes()]}, id="a scorer"),
        pytest.param(QUESTION, None, {"retrievers": [Quotes()]}, id="a retriever"),
        pytest.param(QUESTION, None, {"plugin": Quotes()}, id="an observer"),
        pytest.param(QUESTION, None, {"sinks": [Quotes()]}, id="a sink"),
        pytest.param(DOES, None, {"actions": [Quotes()]}, id="an action"),
        pytest.param(SETS, None, {"actions": [Quotes()]}, id="a slot"),
        pytest.param(
            QUESTION,
            DeliveryError(f"no chat {HIS.chat}", retryable=False),
            {},
            id="a service",
        ),
        pytest.param(
            QUESTION,
            RuntimeError(f"no chat {HIS.chat}"),
            {},
            id="a connector",
        ),
    ],
)
async def test_our_log_does_not_repeat_what_strangers_say(
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    event: Event,
    raised: Exception | None,
    more: Mapping[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    connector = Keeps() if raised is None else Refuses(raised)
    config = a_config(workers={"attempts": 1})
    async with a_bot_here(redis_server.url, config, connector, **more) as manager:
        assert await manager.accept(event) == "accepted"
        await manager.idle()
        assert await manager.accept(replace(event, id="again")) == "accepted"
        await manager.idle()

    written = [_Json().format(line) for line in caplog.records]
    assert connector.sent
    assert [line for line in written if found(line.encode())] == []
