"""
The connection to Redis, however Redis is made up.

    redis://, rediss://, unix://    one server
    redis+sentinel://               the primary that Sentinels name
    redis+cluster://                a Cluster

Knows nothing about conversations. What was sent may arrive twice: a command whose
answer was lost is sent again. Whatever the client library raises leaves as StoreError.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from bot.conversation.batch import Batch
from bot.conversation.redis_clients import (
    TIMEOUT_S,
    cluster,
    one_server,
    primary_of,
    sentinels,
)
from bot.conversation.redis_errors import REDIS_ERRORS, translated
from bot.conversation.redis_urls import Place, read_url, without_password
from bot.errors import StoreError

BLOCK_MS = 2_000  # the longest time that a command on `blocking` may ask to wait
RETRIES = 3
CONNECTIONS = 50  # to each server
READERS = 1024  # one for each shard there can be

Script = Callable[..., Awaitable[Any]]


class Connection:
    """
    One Redis: a server, the primary that Sentinels name, or a Cluster. An async
    context manager; entering checks that it answers, leaving closes both clients.

    `blocking` is for XREAD and XREADGROUP with BLOCK, up to BLOCK_MS, and has
    connections of its own; `commands` is for everything else. `where` is the URL as
    messages may show it.
    """

    commands: Redis | RedisCluster
    blocking: Redis | RedisCluster

    def __init__(self, url: str) -> None:
        self.where = without_password(url)
        place = read_url(url)
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._batch: Batch | None = None
        try:
            with self.translated():
                self._connect(place)
        except TypeError as error:  # redis-py's, for an option it does not know
            raise StoreError(
                f"redis.url: {self.where!r}: an option after '?' cannot be used "
                f"({error}); see redis-py's documentation of URLs"
            ) from error

    def _connect(self, place: Place) -> None:
        commands = {**_settings(RETRIES, CONNECTIONS), **place.options}
        # A URL may set other timeouts, but none that would end a blocked read.
        blocking = {
            **place.options,
            **_settings(1, READERS),
            "socket_timeout": TIMEOUT_S + BLOCK_MS / 1000,
        }
        if place.kind == "cluster":
            clusters = [cluster(place, options) for options in (commands, blocking)]
            self._closing += [cluster.close_connections for cluster in clusters]
            self.commands, self.blocking = clusters
            return
        if place.kind == "sentinel":
            sentinel = sentinels(place)
            self._closing.append(sentinel.aclose)
            clients = [
                primary_of(sentinel, place, options) for options in (commands, blocking)
            ]
        else:
            clients = [one_server(options) for options in (commands, blocking)]
            self._batch = Batch(clients[0])
        self._closing += [client.aclose for client in clients]
        self.commands, self.blocking = clients

    async def __aenter__(self) -> Self:
        try:
            with self.translated():
                for client in (self.commands, self.blocking):
                    answer: Any = client.ping()
                    await answer
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        with self.translated():
            async with AsyncExitStack() as stack:
                for close in self._closing:
                    stack.push_async_callback(close)

    async def published(self, channels: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """
        Yield what is published on the channels from now on. What is said while nobody
        can hear it is lost; a connection that is lost is a StoreError. It is asked for
        a sign of life, because a peer that is gone may look like one that is silent.
        """
        with self.translated():
            async with self.blocking.pubsub() as subscribed:
                await subscribed.subscribe(*channels)
                asked = False
                while True:
                    message: Any = await subscribed.get_message(timeout=BLOCK_MS / 1000)
                    if message is not None:
                        asked = False
                        if message["type"] == "message":
                            yield message["data"]
                        continue
                    if asked:
                        raise exceptions.TimeoutError("no sign of life")
                    await subscribed.ping()
                    asked = True

    def script(self, lua: str, *, batched: bool = True) -> Script:
        """
        Return the script as a function of `keys` (of one slot) and `args`. One that is
        not `batched` travels by itself, and nothing waits for it.
        """
        client: Any = self.commands
        written = lua.encode()
        sha = hashlib.sha1(written, usedforsecurity=False).hexdigest()

        async def run(
            *, keys: Sequence[str | bytes] = (), args: Sequence[str | bytes | int] = ()
        ) -> Any:
            if batched and self._batch is not None:
                return await self._batch.run(sha, written, keys, args)
            try:
                return await client.evalsha(sha, len(keys), *keys, *args)
            except exceptions.NoScriptError:
                # EVAL loads it too, and where it is needed. SCRIPT LOAD goes to every
                # primary of a Cluster and fails as long as one of them is down.
                return await client.eval(written, len(keys), *keys, *args)

        return run

    @contextmanager
    def translated(self) -> Iterator[None]:
        """
        Let every exception of the client library leave as StoreError, and a
        cancellation as one.
        """
        task = _task()
        before = task.cancelling() if task else 0
        try:
            yield
        except REDIS_ERRORS as error:
            raise translated(error, self.where) from error
        # The client sends inside asyncio.wait_for, which before Python 3.12 loses a
        # cancellation that comes when sending is just done: the task would live on.
        # https://github.com/python/cpython/issues/86296
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a connection may be made where no loop runs
        return None


def _settings(retries: int, connections: int) -> dict[str, Any]:
    return {
        "max_connections": connections,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        # No health checks: with retries, and a server that wants a password, each
        # makes a new connection that checks its health first, and so on (8.1.0).
        "health_check_interval": 0,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.01, cap=1), retries),
    }
