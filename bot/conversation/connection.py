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
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import PRIMARY

from bot.conversation.batch import Batch
from bot.errors import StoreError

BLOCK_MS = 2_000  # the longest time that a command on `blocking` may ask to wait
TIMEOUT_S = 5.0
SENTINEL_TIMEOUT_S = 1.0  # there are others to ask
RETRIES = 3
CONNECTIONS = 50  # to each server
READERS = 1024  # one for each shard there can be

# What redis-py raises: most of it, but not all, has RedisError as its base.
REDIS_ERRORS = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    exceptions.ChildDeadlockedError,
    exceptions.IncorrectPolicyType,
)

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
        self.clustered = place.kind == "cluster"
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
            clusters = [_cluster(place, options) for options in (commands, blocking)]
            self._closing += [cluster.close_connections for cluster in clusters]
            self.commands, self.blocking = clusters
            return
        if place.kind == "sentinel":
            sentinel = _sentinel(place)
            self._closing.append(sentinel.aclose)
            clients = [
                _primary(sentinel, place, options) for options in (commands, blocking)
            ]
        else:
            clients = [_server(options) for options in (commands, blocking)]
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

    def script(self, lua: str) -> Script:
        """Return the script as a function of `keys` (of one slot) and `args`."""
        client: Any = self.commands
        written = lua.encode()
        sha = hashlib.sha1(written, usedforsecurity=False).hexdigest()

        async def run(
            *, keys: Sequence[str | bytes] = (), args: Sequence[str | bytes | int] = ()
        ) -> Any:
            if self._batch is not None:
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


# One server


def _server(options: Mapping[str, Any]) -> Redis:
    pool: Any = BlockingConnectionPool(**{"timeout": TIMEOUT_S, **options})
    pool.make_connection()  # refuses options that it does not know; opens nothing
    return Redis.from_pool(pool)


# The primary that Sentinels name


class _PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, as the pool of one server does."""


class _AsksAgain:
    """
    A connection that is lost in the middle of a command is made to whoever is the
    primary by then. redis-py's goes back to the old one, for all its retries (8.1.0).
    """

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        connection: Any = self
        if not connection.is_connected:
            await connection._connect_retry()  # noqa: SLF001 (connect() without retries)
        parent: Any = super()
        await parent.send_packed_command(*args, **options)


class _PrimaryConnection(_AsksAgain, SentinelManagedConnection):
    pass


class _PrimaryTlsConnection(_AsksAgain, SentinelManagedSSLConnection):
    pass


def _sentinel(place: Place) -> Sentinel:
    secure = {
        name: value for name, value in place.options.items() if name.startswith("ssl_")
    }
    return Sentinel(  # type: ignore[no-untyped-call]  # the library's signature
        place.hosts,
        sentinel_kwargs={
            **place.sentinel_login,
            **secure,
            "ssl": place.tls,
            "socket_timeout": SENTINEL_TIMEOUT_S,
            "socket_connect_timeout": SENTINEL_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        },
    )


def _primary(sentinel: Sentinel, place: Place, options: Mapping[str, Any]) -> Redis:
    client: Redis = sentinel.master_for(
        place.service,
        connection_pool_class=_PrimaryPool,
        connection_class=_PrimaryTlsConnection if place.tls else _PrimaryConnection,
        **{"timeout": TIMEOUT_S, **options},
    )
    pool: Any = client.connection_pool
    pool.make_connection()
    return client


# A Cluster


class _Cluster(RedisCluster):
    """
    redis-py's client without what keeps it from outliving the loss of a primary, or
    lets one shard's trouble reach the others (all of it in 8.1.0).
    """

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        # A node's pool raises when it is empty, so whoever comes waits outside. More
        # than that: looking at the cluster takes connections too.
        super().__init__(max_connections=2 * max_connections, **options)
        self._room: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(max_connections)
        )

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)
        except (KeyError, AttributeError) as error:
            # For a slot that no node has, and for one that is just moving to a node
            # that had none so far.
            self._initialize = True
            raise exceptions.ClusterError("no known node serves this slot") from error

    async def _execute_command(
        self, target_node: ClusterNode, *args: Any, **options: Any
    ) -> Any:
        room = self._room[target_node.name]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await room.acquire()
        except TimeoutError as error:
            # The only ConnectionError after which it does not try again.
            raise exceptions.MaxConnectionsError("no connection is free") from error
        try:
            return await super()._execute_command(target_node, *args, **options)
        finally:
            room.release()

    async def initialize(self, *args: Any, **options: Any) -> Self:
        nodes = self.nodes_manager.startup_nodes
        try:
            await self._look(*args, **options)
        except exceptions.RedisClusterException:
            # Nobody whom it has met answers. The URL may say names whose addresses
            # have changed.
            first = {node.name: node for node in self.startup_nodes}
            if first.keys() <= nodes.keys():
                raise
            nodes |= first
            await self._look(*args, **options)
        return self

    async def _look(self, *args: Any, **options: Any) -> None:
        """Look at the cluster with the help of a primary that answers."""
        nodes = self.nodes_manager
        for attempt in count(1):
            try:
                await super().initialize(*args, **options)
                break
            except IndexError as error:
                raise exceptions.RedisClusterException(
                    "no node of it holds any slots"
                ) from error
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                # It asks the first one what commands there are, dead or alive.
                primaries = nodes.get_nodes_by_server_type(PRIMARY)
                if attempt >= len(primaries):
                    raise
                nodes.move_node_to_end_of_cached_nodes(primaries[0].name)

    async def _determine_slot(self, command: str, *args: Any) -> int:
        # It would ask the default node for the keys of these, each time, and not look
        # for another one when that is dead.
        if command in {"XREAD", "XREADGROUP"}:
            streams = args[args.index(b"STREAMS") + 1 :]
            keys = streams[: len(streams) // 2]
            return await super()._determine_slot("EVALSHA", "", len(keys), *keys)
        return await super()._determine_slot(command, *args)

    async def aclose(self) -> None:
        # It calls this for a new look at the cluster, too, which would cut off the
        # commands that are on their way to other nodes.
        self._initialize = True

    async def close_connections(self) -> None:
        self._initialize = False  # or it would take them for closed
        await super().aclose()


def _cluster(place: Place, options: Mapping[str, Any]) -> _Cluster:
    return _Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in place.hosts],
        require_full_coverage=False,
        ssl=place.tls,
        **options,
    )


# URLs


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a URL says; `options` and `sentinel_login` in redis-py's words."""

    kind: Literal["server", "sentinel", "cluster"]
    options: Mapping[str, Any]
    tls: bool = False
    hosts: Sequence[tuple[str, int]] = ()
    service: str = ""
    sentinel_login: Mapping[str, Any] = field(default_factory=dict)


