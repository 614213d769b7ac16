"""
What the embedded server's files and its disk can go through, and what of that which it
acknowledged is still there afterwards.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import redis
from redis.asyncio import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import BusyLoadingError, ResponseError
from redis.retry import Retry

from bot.conversation.redis_errors import translated
from bot.conversation.redis_server import EmbeddedRedis
from bot.errors import StoreError

pytestmark = pytest.mark.services

Fsync = Literal["everysec", "always"]

BURST = 500  # acknowledged writes between two kills
KILLS = 5
WRITERS = 16


def connected(server: EmbeddedRedis, tries: int = 500) -> redis.Redis:
    """Return a client that waits for a server which is being started again."""
    return redis.Redis.from_url(
        server.url,
        decode_responses=True,
        retry=Retry(ConstantBackoff(0.02), tries),
        retry_on_error=[BusyLoadingError],
    )


def kill(server: EmbeddedRedis) -> None:
    os.kill(int((server.folder / "redis.pid").read_text()), signal.SIGKILL)


def all_that_is_kept(folder: Path) -> set[str]:
    """Start a server there; return its keys."""
    with EmbeddedRedis(folder) as server, connected(server) as client:
        return set(client.keys("*"))


# Killed


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_a_server_killed_in_a_burst_loses_nothing_that_it_acknowledged(
    quick_disk: Path, fsync: Fsync
) -> None:
    kills = 0
    acknowledged: set[str] = set()

    async def write(writer: int) -> None:
        """Write until every kill was survived by another burst."""
        nonlocal kills
        number = 0
        async with Redis.from_url(server.url, retry=None) as client:
            while len(acknowledged) < BURST * (KILLS + 1):
                key = f"{writer}:{number}"
                try:
                    await client.set(key, "v" * 100)
                except (redis.ConnectionError, BusyLoadingError):
                    await asyncio.sleep(0.01)  # or the loop is all that runs here
                    continue
                acknowledged.add(key)
                number += 1
                if len(acknowledged) == BURST * (kills + 1) and kills < KILLS:
                    kill(server)
                    kills += 1

    with EmbeddedRedis(quick_disk, fsync=fsync) as server:
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(write(writer))
        with connected(server) as client:
            lost = acknowledged - set(client.keys("*"))
    lost_at_the_stop = acknowledged - all_that_is_kept(quick_disk)

    print(  # noqa: T201 (`pytest -s` shows the figures)
        f"\nappendfsync {fsync}: {len(acknowledged)} writes acknowledged, "
        f"{kills} kills, {len(lost)} lost"
    )
    assert kills == KILLS
    assert not lost
    assert not lost_at_the_stop


def test_a_rewrite_cut_short_by_a_crash_leaves_no_copy_of_what_people_wrote(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with connected(server) as client:
            for number in range(3000):
                client.set(f"key{number}", f"a secret {os.urandom(500).hex()}")
            client.config_set("rdb-key-save-delay", 1000)  # microseconds
            client.bgrewriteaof()
            while not _secrets_in(tmp_path.glob("temp-*")):
                client.ping()
            client.config_set("rdb-key-save-delay", 0)
            kill(server)
            client.flushall()
            client.bgrewriteaof()
            while _rewrites(client):
                pass

        assert not _secrets_in(tmp_path.rglob("*"))


def _secrets_in(files: Iterator[Path]) -> bool:
    return any(b"a secret" in file.read_bytes() for file in files if file.is_file())


def _rewrites(client: redis.Redis) -> bool:
    found = client.info("persistence")
    return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


# Damaged


def _filled(folder: Path) -> tuple[Path, Path]:
    """
    Return the files of a server that kept ten things: the first half in what a rewrite
    made, the second in the log of commands after it.
    """
    with EmbeddedRedis(folder) as server, connected(server) as client:
        for number in range(5):
            client.set(f"key{number}", "v" * 50)
        client.bgrewriteaof()
        while _rewrites(client):
            pass
        for number in range(5, 10):
            client.set(f"key{number}", "v" * 50)
    (base,) = folder.rglob("*.base.*")
    (commands,) = folder.rglob("*.incr.aof")
    return base, commands


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x41
    file.write_bytes(content)


def keys(until: int) -> set[str]:
    return {f"key{number}" for number in range(until)}


@pytest.mark.parametrize("torn", [1, 40, 80])
def test_a_torn_end_costs_only_the_write_that_was_torn(
    tmp_path: Path, torn: int
) -> None:
    _, commands = _filled(tmp_path)
    commands.write_bytes(commands.read_bytes()[:-torn])

    kept = all_that_is_kept(tmp_path)

    assert kept == keys(9)


def test_the_repair_that_is_told_saves_all_that_stood_before_the_damage(
    tmp_path: Path,
) -> None:
    folder, copy = tmp_path / "its folder", tmp_path / "copy"
    _, commands = _filled(folder)
    _flip(commands, commands.read_bytes().index(b"key7") - 4)
    damaged = commands.read_bytes()

    with pytest.raises(StoreError, match="damaged in the middle") as raised:
        all_that_is_kept(folder)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.sock"))
    repair = shlex.split(str(raised.value).partition("with: ")[2])
    subprocess.run(repair, input=b"y\n", check=True, capture_output=True)

    assert all_that_is_kept(folder) == keys(7)
    assert (copy / commands.relative_to(folder)).read_bytes() == damaged
    with pytest.raises(StoreError, match="damaged in the middle"):
        all_that_is_kept(copy)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda base, _: _flip(base, 0), id="its first byte"),
        pytest.param(
            lambda base, _: _flip(base, len(base.read_bytes()) // 2), id="bit"
        ),
        pytest.param(lambda base, _: os.truncate(base, 100), id="torn"),
        pytest.param(lambda base, _: base.unlink(), id="gone"),
        pytest.param(lambda _, commands: commands.unlink(), id="no commands"),
        pytest.param(
            lambda base, _: _flip(base.parent / "appendonly.aof.manifest", 3),
            id="manifest",
        ),
        pytest.param(
            lambda _, commands: _flip(commands, commands.read_bytes().index(b"SET")),
            id="no such command",
        ),
    ],
)
def test_what_no_tool_repairs_is_told_and_nothing_is_changed(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    base, commands = _filled(tmp_path)
    damage(base, commands)
    damaged = _contents(base.parent)

    with pytest.raises(StoreError, match="damaged beyond repair") as raised:
        all_that_is_kept(tmp_path)

    assert _contents(base.parent) == damaged
    assert "\n" not in str(raised.value)
    assert "vvv" not in str(raised.value)


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Full


class SmallDisk:
    """16 MB, some of it taken by `other`, which somebody may delete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._other = folder / "other"
        self._other.write_bytes(bytes(8 * 1024 * 1024))

    def free_some_space(self) -> None:
        self._other.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def write_until_refused(client: redis.Redis) -> tuple[set[str], redis.RedisError]:
    """Return what was acknowledged, and what was said to the first that was not."""
    acknowledged: set[str] = set()
    while True:
        key = f"key{len(acknowledged)}"
        try:
            client.set(key, "v" * 2000)
        except redis.RedisError as error:
            return acknowledged, error
        acknowledged.add(key)


