"""
Scores how close a reply is to a number of words.

    score(reply) = -|ln((words + 1) / (target + 1))|

Half the target costs what double does. Length alone says nothing of quality (DSTC9's
human ratings: -3 % of the way from a random pick to the best one for long replies,
-31 % for short ones); this is for a place with little room, or a persona of few words.
Chinese, Japanese and Thai count by characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn
from bot.text import words


class Length:
    """Prefers replies of about so many words. At most 0."""

    name = "length"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        words: int = Field(
            30, ge=1, le=10_000, description="words (characters in Chinese) to come to"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        return [
            closeness(len(words(candidate.text)), self._settings.words)
            for candidate in candidates
        ]


def closeness(found: int, target: int) -> float:
    """Return 0 for the target, and less the further the ratio is from one."""
    return -abs(math.log((found + 1) / (target + 1)))