def without_password(url: str) -> str:
    """Return the URL as messages may show it."""
    parts = _split(url)
    hidden = f"{parts.scheme}://…"
    try:
        for host in parts.hosts:
            _ = urlsplit(f"//{host}").port  # raises when it is no number
    except ValueError:
        return hidden
    # A password with / ? or # in it ends up behind the host.
    if not parts.scheme or parts.fragment or "@" in parts.path + parts.query:
        return hidden
    return f"{parts.scheme}://{','.join(parts.hosts)}{parts.path}"


def read_url(url: str) -> Place:
    where = without_password(url)
    parts = _split(url)
    transport, _, kind = parts.scheme.partition("+")
    try:
        if where.endswith("…") or (kind and transport not in {"redis", "rediss"}):
            raise ValueError(where)  # noqa: TRY301 (the same sentence)
        if kind == "sentinel":
            return _read_sentinel(parts, where)
        if kind == "cluster":
            return _read_cluster(parts, where)
        return Place(kind="server", options={**parse_url(url)})
    except ValueError as error:
        raise StoreError(
            f"redis.url: {where!r}: not a Redis URL; write redis://host:6379/0, "
            f"rediss://…, unix:///path, redis+sentinel://host:26379/service or "
            f"redis+cluster://host:6379, with user and password percent-encoded"
        ) from error


def _read_sentinel(parts: _Parts, where: str) -> Place:
    hosts, options = _hosts(parts, where, default_port=26379)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise StoreError(
            f"redis.url: {where!r}: no service name, by which Sentinels know the "
            f"primary; write redis+sentinel://host:26379/service"
        )
    if database:
        if not database.isdecimal():
            raise StoreError(
                f"redis.url: {where!r}: the database {database!r} is not a number; "
                f"write redis+sentinel://host:26379/service/0"
            )
        options["db"] = int(database)
    login = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    return Place(
        kind="sentinel",
        options=options,
        tls=parts.scheme.startswith("rediss"),
        hosts=hosts,
        service=unquote(service),
        sentinel_login=login,
    )


def _read_cluster(parts: _Parts, where: str) -> Place:
    hosts, options = _hosts(parts, where, default_port=6379)
    if parts.path.strip("/") not in {"", "0"} or options.pop("db", 0):
        raise StoreError(
            f"redis.url: {where!r}: a Cluster has no numbered databases; end it after "
            f"the hosts"
        )
    return Place(
        kind="cluster",
        options=options,
        tls=parts.scheme.startswith("rediss"),
        hosts=hosts,
    )


