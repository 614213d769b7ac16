"""
What to do while the store is gone: wait, say so once, and try again.

Knows nothing about what is tried. Whoever holds something back in memory meanwhile
(an answer, a delivery's outcome) loses nothing by it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bot import metrics
from bot.conversation.state import Unreadable
from bot.errors import StoreError

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
FAILURES = 6  # in a row, before somebody who is not patient leaves

Result = TypeVar("Result")


class Patience:
    """Tries a step until the store answers; if not `patient`, a few times only."""

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]], *, patient: bool
    ) -> None:
        self._sleep = sleep
        self._patient = patient
        self._failing = 0

    async def __call__(self, step: Callable[[], Awaitable[Result]]) -> Result:
        failures = 0
        try:
            while True:
                try:
                    return await step()
                except Unreadable:
                    raise
                except StoreError as error:
                    failures += 1
                    metrics.store_failed()
                    if failures == 1:
                        self._begin(error)
                    if not self._patient and failures >= FAILURES:
                        raise
                await self._sleep(pause_s(failures))
        finally:
            if failures:
                self._end()

    def _begin(self, error: StoreError) -> None:
        """Log the beginning of an outage, not every step that it stops."""
        self._failing += 1
        if self._failing == 1:
            logger.error("everything has to wait for the store: %s", error)

    def _end(self) -> None:
        self._failing -= 1
        if self._failing == 0:
            logger.info("the store is back, or nobody waits for it any more")


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures: 0.1, 0.2, 0.4 … 2 seconds."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)
