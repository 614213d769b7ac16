"""
Orders candidates by a round robin: each meets each, and the scorers are the judges.

    margin(a, b) = Σ over scorers s of w_s · sign(s(a) - s(b))
    copeland(a) = matches won + drawn / 2, borda(a) = Σ over b of margin(a, b)

Copeland 1951, "A reasonable social welfare function"; Borda 1781 by margins, as in
Young 1974. A judge casts one vote in a match, however far apart it sees the two, so one
scorer's outlier cannot win the tournament as it can win a sum; and who beats everybody
comes first (Condorcet). With `votes: shares` a vote is tanh of half the difference of
z-scores, between -1 and 1, so that near draws count little. O(s · n²) for s scorers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn

Weight = Annotated[float, Field(ge=0, le=100)]
# Votes that cancel leave a rest of the order of their last digit.
_DRAWN = 1e-9


class Tournament:
    """Puts first who wins most matches, not who has the highest sum."""

    name = "tournament"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        votes: Literal["whole", "shares"] = Field(
            "whole",
            description="whole: each scorer's sign; shares: how sure it is, too",
        )
        count: Literal["copeland", "borda"] = Field(
            "copeland", description="copeland: matches won; borda: sum of the margins"
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
        settings = self._settings
        scores = [candidate.scores for candidate in candidates]
        scorers = list(dict.fromkeys(name for each in scores for name in each))
        weights = np.array([settings.weights.get(name, 1.0) for name in scorers])
        margin = margins(
            table(scores, scorers), weights, whole=settings.votes == "whole"
        )
        order = standings(margin, copeland=settings.count == "copeland")
        return [candidates[position] for position in order]


def table(
    scores: Sequence[Mapping[str, float]], scorers: Sequence[str]
) -> NDArray[np.float64]:
    """Return [scorers, candidates], NaN where a scorer has no finite number."""
    numbers = np.array(
        [[each.get(name, np.nan) for each in scores] for name in scorers],
        dtype=np.float64,
    ).reshape(len(scorers), len(scores))
    return np.where(np.isfinite(numbers), numbers, np.nan)


def margins(
    scores: NDArray[np.float64], weights: NDArray[np.float64], *, whole: bool
) -> NDArray[np.float64]:
    """
    Return [n, n]: by how much the row's candidate beats the column's. A judge without a
    number for one of the two abstains.
    """
    if whole:
        one, other = scores[:, :, None], scores[:, None, :]
        votes = (one > other).astype(np.float64) - (one < other)
    else:
        z_scores = _z_scores(scores)
        votes = np.tanh((z_scores[:, :, None] - z_scores[:, None, :]) / 2)
        votes = np.nan_to_num(votes)
    margin = np.tensordot(weights, votes, axes=1)
    margin[np.abs(margin) <= _DRAWN * weights.sum()] = 0
    return margin


def standings(margin: NDArray[np.float64], *, copeland: bool) -> list[int]:
    """
    Return every position once, best first. Equal numbers of matches are parted by the
    sum of margins; what is equal then keeps its order.
    """
    borda = np.round(margin.sum(axis=1), 9)
    won = (margin > 0).sum(axis=1) + (margin == 0).sum(axis=1) / 2
    points = won if copeland else borda
    return sorted(range(len(margin)), key=lambda one: (-points[one], -borda[one]))


def _z_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row over what is known; a judge who calls all equal has zeros."""
    known = np.isfinite(scores)
    counted = np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled = np.where(known, scores, 0)
    mean = filled.sum(axis=1, keepdims=True) / counted
    apart = np.where(known, scores - mean, 0)
    spread = np.sqrt((apart**2).sum(axis=1, keepdims=True) / counted)
    smallest = 1e-9 * np.maximum(
        1, np.abs(filled).max(axis=1, keepdims=True, initial=0)
    )
    z_scores = np.where(spread > smallest, apart / np.maximum(spread, smallest), 0)
    return np.where(known, z_scores, np.nan)
