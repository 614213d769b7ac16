"""
Clients for one server, for the primary that Sentinels name, and for a Cluster.

redis-py's, without what keeps them from outliving the loss of a server, or lets one
shard's trouble reach the others; each correction says what is wrong in 8.1.0. Knows
nothing about URLs and what is done with a client.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from typing import Any, Self

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.cluster import PRIMARY

from bot.conversation.redis_urls import Place

TIMEOUT_S = 5.0
SENTINEL_TIMEOUT_S = 1.0  # there are others to ask

# One server


def one_server(options: Mapping[str, Any]) -> Redis:
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


def sentinels(place: Place) -> Sentinel:
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


def primary_of(sentinel: Sentinel, place: Place, options: Mapping[str, Any]) -> Redis:
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


class Cluster(RedisCluster):
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


def cluster(place: Place, options: Mapping[str, Any]) -> Cluster:
    return Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in place.hosts],
        require_full_coverage=False,
        ssl=place.tls,
        **options,
    )
