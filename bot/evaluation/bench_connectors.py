"""
Bench `connectors`: from a service's HTTP request to its acknowledgement.

A process runs `chorus run --only connectors` as an operator would, with a redis-server
of its own; this one plays Slack and Telegram and posts customers' messages, signed as
the services sign. First at a steady rate, then as fast as they are taken. Afterwards
the lanes are read: a message that is missing, twice there or out of order in its
conversation is raised, not reported.

The baseline is slack-bolt's own dispatch with the same signature check, in process,
without HTTP and without keeping anything: the least an application on it pays.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bot.config import ConversationConfig
from bot.conversation.keys import Shard
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import EVENTS
from bot.conversation.store import Store
from bot.evaluation.bench_connectors_events import (
    SECRET_TOKEN,
    SIGNING_SECRET,
    Posts,
    SlackPosts,
    TelegramPosts,
)
from bot.evaluation.bench_connectors_service import TELEGRAM_BOT, services
from bot.evaluation.bench_connectors_theirs import bolt_seconds
from bot.evaluation.report import BenchRow
from bot.interfaces import Progress

if TYPE_CHECKING:
    from bot.app import App

START_S = 60.0
BASELINE = "slack-bolt's dispatch, without HTTP and storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """
    How much is posted: `rate` messages a second for `seconds`, spread over the
    `conversations`; then `rounds` of `messages` in each conversation, each after the
    acknowledgement of the one before it, conversations beside each other.
    """

    conversations: int = 50
    rate: float = 200.0
    seconds: float = 20.0
    messages: int = 60
    rounds: int = 3


class Lost(AssertionError):
    """A message was refused, lost, repeated or overtaken: no figure means anything."""


@dataclass(slots=True)
class _Sent:
    """What was posted: the next number of each conversation."""

    numbers: dict[int, int] = field(default_factory=dict)

    def next(self, conversation: int) -> int:
        number = self.numbers.get(conversation, 0) + 1
        self.numbers[conversation] = number
        return number


def connectors_bench(_: App, progress: Progress) -> list[BenchRow]:
    """Measure with processes and a server of its own; the bot's data is not touched."""
    return asyncio.run(measured(Scale(), progress))


async def measured(scale: Scale, progress: Progress) -> list[BenchRow]:
    rows = []
    for posts in (SlackPosts(), TelegramPosts()):
        with TemporaryDirectory(prefix="chorus-bench-") as folder:
            rows += await _measured(posts, scale, Path(folder), progress)
    return rows


async def _measured(
    posts: Posts, scale: Scale, folder: Path, progress: Progress
) -> list[BenchRow]:
    sent = _Sent()
    with EmbeddedRedis(folder / "redis") as redis:
        async with services() as service, _running(folder, redis.url, service) as web:
            await _steady(posts, web, sent, scale, seconds=2.0)  # warms up
            progress(f"{posts.name} at {scale.rate:g} a second", 0, None)
            waited = await _steady(posts, web, sent, scale, scale.seconds)
            rates = []
            for number in range(scale.rounds):
                progress(f"{posts.name} at full speed", number, scale.rounds)
                rates.append(await _full_speed(posts, web, sent, scale))
        await _check(posts.name.lower(), redis.url, sent)
    return [_steady_row(posts, scale, waited), await _speed_row(posts, scale, rates)]


def _steady_row(posts: Posts, scale: Scale, waited: Sequence[float]) -> BenchRow:
    ordered = sorted(1000 * seconds for seconds in waited)
    return BenchRow(
        case=f"{posts.name}, {scale.rate:g} a second: acknowledged after, p99",
        ours=ordered[int(0.99 * len(ordered))],
        unit="ms",
        also={"p50": median(ordered), "longest": ordered[-1]},
    )


async def _speed_row(posts: Posts, scale: Scale, rates: Sequence[float]) -> BenchRow:
    case = f"{posts.name}, as fast as they are taken"
    ours = median(rates)
    spread = (min(rates), max(rates))
    if not isinstance(posts, SlackPosts):
        return BenchRow(
            case=case, ours=ours, unit="1/s", more_is_better=True, spread=[spread]
        )
    each = range(scale.conversations)
    written = [(one, n) for n in range(scale.messages) for one in each]
    theirs = [
        len(written) / await bolt_seconds(written) for _ in range(scale.rounds + 1)
    ][1:]
    return BenchRow(
        case=case,
        ours=ours,
        theirs=median(theirs),
        baseline=BASELINE,
        unit="1/s",
        more_is_better=True,
        spread=[spread, (min(theirs), max(theirs))],
    )


# Posting