@pytest.mark.parametrize("stopped", ["before there is space", "after"])
def test_a_disk_that_fills_up_refuses_writes_and_loses_none(
    disk: SmallDisk, stopped: str
) -> None:
    folder = disk.folder / "redis"
    with EmbeddedRedis(folder) as server, connected(server, tries=0) as client:
        acknowledged, refused = write_until_refused(client)
        readable = client.get("key0")
        if stopped == "after":
            disk.free_some_space()
    if stopped == "before there is space":
        disk.free_some_space()

    assert isinstance(refused, ResponseError)
    assert "MISCONF" in str(refused)
    assert "cannot write to its disk" in str(translated(refused, "here"))
    assert readable is not None
    assert len(acknowledged) > 1000
    assert all_that_is_kept(folder) == acknowledged


def test_a_bot_goes_on_by_itself_when_there_is_space_again(disk: SmallDisk) -> None:
    with EmbeddedRedis(disk.folder / "redis") as server, connected(server) as client:
        acknowledged, _ = write_until_refused(client)
        disk.free_some_space()

        while _cannot_write(client):
            pass

        client.set("after", "v")
        assert set(client.keys("*")) == acknowledged | {"after"}


def _cannot_write(client: redis.Redis) -> bool:
    return bool(client.info("persistence")["aof_last_write_status"] != "ok")


def test_a_server_that_gives_up_on_a_full_disk_is_back_when_there_is_space(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk.folder / "redis"
    with EmbeddedRedis(folder, fsync="always") as server:
        # It ends rather than acknowledge what it could not write.
        with connected(server, tries=0) as client:
            acknowledged, refused = write_until_refused(client)
        with connected(server) as client:
            still_there = set(client.keys("*"))
            disk.free_some_space()
            client.set("after", "v")

    assert isinstance(refused, redis.ConnectionError)
    assert still_there == acknowledged
    assert "the disk is full; free some space" in caplog.messages[0]
    assert all_that_is_kept(folder) == acknowledged | {"after"}
