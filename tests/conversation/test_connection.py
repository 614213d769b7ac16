"""One Redis, two clients, three kinds of it, and what happens when parts of it die."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import sentinel as sentinels
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from bot.conversation import connection
from bot.conversation.connection import BLOCK_MS, Connection
from bot.conversation.redis_errors import REDIS_ERRORS, translated
from bot.conversation.redis_urls import Place, read_url, without_password
from bot.errors import StoreError
from tests.conversation.redis_processes import (
    HOST,
    SERVICE,
    Cluster,
    RedisServer,
    Watched,
    a_cluster,
    a_sentinel,
    wait_for,
)

pytestmark = pytest.mark.services

KINDS = ("server", "sentinel", "cluster")
SHARDS = ("{s0}", "{s2}", "{s3}")  # one on each of three primaries
ADD = "redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('SCARD', KEYS[1])"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with a_sentinel(tmp_path_factory.mktemp("sentinel")) as started:
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with a_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def urls(server: RedisServer, watched: Watched, cluster: Cluster) -> dict[str, str]:
    return {"server": server.url, "sentinel": watched.url, "cluster": cluster.url}


@pytest.fixture
def a_whole_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """Yield the cluster of the module and mend it for the next test."""
    yield cluster
    for node in cluster.nodes:
        if not node.running:
            node.start()
    cluster.wait_until_ok()


async def soon(action: Callable[[], Awaitable[Any]]) -> Any:
    """Try until Redis is back, as every loop over it does."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await action()
            except StoreError:
                await asyncio.sleep(0.05)


async def add(opened: Connection, key: str, member: str) -> int:
    with opened.translated():
        added: int = await opened.script(ADD)(keys=[key], args=[member])
    return added


async def read(opened: Connection, stream: str, block_ms: int | None = None) -> Any:
    client: Any = opened.blocking
    with opened.translated():
        return await client.xreadgroup("g", "me", {stream: ">"}, block=block_ms)


async def make_stream(opened: Connection, stream: str) -> None:
    client: Any = opened.commands
    await client.xgroup_create(stream, "g", mkstream=True)


async def enter(url: str) -> None:
    async with Connection(url):
        pass