async def _steady(
    posts: Posts, web: str, sent: _Sent, scale: Scale, seconds: float
) -> list[float]:
    """
    Post at the rate, whatever the answers take; return how long each took from when
    it was due. A conversation's messages go out one after the other.
    """
    each_s = scale.conversations / scale.rate
    async with _lines(web, scale.conversations) as lines:
        began = time.perf_counter()

        async def one(conversation: int) -> list[float]:
            waited = []
            for turn in range(int(seconds / each_s)):
                due = began + each_s * turn + conversation / scale.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                number = sent.next(conversation)
                await lines[conversation].post(posts, conversation, number)
                waited.append(time.perf_counter() - due)
            return waited

        found = await asyncio.gather(*map(one, range(scale.conversations)))
    return [seconds for waited in found for seconds in waited]


async def _full_speed(posts: Posts, web: str, sent: _Sent, scale: Scale) -> float:
    """Return how many messages were acknowledged in a second."""
    async with _lines(web, scale.conversations) as lines:

        async def one(conversation: int) -> None:
            for _ in range(scale.messages):
                number = sent.next(conversation)
                await lines[conversation].post(posts, conversation, number)

        began = time.perf_counter()
        await asyncio.gather(*map(one, range(scale.conversations)))
        took = time.perf_counter() - began
    return scale.conversations * scale.messages / took


@asynccontextmanager
async def _lines(web: str, number: int) -> AsyncIterator[list[_Line]]:
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(_line(web)) for _ in range(number)]


@asynccontextmanager
async def _line(web: str) -> AsyncIterator[_Line]:
    place = urlsplit(web)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield _Line(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection that is kept, as services keep theirs."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def post(self, posts: Posts, conversation: int, number: int) -> None:
        headers, body = posts.post(conversation, number)
        lines = [
            f"POST {posts.path} HTTP/1.1",
            "Host: bench",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        if status != b"200":
            raise Lost(f"{posts.name}: a message was answered with {status.decode()}")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await self.reader.readexactly(int(length or 0))


# The process that is measured


@asynccontextmanager
async def _running(folder: Path, redis: str, service: str) -> AsyncIterator[str]:
    """Run the connectors in a process of their own; yield the address of their HTTP."""
    port = _free_port()
    path = folder / "bot.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(_config(folder, redis, service, port)))
    command = ["-m", "bot", "run", "--only", "connectors", "--config", str(path)]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.DEVNULL, stderr=log
        )
    try:
        await _is_up(process, port, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def _is_up(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Wait until both connectors take messages."""
    silent: list[Posts] = [TelegramPosts(), SlackPosts()]
    async with asyncio.timeout(START_S):
        while silent:
            if process.returncode is not None:
                told = await asyncio.to_thread(log.read_text)
                raise Lost(f"the connectors did not start: {told.strip()}")
            try:
                async with _line(f"http://127.0.0.1:{port}") as line:
                    await line.post(silent[-1], 10**6, 1)
                silent.pop()
            except (OSError, Lost, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def _config(folder: Path, redis: str, service: str, port: int) -> dict[str, Any]:
    return {
        "data": str(folder),
        "redis": {"url": redis},
        "knowledge": {"model": "none"},
        "generation": {"model": "none"},
        "conversation": {"lane_limit": 10_000, "messages_per_minute": 100_000},
        "operations": {"port": None},
        "web": {"port": port},
        "plugins": [{"use": "multinomial"}, {"use": "best"}],
        "connectors": [
            {
                "use": "slack",
                "settings": {
                    "mode": "http",
                    "bot_token": "xoxb-bench",
                    "signing_secret": SIGNING_SECRET,
                    "api_url": f"{service}/api/",
                },
            },
            {
                "use": "telegram",
                "settings": {
                    "mode": "webhook",
                    "token": f"{TELEGRAM_BOT}:bench",
                    "secret_token": SECRET_TOKEN,
                    "url": "https://bench.example",
                    "api_url": service,
                },
            },
        ],
    }


# Whether everything is there


async def _check(platform: str, redis: str, sent: _Sent) -> None:
    """Raise Lost unless each lane holds what was posted, once and in order."""
    async with Store(url=redis, settings=ConversationConfig()) as store:
        client: Any = store.connection.commands
        lanes = await client.keys(f"{Shard(0).prefix}:c:{platform}:*:lane")
        found: dict[int, list[int]] = {}
        for lane in lanes:
            for entry in await client.lrange(lane, 0, -1):
                text = EVENTS.read(entry[entry.index(b"{") :]).text
                conversation, number = text.split(":")[0].split()
                found.setdefault(int(conversation), []).append(int(number))
    for one, last in sent.numbers.items():
        if found.get(one) != list(range(1, last + 1)):
            raise Lost(
                f"{platform}: the lane of conversation {one} does not hold "
                f"its {last} messages, each once and in order"
            )
