"""
Shows how far long steps have come, on standard error.

On a terminal: bars with an estimate, gone when they are done. Elsewhere: a plain line
when a step has taken a second, and one every ten seconds. Knows nothing about steps.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_FIRST_LINE_S = 1.0
_NEXT_LINE_S = 10.0


class StepProgress:
    """A `bot.interfaces.Progress`; may be called from any thread."""

    def __init__(self) -> None:
        self._shown: _Bars | _Lines = _Bars() if sys.stderr.isatty() else _Lines()

    def __call__(self, step: str, done: int, total: int | None) -> None:
        self._shown.show(step, done, total)

    def end(self) -> None:
        """Stop showing what has been told so far; a later step begins anew."""
        self._shown.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


class _Bars:
    """One bar at a time: steps follow each other, and some lie inside others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, step: str, done: int, total: int | None) -> None:
        with self._lock:
            bars = self._bars = self._bars or _started_bars()
            if step not in self._tasks:
                self._tasks[step] = bars.add_task(step, total=total)
            finished = total is not None and done >= total
            for task in self._tasks.values():
                shown = task == self._tasks[step] and not finished
                bars.update(task, visible=shown)
            bars.update(self._tasks[step], completed=done, total=total)

    def end(self) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars = None
            self._tasks.clear()


def _started_bars() -> Progress:
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bars.start()
    return bars


@dataclass(slots=True)
class _Step:
    began: float
    told: float | None = None


class _Lines:
    """Plain lines: nothing for steps that are over within a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, _Step] = {}
        self._current: str | None = None
        self._timer: threading.Timer | None = None

    def show(self, step: str, done: int, total: int | None) -> None:
        with self._lock:
            known = self._steps.setdefault(step, _Step(began=time.monotonic()))
            if step != self._current:
                self._begin(step)
            if total is not None and done >= total:
                self._finish(step)
            elif known.told and time.monotonic() - known.told > _NEXT_LINE_S:
                known.told = time.monotonic()
                _tell(f"{step} … {_so_far(known, done, total)}")

    def end(self) -> None:
        with self._lock:
            self._forget_timer()
            self._steps.clear()

    def _begin(self, step: str) -> None:
        """The step before it is over, or goes on when it is told again."""
        self._forget_timer()
        self._current = step
        self._timer = threading.Timer(_FIRST_LINE_S, self._announce, [step])
        self._timer.daemon = True
        self._timer.start()

    def _finish(self, step: str) -> None:
        self._forget_timer()
        del self._steps[step]

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._current = None

    def _announce(self, step: str) -> None:
        with self._lock:
            known = self._steps.get(step)
            if self._current == step and known is not None and known.told is None:
                known.told = time.monotonic()
                _tell(f"{step} …")


def _so_far(step: _Step, done: int, total: int | None) -> str:
    if total is None or not done:
        return str(done)
    left_s = (time.monotonic() - step.began) / done * (total - done)
    return f"{done} of {total}, about {left_s:.0f} s left"


def _tell(line: str) -> None:
    click.echo(line, err=True)