def _hosts(
    parts: _Parts, where: str, *, default_port: int
) -> tuple[Sequence[tuple[str, int]], dict[str, Any]]:
    """Return the hosts with their ports, and what else redis-py reads in the URL."""
    transport = parts.scheme.partition("+")[0]
    found: list[dict[str, Any]] = [
        {**parse_url(f"{transport}://{parts.login}{host}?{parts.query}")}
        for host in parts.hosts
    ]
    if not all("host" in one for one in found):
        raise StoreError(
            f"redis.url: {where!r}: a host is missing; write "
            f"{parts.scheme}://host:{default_port},host2:{default_port}"
        )
    hosts = [(one.pop("host"), one.pop("port", default_port)) for one in found]
    options = found[0]
    options.pop("connection_class", None)
    return hosts, options


class _Parts(NamedTuple):
    scheme: str
    login: str  # with its @
    hosts: Sequence[str]
    path: str
    query: str
    fragment: str


def _split(url: str) -> _Parts:
    """Split it as urlsplit does, which takes no several hosts with IPv6 among them."""
    scheme, found, rest = url.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    login, at, hosts = netloc.rpartition("@")
    tail = urlsplit(f"//{rest[len(netloc) :]}")
    return _Parts(
        scheme if found else "",
        login + at,
        hosts.split(","),
        tail.path,
        tail.query,
        tail.fragment,
    )


# What went wrong

# The first line whose class fits and whose word is in the message says it.
_TOLD: Sequence[tuple[tuple[type[Exception], ...], str, str]] = (
    (
        (exceptions.ResponseError, exceptions.ConnectionError),
        "already authenticated",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "Authentication required",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "invalid username-password",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (exceptions.AuthenticationError, exceptions.AuthorizationError),
        "",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (MasterNotFoundError,),
        "auth:",
        "a Sentinel refused the user or password; correct ?sentinel_password=…",
    ),
    (
        (MasterNotFoundError,),
        "network:",
        "not all Sentinels can be reached, and none knows a primary; start them",
    ),
    (
        (MasterNotFoundError,),
        "",
        (
            "no Sentinel knows a primary that is up; correct the service in redis.url, "
            "or wait until one has taken over"
        ),
    ),
    (
        (exceptions.NoPermissionError,),
        "",
        "this user may not do what Chorus needs ({said}); extend its ACL",
    ),
    (
        (exceptions.BusyLoadingError,),
        "",
        "still loading its data; try again in a moment",
    ),
    (
        (exceptions.ConnectionError, exceptions.TimeoutError),
        "",
        "cannot be reached ({said}); start it, or correct redis.url",
    ),
    (
        (exceptions.OutOfMemoryError,),
        "",
        "out of memory, so nothing can be kept; raise its maxmemory",
    ),
    (
        (exceptions.ReadOnlyError, exceptions.MasterDownError),
        "",
        "a replica that cannot be written; name the primary in redis.url",
    ),
    (
        (exceptions.ResponseError,),
        "MISCONF",
        "cannot write to its disk ({said}); free some space on it",
    ),
    (
        (exceptions.ResponseError,),
        "cluster support disabled",
        "not a Cluster; write redis:// instead of redis+cluster://",
    ),
    (
        (exceptions.MovedError,),
        "",
        "a node of a Cluster; write redis+cluster:// instead of redis://",
    ),
    (
        (exceptions.ClusterError, exceptions.SlotNotCoveredError),
        "",
        "a part of the Cluster is down ({said}); see its CLUSTER INFO",
    ),
    (REDIS_ERRORS, "", "answered with {kind} ({said}); see its log"),
)


def translated(error: Exception, where: str) -> StoreError:
    """Say in one sentence what is wrong with the Redis at `where`."""
    error = _reason(error)
    kind = type(error).__name__
    said = " ".join(str(error).split()) or kind
    told = next(
        sentence
        for classes, word, sentence in _TOLD
        if isinstance(error, classes) and word in said
    )
    return StoreError(f"redis.url: {where!r}: {told.format(said=said, kind=kind)}")


def _reason(error: Exception) -> Exception:
    """Look behind "cannot be connected", the Cluster client's word for everything."""
    reason = error.__cause__ or error.__context__
    if isinstance(error, exceptions.RedisClusterException) and isinstance(
        reason, REDIS_ERRORS
    ):
        return _reason(reason)
    return error
