"""
Orders good candidates so that each is as far as can be from all those before it.

    good = total ≥ lowest total + quality · (highest - lowest)
    next = argmax over the good ones left of min over those picked of distance

Farthest-first traversal: Gonzalez 1985, "Clustering to minimize the maximum
intercluster distance". After any n picks no good reply is more than twice as far from
the nearest pick as the best choice of n would leave it. The farthest point is junk as
often as not, which is why only good ones take part; the others follow by total. The
highest total stays first. O(n²): n is the number of candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import comparable
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn


class KCentre:
    """Covers what the good replies say with as few of them as possible."""

    name = "k-centre"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        quality: float = Field(
            0.5,
            ge=0,
            le=1,
            description="who takes part; 0: all, 1: only the highest total",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def rerankers(self) -> list[Reranker]:
        return [self]

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        by_total = sorted(
            candidates, key=lambda one: comparable(one.total), reverse=True
        )
        good = how_many_good(
            [comparable(one.total) for one in by_total], self._settings.quality
        )
        if good < 2:  # noqa: PLR2004 one alone is far from nobody
            return by_total
        vectors = tools.embed([candidate.text for candidate in by_total[:good]])
        order = farthest_first(distances(vectors))
        return [*(by_total[position] for position in order), *by_total[good:]]


def how_many_good(totals: Sequence[float], quality: float) -> int:
    """Return how many of the totals, highest first, are good; all if all are equal."""
    if not totals or not math.isfinite(totals[0]):
        return len(totals)
    lowest = min(total for total in totals if math.isfinite(total))
    # Never above the highest, whatever rounding does.
    bar = min(lowest + quality * (totals[0] - lowest), totals[0])
    return sum(total >= bar for total in totals)


def farthest_first(distance: NDArray[np.float64]) -> list[int]:
    """
    Return every position of distances [n, n] once, beginning with 0. Ties keep their
    order, so copies come last.
    """
    left = np.ones(len(distance), dtype=bool)
    nearest = np.full(len(distance), np.inf)
    order: list[int] = []
    while left.any():
        farthest = int(np.where(left, nearest, -np.inf).argmax())
        order.append(farthest)
        left[farthest] = False
        nearest = np.minimum(nearest, distance[farthest])
    return order


def distances(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """
    Return how far the vectors are apart, [n, n]. In a straight line, since 1 - cosine
    keeps no triangle inequality, and Gonzalez' bound rests on it.
    """
    wide = vectors.astype(np.float64)
    squares = (wide**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * wide @ wide.T
    distance: NDArray[np.float64] = np.sqrt(np.maximum(apart, 0))
    return distance
