"""
Puts the shortest of the good replies first.

    good = total ≥ highest total - margin

The good ones by number of words, then the others as they came. Nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn
from bot.text import words


class Shortest:
    """Does not make a customer read more than it takes."""

    name = "shortest"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        margin: float = Field(
            0.5, ge=0, le=100, description="how far below the best total is as good"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def rerankers(self) -> list[Reranker]:
        return [self]

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        totals = [candidate.total for candidate in candidates]
        lengths = [len(words(candidate.text)) for candidate in candidates]
        order = shortest_first(totals, lengths, self._settings.margin)
        return [candidates[position] for position in order]


def shortest_first(
    totals: Sequence[float | None], lengths: Sequence[int], margin: float
) -> list[int]:
    """Return every position once; one without a total is not among the good."""
    best = max((total for total in totals if total is not None), default=0.0)
    good = [
        position
        for position, total in enumerate(totals)
        if total is not None and total >= best - margin
    ]
    others = [position for position in range(len(totals)) if position not in good]
    return sorted(good, key=lambda position: lengths[position]) + others
