"""
Pacing: how often a connector may do something, and when it has to wait.

A budget is a token bucket with a name, such as a chat's or a method's. The service's
own word (Retry-After) closes a budget for as long as it says; no other budget notices.
Knows neither services nor what is paced. Trust that whoever waits longest goes first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

REMEMBERED = 10_000  # budgets, at most; one that is forgotten begins full again


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`times` at once, and `times` again over `per_s` seconds."""

    name: str
    times: float
    per_s: float


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    closed_until: float = 0.0


class Pace:
    """The budgets of one connector."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def wait(self, *budgets: Budget) -> None:
        """Wait until every budget has room, and take it."""
        pause = self.wait_s(*budgets)
        # Taken now, so that nobody who comes later gets it.
        self._take(budgets, 1)
        try:
            while pause > 0:
                await self._sleep(pause)
                pause = max(map(self._closed_s, budgets))
        except BaseException:
            self._take(budgets, -1)
            raise

    def now(self, *budgets: Budget, leave: float = 0) -> bool:
        """Take room if there is some now, and `leave` more for what matters more."""
        if self.wait_s(*budgets, leave=leave) > 0:
            return False
        self._take(budgets, 1)
        return True

    def wait_s(self, *budgets: Budget, leave: float = 0) -> float:
        """Return in how many seconds every budget will have room."""
        return max((self._wait_s(budget, leave) for budget in budgets), default=0.0)

    def close(self, budget: Budget, seconds: float) -> None:
        """Let nothing through for so long: the service said so."""
        bucket = self._bucket(budget)
        bucket.closed_until = max(bucket.closed_until, self._clock() + seconds)

    def _wait_s(self, budget: Budget, leave: float) -> float:
        bucket = self._bucket(budget)
        missing = 1 + min(leave, budget.times - 1) - bucket.left
        refilled_s = missing * budget.per_s / budget.times
        return max(refilled_s, self._closed_s(budget))

    def _closed_s(self, budget: Budget) -> float:
        return max(0.0, self._bucket(budget).closed_until - self._clock())

    def _take(self, budgets: tuple[Budget, ...], times: int) -> None:
        for budget in budgets:
            self._bucket(budget).left -= times

    def _bucket(self, budget: Budget) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(budget.name, _Bucket(budget.times, now))
        self._buckets.move_to_end(budget.name)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        gained = (now - bucket.at) * budget.times / budget.per_s
        bucket.left = min(budget.times, bucket.left + gained)
        bucket.at = now
        return bucket
