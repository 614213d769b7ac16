"""
The inference thread: where generator and plugins compute, one job at a time.

Knows nothing about what they compute. A job that outlasts its limit cannot be killed
in Python, so its thread is left to itself (it is a daemon) and a fresh one takes over
the jobs behind it: one hanging plugin never stops the bot.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bot.errors import ChorusError, PluginError

HANGS = 3  # of one plugin, before it is left out for good

Result = TypeVar("Result")


class Overdue(ChorusError):
    """A job ran longer than its limit."""


class LeftOut(ChorusError):
    """A plugin that hung too often was not asked."""


@dataclass(frozen=True, slots=True)
class _Job:
    compute: Callable[[], Any]
    started: Callable[[], object]
    result: Future[Any]

    def run(self) -> None:
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.started()
            self.result.set_result(self.compute())
        # A stranger's code runs here; whatever it raises belongs to its caller.
        except BaseException as error:  # noqa: BLE001
            self.result.set_exception(error)


_Jobs = queue.SimpleQueue[_Job | None]


class InferenceThread:
    """Runs jobs in order. The clock of a limit starts when the job does."""

    def __init__(self) -> None:
        self._jobs = _start()
        self.hangs: Counter[str] = Counter()
        """How often each plugin was given up."""

    async def run(
        self, compute: Callable[[], Result], timeout_s: float | None = None
    ) -> Result:
        """
        Return what `compute()` returns, or raise what it raises; Overdue after
        `timeout_s`. A cancelled caller's job is skipped if it has not begun.
        """
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        job: Future[Result] = Future()
        self._jobs.put(
            _Job(compute, lambda: loop.call_soon_threadsafe(started.set), job)
        )
        waiting = asyncio.wrap_future(job)
        try:
            await started.wait()
            jobs = self._jobs
            await asyncio.wait({waiting}, timeout=timeout_s)
        finally:
            job.cancel()
        if not waiting.done():
            self._replace(jobs)
            raise Overdue(f"no answer within {timeout_s:g} s")
        return await waiting

    def _replace(self, abandoned: _Jobs) -> None:
        if abandoned is not self._jobs:
            return
        self._jobs = _start()
        while True:
            try:
                self._jobs.put(abandoned.get_nowait())
            except queue.Empty:
                break
        abandoned.put(None)


@dataclass(slots=True)
class Questions:
    """Asks a turn's plugins one at a time, and keeps what went wrong."""

    inference: InferenceThread
    timeout_s: float
    problems: list[str] = field(default_factory=list)

    async def ask(
        self,
        plugin: str,
        compute: Callable[[], Result],
        check: Callable[[Result], str | None],
    ) -> Result | None:
        """
        Return the plugin's answer, None when it failed or broke its contract: `check`
        says what is wrong with an answer, or None. Each hang leaves a thread behind,
        so a plugin that has hung a few times is asked no more.
        """
        hangs = self.inference.hangs

        def guarded() -> Result:
            # Looked at when its turn has come: it may have hung while this one waited.
            if hangs[plugin] >= HANGS:
                raise LeftOut(f"left out, because it hung {HANGS} times; mend it")
            return compute()

        try:
            answer = await self.inference.run(guarded, self.timeout_s)
            wrong = check(answer)
            if wrong is None:
                return answer
        except Overdue as error:
            hangs[plugin] += 1
            wrong = f"{error}; it was left out of this turn"
        except LeftOut as error:
            wrong = str(error)
        # One of the places that run a stranger's code: whatever it raises is recorded.
        except Exception as error:  # noqa: BLE001
            wrong = f"raised {type(error).__name__}: {error}"
        self.problems.append(str(PluginError(plugin, wrong)))
        return None


async def apart(wait: Callable[[], Result]) -> Result:
    """
    Return what `wait()` returns, on a thread of its own: for what computes nothing
    itself but waits for an engine or a server, which is to stop it when it is late.
    """
    job = _Job(wait, lambda: None, Future())
    threading.Thread(target=job.run, name="waiting", daemon=True).start()
    return await asyncio.wrap_future(job.result)


def _start() -> _Jobs:
    jobs: _Jobs = queue.SimpleQueue()
    threading.Thread(target=_work, args=(jobs,), name="inference", daemon=True).start()
    return jobs


def _work(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        job.run()
