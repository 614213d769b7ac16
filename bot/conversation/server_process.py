"""
A server process that is kept running: started, started again whenever it ends without
having been asked to, and stopped.

Knows nothing about Redis: a command, the folder it runs in, a lock that it inherits,
and somebody to ask, before each new start, whether that makes sense. What it promises
is that there is never more than one process, and none after `stop`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bot.errors import StoreError

logger = logging.getLogger(__name__)

STOP_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
RAN_WELL_S = 60.0  # so long that the next end is not a consequence of the last one

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


class ServerProcess:
    """
    A thread of its own starts the process, every time, and waits for its end, because
    the kernel's signal at the parent's death follows the thread that forked.

    `before_restart` is called in that thread; it returns what an operator should look
    at, and raises StoreError when it is of no use to start the server again.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        lock: int,
        before_restart: Callable[[], str],
    ) -> None:
        self.ended = threading.Event()  # for the first time
        self.how_it_ended = ""
        self.failed: str | None = None  # why it is not started any more
        self._command = command
        self._folder = folder
        self._lock = lock
        self._before_restart = before_restart
        self._process: subprocess.Popen[bytes] | None = None
        self._launching = threading.Lock()
        self._decided = threading.Event()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, name="chorus-redis", daemon=True
        )
        self._keeper.start()

    def keep_running(self) -> None:
        """The first start went well: from now on start it again when it ends."""
        self._decided.set()

    def stop(self) -> None:
        """Ask it to save and end; kill it when it does not."""
        with self._launching:
            self._stopping.set()
            self._decided.set()
            process = self._process
        if process is not None:
            process.terminate()
        self._keeper.join(STOP_S)
        if process is not None and self._keeper.is_alive():
            logger.warning("the server did not stop in %g s and is killed", STOP_S)
            process.kill()
        self._keeper.join()

    def _keep(self) -> None:
        pauses = _pauses()
        while True:
            began = time.monotonic()
            self.how_it_ended = self._run()
            if time.monotonic() - began >= RAN_WELL_S:
                pauses = _pauses()
            self.ended.set()
            self._decided.wait()
            if self._stopping.is_set() or not self._restarts_after(next(pauses)):
                return

    def _run(self) -> str:
        """Return how it ended."""
        try:
            with self._launching:
                if self._stopping.is_set():
                    return "stopped before it began"
                self._process = self._launch()
        except OSError as error:
            return f"could not be run: {error.strerror}"
        code = self._process.wait()
        if code < 0:
            return f"signal {-code}, {signal.strsignal(-code)}"
        return f"exit code {code}"

    def _restarts_after(self, pause_s: float) -> bool:
        advice = self._advice()
        if advice is None:
            logger.error(
                "%s: the server ended (%s) and is not started again: %s",
                self._folder,
                self.how_it_ended,
                self.failed,
            )
            return False
        logger.warning(
            "%s: the server ended (%s) and is started again in %g s; %s",
            self._folder,
            self.how_it_ended,
            pause_s,
            advice,
        )
        return not self._stopping.wait(pause_s)

    def _advice(self) -> str | None:
        try:
            return self._before_restart()
        except StoreError as error:
            self.failed = str(error)
            return None
        except OSError as error:  # a look that failed is no reason to give up
            return f"then {error}"

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


def _pauses() -> Iterator[float]:
    """Yield how long to wait before each start again: not at all, then ever longer."""
    yield 0
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_S)
