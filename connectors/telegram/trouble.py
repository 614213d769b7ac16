"""
Trouble: what keeps the bot from hearing anything, told once and for /ready.

A sentence that comes and goes, as with two programs that take the updates from each
other, is not logged again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

TOLD_AGAIN_S = 600.0


class Trouble:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        self.now: str | None = None

    def say(self, sentence: str) -> None:
        is_new = sentence != self.now
        self.now = sentence
        before = self._logged.get(sentence)
        if is_new and (before is None or self._clock() - before >= TOLD_AGAIN_S):
            self._logged[sentence] = self._clock()
            logger.warning("%s", sentence)

    def over(self) -> None:
        if self.now is not None:
            logger.info("telegram: it is over; the bot hears again")
        self.now = None