# URLs


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (
            "redis+sentinel://ada:p%40ss@h,[::1]:7/main%2F1/3?sentinel_password=s%2B1",
            Place(
                kind="sentinel",
                hosts=[("h", 26379), ("::1", 7)],
                service="main/1",
                options={"username": "ada", "password": "p@ss", "db": 3},
                sentinel_login={"password": "s+1"},
            ),
        ),
        (
            "rediss+sentinel://h/main?ssl_ca_certs=/ca.pem&sentinel_username=s",
            Place(
                kind="sentinel",
                tls=True,
                hosts=[("h", 26379)],
                service="main",
                options={"ssl_ca_certs": "/ca.pem"},
                sentinel_login={"username": "s"},
            ),
        ),
        (
            "redis+cluster://:pa,s@h:1,h2,[::1]/0?client_name=c",
            Place(
                kind="cluster",
                hosts=[("h", 1), ("h2", 6379), ("::1", 6379)],
                options={"password": "pa,s", "client_name": "c"},
            ),
        ),
        (
            "rediss+cluster://h",
            Place(kind="cluster", tls=True, hosts=[("h", 6379)], options={}),
        ),
        (
            "unix://:p@/run/redis.sock?db=2",
            Place(
                kind="server",
                options={
                    "connection_class": UnixDomainSocketConnection,
                    "path": "/run/redis.sock",
                    "password": "p",
                    "db": 2,
                },
            ),
        ),
    ],
)
def test_a_url_says_where_redis_is(url: str, place: Place) -> None:
    assert read_url(url) == place


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hush@r", "not a Redis URL"),
        ("hush", "not a Redis URL"),
        ("unix+cluster://hush@r", "not a Redis URL"),
        ("redis+twin://hush@r", "not a Redis URL"),
        ("redis://:hush@r:seven", "not a Redis URL"),
        ("redis://:1/hush@r", "not a Redis URL; .* percent-encoded"),
        ("redis://ada:1#hush@r", "not a Redis URL; .* percent-encoded"),
        ("redis+cluster://:hush@r:70000", "not a Redis URL"),
        ("redis+cluster://:hush@r,r2:x", "not a Redis URL"),
        ("redis+cluster://:hush@r,", "a host is missing"),
        ("redis+sentinel://:hush@/main", "a host is missing"),
        ("redis+sentinel://:hush@r:26379", "no service name"),
        ("redis+sentinel://:hush@r/main/one", "database 'one' is not a number"),
        ("redis+cluster://:hush@r/1", "no numbered databases"),
        ("redis+cluster://:hush@r?db=1", "no numbered databases"),
        ("redis://:hush@r?db=one", "not a Redis URL"),
        ("redis://:hush@r?colour=red", "option .* cannot be used .*'colour'"),
        ("redis+cluster://:hush@r?colour=red", "option .* cannot be used .*'colour'"),
        ("redis+sentinel://:hush@r/m?colour=red", "option .* cannot be used"),
    ],
)
def test_a_mistaken_url_is_one_sentence(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as raised:
        Connection(url)

    assert str(raised.value).startswith("redis.url: ")
    assert "\n" not in str(raised.value)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hush@r:7/0", "redis://r:7/0"),
        ("rediss://ada:hush@r", "rediss://r"),
        ("redis://r?password=hush", "redis://r"),
        ("redis://ada:hush@r:seven", "redis://…"),
        ("redis://:hush@[::1]:7", "redis://[::1]:7"),
        ("redis://:1/hush@r", "redis://…"),
        ("redis://:1?hush@r", "redis://…"),
        ("redis://:1#hush@r", "redis://…"),
        ("redis://:hu@sh@r", "redis://r"),
        ("hush@r", "://…"),
        ("unix://:hush@/run/r.sock?db=1", "unix:///run/r.sock"),
        (
            "redis+sentinel://a:hush@r,[::1]:7/main/0?sentinel_password=hush",
            "redis+sentinel://r,[::1]:7/main/0",
        ),
        ("redis+cluster://a:hush@r:1,r:two", "redis+cluster://…"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("url", ["rediss://r", "rediss+sentinel://r/main"])
def test_tls_is_used_where_the_url_asks_for_it(url: str) -> None:
    opened = Connection(url)

    clients: list[Any] = [opened.commands, opened.blocking]
    assert all(
        issubclass(client.connection_pool.connection_class, SSLConnection)
        for client in clients
    )


def test_tls_is_used_for_the_sentinels_and_the_nodes_of_a_cluster() -> None:
    watched: Any = Connection("rediss+sentinel://r/main?ssl_ca_certs=/ca").commands
    cluster: Any = Connection("rediss+cluster://r?ssl_ca_certs=/ca").commands

    (sentinel,) = watched.connection_pool.sentinel_manager.sentinels
    (node,) = cluster.startup_nodes
    assert issubclass(sentinel.connection_pool.connection_class, SSLConnection)
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca"
    assert issubclass(node.connection_class, SSLConnection)


def test_no_url_shortens_the_timeout_of_blocked_reads() -> None:
    opened = Connection("redis://r?socket_timeout=1")

    commands: Any = opened.commands
    blocking: Any = opened.blocking
    assert commands.connection_pool.connection_kwargs["socket_timeout"] == 1
    timeout_s = blocking.connection_pool.connection_kwargs["socket_timeout"]
    assert timeout_s > BLOCK_MS / 1000


# What goes wrong


def test_every_exception_of_the_client_is_translated() -> None:
    raised = [
        kind
        for module in (exceptions, sentinels)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    ]

    untranslated = [kind for kind in raised if not issubclass(kind, REDIS_ERRORS)]

    assert len(raised) > 25
    assert untranslated == []
    for kind in REDIS_ERRORS:
        assert "see its log" in str(translated(kind("broken"), "redis://r"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hush@127.0.0.1:1/0", "127.0.0.1:1/0': cannot be reached"),
        ("unix:///nowhere/redis.sock", "cannot be reached"),
        ("redis+sentinel://:hush@127.0.0.1:1,127.0.0.1:2/m", "Sentinels can be reac"),
        ("redis+cluster://:hush@127.0.0.1:1,127.0.0.1:2", "cannot be reached"),
    ],
)
async def test_a_redis_that_is_not_there_is_one_sentence(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as raised:
        await enter(url)

    assert "\n" not in str(raised.value)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("login", "told"),
    [("", "wants a password"), (":hush@", "refused the user or password")],
)
async def test_a_wrong_password_is_one_sentence(
    tmp_path: Path, login: str, told: str
) -> None:
    options = ["--requirepass", "right", "--cluster-enabled", "yes"]
    with RedisServer(tmp_path, options) as locked:
        for scheme in ("redis", "redis+cluster"):
            with pytest.raises(StoreError, match=told) as raised:
                await enter(f"{scheme}://{login}{HOST}:{locked.port}")
            assert "hush" not in str(raised.value)


async def test_sentinels_have_a_password_of_their_own(watched: Watched) -> None:
    watched.sentinel.ask("ACL", "SETUSER", "bot", "on", ">right", "+@all")
    url = f"{watched.url}?sentinel_username=bot&sentinel_password="

    with pytest.raises(StoreError, match=r"correct \?sentinel_password=…") as raised:
        await enter(f"{url}hush")
    await enter(f"{url}right")

    assert "hush" not in str(raised.value)


async def test_the_wrong_kind_of_url_is_one_sentence(
    server: RedisServer, watched: Watched, cluster: Cluster
) -> None:
    with pytest.raises(StoreError, match=r"not a Cluster; write redis://"):
        await enter(server.url.replace("redis://", "redis+cluster://"))
    with pytest.raises(StoreError, match=r"correct the service in redis\.url"):
        await enter(watched.url.replace(SERVICE, "another"))
    node = cluster.node_of(SHARDS[0])
    async with Connection(node.url) as opened:
        with pytest.raises(StoreError, match=r"write redis\+cluster://"):
            await add(opened, SHARDS[1], "x")


async def test_a_cluster_without_slots_is_one_sentence(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path, ["--cluster-enabled", "yes"]) as empty,
        pytest.raises(StoreError, match="no node of it holds any slots"),
    ):
        await enter(f"redis+cluster://{HOST}:{empty.port}")


# All kinds of it


@pytest.mark.parametrize("kind", KINDS)
async def test_a_script_runs_where_its_keys_are(
    kind: str, urls: dict[str, str]
) -> None:
    async with Connection(urls[kind]) as opened:
        run = opened.script("return {KEYS[1], KEYS[2], ARGV[1]}")

        answers = [
            await run(keys=[f"{shard}:a", f"{shard}:b"], args=[b"\xff"])
            for shard in SHARDS
        ]

    assert answers == [
        [f"{shard}:a".encode(), f"{shard}:b".encode(), b"\xff"] for shard in SHARDS
    ]


def test_the_shards_of_these_tests_are_on_different_primaries(
    cluster: Cluster,
) -> None:
    assert len({cluster.node_of(shard).port for shard in SHARDS}) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_forgot_the_scripts_learns_them_again(
    kind: str,
    server: RedisServer,
    watched: Watched,
    cluster: Cluster,
    urls: dict[str, str],
) -> None:
    async with Connection(urls[kind]) as opened:
        before = [await add(opened, f"{shard}:{kind}", "a") for shard in SHARDS]
        for forgetful in (server, watched.primary, *cluster.nodes):
            forgetful.ask("SCRIPT", "FLUSH")

        after = [await add(opened, f"{shard}:{kind}", "b") for shard in SHARDS]

    assert (before, after) == ([1, 1, 1], [2, 2, 2])


@pytest.mark.parametrize("kind", KINDS)
async def test_more_commands_than_connections_wait_for_their_turn(
    kind: str, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 2)
    async with Connection(urls[kind]) as opened:
        key = f"{SHARDS[0]}:many:{kind}"

        answers = await asyncio.gather(
            *(add(opened, key, str(number)) for number in range(100))
        )

    assert sorted(answers) == list(range(1, 101))


async def test_a_read_that_blocks_ends_empty_and_hinders_no_command(
    urls: dict[str, str],
) -> None:
    async def blocked(kind: str) -> tuple[Any, float, int]:
        stream = f"{SHARDS[0]}:blocked"
        async with Connection(urls[kind]) as opened:
            await make_stream(opened, stream)
            began = time.monotonic()
            reading = asyncio.create_task(read(opened, stream, BLOCK_MS))
            meanwhile = 0
            while not reading.done():
                await add(opened, f"{SHARDS[0]}:meanwhile", "x")
                meanwhile += 1
                await asyncio.sleep(0.01)
            return await reading, time.monotonic() - began, meanwhile

    ended = await asyncio.gather(*(blocked(kind) for kind in KINDS))

    for entries, took_s, meanwhile in ended:
        assert entries == []
        assert took_s >= BLOCK_MS / 1000
        assert meanwhile > 20


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_added_to_a_stream_ends_the_blocking(
    kind: str, urls: dict[str, str]
) -> None:
    stream = f"{SHARDS[1]}:woken"
    async with Connection(urls[kind]) as opened:
        await make_stream(opened, stream)
        reading = asyncio.create_task(read(opened, stream, BLOCK_MS))
        await asyncio.sleep(0)

        await opened.commands.xadd(stream, {"k": "v"})
        ((name, ((_, fields),)),) = await reading

    assert (name, fields) == (stream.encode(), {b"k": b"v"})


async def test_one_read_cannot_span_shards(cluster: Cluster) -> None:
    async with Connection(cluster.url) as opened:
        client: Any = opened.blocking
        with (
            pytest.raises(StoreError, match="must map to the same key slot"),
            opened.translated(),
        ):
            await client.xread(dict.fromkeys(SHARDS, "0"))


# A Cluster that loses a primary


async def test_the_loss_of_a_primary_ends_with_its_return(
    a_whole_cluster: Cluster,
) -> None:
    lost, kept = SHARDS[0], SHARDS[1]
    node = a_whole_cluster.node_of(lost)
    async with Connection(a_whole_cluster.url) as opened:
        for shard in (lost, kept):
            await make_stream(opened, f"{shard}:ready")
        added = [await add(opened, f"{lost}:loss", "before")]

        node.kill()
        with pytest.raises(StoreError, match="cannot be reached") as raised:
            await add(opened, f"{lost}:loss", "lost")
        with pytest.raises(StoreError, match="cannot be reached"):
            await read(opened, f"{lost}:ready")
        # What the lost one leads to does not cut it off.
        reading = asyncio.create_task(read(opened, f"{kept}:ready", BLOCK_MS))
        await asyncio.sleep(0)
        on_others = await add(opened, f"{kept}:loss", "meanwhile")
        node.start()
        entries = await soon(lambda: read(opened, f"{lost}:ready"))
        added.append(
            await soon(lambda: add(opened, f"{lost}:loss", "after, kept its data"))
        )
        read_meanwhile = await reading

    assert "\n" not in str(raised.value)
    assert on_others == 1
    assert (entries, read_meanwhile) == ([], [])
    assert added == [1, 2]


async def test_a_dead_primary_takes_nothing_else_with_it(
    a_whole_cluster: Cluster,
) -> None:
    # The first node is the one that redis-py asks about everything but keys.
    dead, *alive = a_whole_cluster.nodes
    shards = [shard for shard in SHARDS if a_whole_cluster.node_of(shard) is not dead]
    async with Connection(a_whole_cluster.url) as before:
        dead.kill()
        for node in alive:
            node.ask("SCRIPT", "FLUSH")

        async with Connection(a_whole_cluster.url) as after:
            client: Any = before.blocking
            found = [
                [
                    await client.xread({f"{shard}:none": "0"}),
                    await add(before, f"{shard}:dead", "before"),
                    await add(after, f"{shard}:dead", "after"),
                ]
                for shard in shards
            ]
            with pytest.raises(StoreError, match="cannot be reached"):
                await add(after, "{s0}" if "{s0}" not in shards else "{s2}", "x")

    assert found == [[[], 1, 2], [[], 1, 2]]
    for node in alive:
        wait_for(partial(_only_we_ask, node), "connections were left open")


def _only_we_ask(node: RedisServer) -> bool:
    return bool(node.ask("INFO", "clients")["connected_clients"] == 1)


async def test_a_slot_that_no_node_serves_is_one_sentence_and_looked_for_again(
    cluster: Cluster,
) -> None:
    async with Connection(cluster.url) as opened:
        client: Any = opened.commands
        client.nodes_manager.slots_cache.clear()

        with pytest.raises(StoreError, match="a part of the Cluster is down"):
            await add(opened, f"{SHARDS[0]}:slot", "x")

        assert await add(opened, f"{SHARDS[0]}:slot", "x") == 1


async def test_the_hosts_of_the_url_are_asked_when_all_known_ones_are_gone(
    cluster: Cluster,
) -> None:
    async with Connection(cluster.url) as opened:
        client: Any = opened.commands
        known = client.nodes_manager.startup_nodes
        gone = ClusterNode(HOST, 1)
        known.clear()
        known[gone.name] = gone
        client._initialize = True

        assert await add(opened, f"{SHARDS[0]}:moved", "x") == 1


# A primary that is replaced


async def test_a_failover_is_followed(tmp_path: Path) -> None:
    with a_sentinel(tmp_path) as watched:
        async with Connection(watched.url) as opened:
            await make_stream(opened, "ready")
            await read(opened, "ready")
            watched.primary.ask("SADD", "set", "before")
            watched.primary.ask("WAIT", 1, 1000)

            watched.primary.kill()
            with pytest.raises(StoreError):
                await add(opened, "set", "lost")
            added = await soon(lambda: add(opened, "set", "after"))
            entries = await soon(lambda: read(opened, "ready", 10))

    assert added == 2
    assert entries == []


async def test_a_command_leaves_a_primary_that_hangs_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.3)
    with a_sentinel(tmp_path) as watched:
        async with Connection(watched.url) as opened:
            watched.primary.pause()
            wait_for(partial(_took_over, watched), "nobody took over")

            added = await add(opened, "set", "x")

        assert added == 1
        assert watched.replica.ask("SCARD", "set") == 1


def _took_over(watched: Watched) -> bool:
    _, port = watched.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
    return int(port) == watched.replica.port
