"""
Real Redis processes for tests: one server, a Cluster, or a primary that is watched.

Everything listens on loopback only. A process ends with the `with` block that started
it and, on Linux, with the process that runs the tests, however that one ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from bot.conversation.redis_server import find_binary

HOST = "127.0.0.1"
READY_S = 15.0
PAUSE_S = 0.02
SERVICE = "chorus-test"

# Neither these nor the cluster bus, 10 000 higher, lie among the ports that the kernel
# lends to outgoing connections, so that a killed server finds its port free again.
PORTS = range(12_000, 22_000)
BUS = 10_000

# Between fork and exec, in a process of its own; 1 is PR_SET_PDEATHSIG.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the tests are gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class RedisServer:
    """
    One server on a port of its own. Inside the `with` block it may be killed, stopped
    and started again: it finds its data in `folder` and keeps its port. It lives no
    longer than the thread that starts it, so that is not one of `asyncio.to_thread`.
    The options come last and so replace what is set here.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.log = folder / "server.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it answers (a tenth of a second)."""
        assert not self.running, "it runs already"
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, str(find_binary()), *self._arguments()],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for(self._answers, f"no answer from the server; see {self.log}")

    def kill(self) -> None:
        """Leave it no time for anything (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to save and end (SIGTERM)."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang: connections stay open, nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def ask(self, *command: str | bytes | int) -> Any:
        """Send one command past the code under test; return the answer."""
        with redis.Redis(
            host=HOST,
            port=self.port,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*command)

    def _arguments(self) -> Sequence[str]:
        return [
            *_listening(self),
            *("--appendonly", "yes"),
            # With `everysec` a write that is answered while the file is being synced
            # reaches it up to two seconds later, and a kill before that loses it.
            *("--appendfsync", "always"),
            *("--save", ""),
            *self._options,
        ]

    def _answers(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the server ended with {code}; see {self.log}"
        try:
            self.ask("PING")
        except redis.AuthenticationError:
            return True  # whoever set a password knows it
        except redis.RedisError:
            return False
        return True

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(READY_S)
            self._process = None


class _SentinelProcess(RedisServer):
    """The same binary, watching a primary. It writes what it learns into its file."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        super().__init__(folder)
        self._primary = primary

    def _arguments(self) -> Sequence[str]:
        file = self.folder / "sentinel.conf"
        if not file.exists():
            file.write_text(
                f"sentinel monitor {SERVICE} {HOST} {self._primary.port} 1\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
        return [str(file), "--sentinel", *_listening(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    url: str
    nodes: Sequence[RedisServer]

    def node_of(self, key: str) -> RedisServer:
        """Return the primary that holds the key."""
        slot = key_slot(key.encode())
        first = [first for first, _ in _slot_ranges(len(self.nodes))]
        return self.nodes[sum(start <= slot for start in first) - 1]

    def wait_until_ok(self) -> None:
        """Wait until every node finds it whole: 2 s after one has started again."""
        wait_for(self._is_ok, "the cluster did not come together")

    def _is_ok(self) -> bool:
        return all(
            b"cluster_state:ok" in found
            and b"cluster_known_nodes:%d\r" % len(self.nodes) in found
            and b"cluster_slots_ok:%d\r" % REDIS_CLUSTER_HASH_SLOTS in found
            for found in (node.ask("CLUSTER", "INFO") for node in self.nodes)
        )


@contextmanager
def a_cluster(folder: Path, primaries: int = 3) -> Iterator[Cluster]:
    """Start primaries that share the slots evenly, without replicas (about 3 s)."""
    options = [
        *("--cluster-enabled", "yes"),
        *("--cluster-node-timeout", "1000"),
        *("--cluster-require-full-coverage", "no"),
    ]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(RedisServer(folder / f"node{number}", options))
            for number in range(primaries)
        ]
        for node, (first, last) in zip(nodes, _slot_ranges(primaries), strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            for other in nodes:
                node.ask("CLUSTER", "MEET", HOST, other.port)
        named = ",".join(f"{HOST}:{node.port}" for node in nodes)
        cluster = Cluster(url=f"redis+cluster://{named}", nodes=nodes)
        cluster.wait_until_ok()
        yield cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    url: str
    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer


@contextmanager
def a_sentinel(folder: Path) -> Iterator[Watched]:
    """
    Start a primary, its replica and a Sentinel that has seen both. After the primary
    was killed, the replica takes over within about two seconds.
    """
    with ExitStack() as stack:
        # Or it would wait five seconds for more replicas.
        at_once = ["--repl-diskless-sync-delay", "0"]
        primary = stack.enter_context(RedisServer(folder / "primary", at_once))
        following = ["--replicaof", f"{HOST} {primary.port}"]
        replica = stack.enter_context(RedisServer(folder / "replica", following))
        wait_for(lambda: _follows(replica), "the replica does not follow its primary")
        sentinel = stack.enter_context(_SentinelProcess(folder / "sentinel", primary))
        wait_for(lambda: _sees_replica(sentinel), "the Sentinel saw no replica")
        yield Watched(
            url=f"redis+sentinel://{HOST}:{sentinel.port}/{SERVICE}/0",
            primary=primary,
            replica=replica,
            sentinel=sentinel,
        )


def wait_for(happened: Callable[[], bool], otherwise: str) -> None:
    """Look again and again; these servers tell nobody when they are ready."""
    deadline = time.monotonic() + READY_S
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(PAUSE_S)


def free_port() -> int:
    """Return a port that is free together with the cluster bus's."""
    while True:
        port = secrets.choice(PORTS)
        if _is_free(port) and _is_free(port + BUS):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _listening(server: RedisServer) -> Sequence[str]:
    return [
        *("--bind", HOST),
        *("--port", str(server.port)),
        *("--dir", str(server.folder)),
        *("--logfile", str(server.log)),
        *("--daemonize", "no"),
    ]


def _slot_ranges(parts: int) -> Sequence[tuple[int, int]]:
    borders = [REDIS_CLUSTER_HASH_SLOTS * part // parts for part in range(parts + 1)]
    return [(first, following - 1) for first, following in pairwise(borders)]


def _follows(replica: RedisServer) -> bool:
    return bool(replica.ask("INFO", "replication")["master_link_status"] == "up")


def _sees_replica(sentinel: RedisServer) -> bool:
    seen = sentinel.ask("SENTINEL", "REPLICAS", SERVICE)
    return bool(seen) and all(one[b"master-link-status"] == b"ok" for one in seen)
