"""
Where actions of this process run: on an event loop of their own, or on threads.

Knows nothing about actions. Nobody can take a loop or a thread from what blocks it: a
blocked loop is passed over until it is free again, a blocked thread is left alone, and
there is a limit to both. All threads are daemons: none keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from bot.errors import ChorusError, place_of
from bot.inference import Overdue

MOST_THREADS = 64
MOST_LOOPS = 8
PATIENCE_S = 1.0  # a loop that has not begun something by then is blocked

logger = logging.getLogger(__name__)

# Made where it runs: a coroutine belongs to one loop.
Work = Callable[[], Coroutine[Any, Any, bytes]]


class Crowded(ChorusError):
    """As much runs already, or hangs, as may."""


class Raised(ChorusError):
    """What ran raised `error`, which may be of any kind."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(type(error).__name__)


class _Run:
    """
    One piece of work, which is begun once, or withdrawn before. Its caller waits on one
    event loop, and it runs on another thread.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._caller = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self.is_taken = False  # begun, or withdrawn
        self._task: asyncio.Task[None] | None = None
        # What it raised is a result, too: an interrupt or an exit is not ours to obey.
        self.result: bytes | BaseException | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self.go())

    async def go(self) -> None:
        if not self._take():
            return
        result: bytes | BaseException
        try:
            result = await self._work()
        # A stranger's code runs here; whatever it raises belongs to its caller.
        except BaseException as error:  # noqa: BLE001
            result = error
        with suppress(RuntimeError):  # the caller's loop is closed: nobody waits
            self._caller.call_soon_threadsafe(self._tell, result)

    def withdraw(self) -> bool:
        """Return whether it had not begun, and never will."""
        return self._take()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def is_over_within(self, seconds: float) -> bool:
        # Not asyncio.wait on a concurrent Future, which takes twice as long.
        if self.result is None:
            self._waiting = self._caller.create_future()
            alarm = self._caller.call_later(seconds, self._wake)
            try:
                await self._waiting
            finally:
                alarm.cancel()
        return self.result is not None

    def _take(self) -> bool:
        with self._lock:
            was_taken, self.is_taken = self.is_taken, True
        return not was_taken

    def _tell(self, result: bytes | BaseException) -> None:
        self.result = result
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class ActionThreads:
    """Runs work; a caller that is cancelled, or late, leaves it and hears no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: list[_Loop] = []
        self._threads = _Threads()

    async def on_loop(self, work: Work, timeout_s: float) -> bytes:
        """
        Return what the work returns; Raised for what it raises, Overdue after
        `timeout_s`, Crowded when every loop is blocked. All work shares one loop, to
        which a client may be bound, as long as nothing blocks it.
        """
        while True:
            loop, run = self._free_loop(), _Run(work)
            loop.begin(run)
            try:
                at_first = min(PATIENCE_S, timeout_s)
                if await run.is_over_within(at_first) or run.is_taken:
                    return await _result(run, timeout_s, waited_s=at_first)
                if await run.is_over_within(PATIENCE_S) or not run.withdraw():
                    return await _result(run, timeout_s)
            finally:
                if run.result is None:
                    loop.cancel(run)
            loop.pass_over()

    async def on_thread(self, work: Work, timeout_s: float) -> bytes:
        """Return what the work returns, as `on_loop`, on a thread that it may block."""
        run = _Run(work)
        self._threads.begin(run)
        return await _result(run, timeout_s)

    def close(self) -> None:
        """Let everything end that is not at work; nothing is asked of it afterwards."""
        with self._lock:
            loops, self._loops = self._loops, []
        for loop in loops:
            loop.close()
        self._threads.close()

    def _free_loop(self) -> _Loop:
        with self._lock:
            for loop in self._loops:
                if not loop.blocked:
                    return loop
            if len(self._loops) == MOST_LOOPS:
                raise Crowded(
                    f"all {MOST_LOOPS} event loops are blocked; mend what waits in "
                    "them without await"
                )
            self._loops.append(_Loop())
            return self._loops[-1]


async def _result(run: _Run, timeout_s: float, waited_s: float = 0.0) -> bytes:
    if not await run.is_over_within(timeout_s - waited_s):
        raise Overdue(f"took longer than {timeout_s:g} s")
    assert run.result is not None  # noqa: S101 (it is over)
    if isinstance(run.result, BaseException):
        raise Raised(run.result) from run.result
    return run.result


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.blocked = False
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_say_where)
        threading.Thread(target=self._live, name="actions loop", daemon=True).start()

    def begin(self, run: _Run) -> None:
        self._loop.call_soon_threadsafe(run.begin, self._loop)

    def cancel(self, run: _Run) -> None:
        with suppress(RuntimeError):  # closed: nothing runs there any more
            self._loop.call_soon_threadsafe(run.cancel)

    def pass_over(self) -> None:
        """Say that it is blocked, until it answers again."""
        self.blocked = True
        logger.warning(
            "an action blocks the event loop of all actions; make its run a plain "
            "def, or let it await what it waits for"
        )
        self._loop.call_soon_threadsafe(self._answer)

    def close(self) -> None:
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _answer(self) -> None:
        self.blocked = False

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            try:
                self._loop.run_forever()
            # A task that an action has started may raise SystemExit: not ours to obey.
            except BaseException as error:  # noqa: BLE001
                logger.warning("a task of an action raised %s", place_of(error))
        _end(self._loop)


class _Threads:
    """Threads that are started as they are needed, and used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._started = self._idle = 0

    def begin(self, run: _Run) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < MOST_THREADS:
                self._started += 1
                threading.Thread(target=self._live, name="action", daemon=True).start()
            else:
                raise Crowded(
                    f"{MOST_THREADS} actions run already, or hang; mend what hangs, or "
                    "lower timeout_s"
                )
        self._runs.put(run)

    def close(self) -> None:
        with self._lock:
            for _ in range(self._started):
                self._runs.put(None)
            self._started = self._idle = 0

    def _live(self) -> None:
        # Work is a coroutine, even where it never waits.
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_say_where)
        asyncio.set_event_loop(loop)
        while (run := self._runs.get()) is not None:
            try:
                loop.run_until_complete(run.go())
            # As in a loop of all actions.
            except BaseException as error:  # noqa: BLE001
                logger.warning("a task of an action raised %s", place_of(error))
            with self._lock:
                self._idle += 1
        _end(loop)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """End what an action has left running there."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _say_where(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What an exception says may quote a message: the log is told where it was."""
    error = context.get("exception")
    place = place_of(error) if isinstance(error, BaseException) else ""
    logger.warning("a task of an action failed: %s", place or context.get("message"))
