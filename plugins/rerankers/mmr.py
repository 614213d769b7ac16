"""
Orders candidates so that each adds something to those before it.

    next = argmax over the rest of (1 - d) · relevance(y) - d · max sim(y, those picked)

Maximal marginal relevance: Carbonell and Goldstein 1998. Relevance is the total,
scaled to 0..1 within the set so that it can be set against a cosine. The highest
total stays first; what changes is who follows it, which matters to whoever shows
several replies or draws among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import scaled
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn


class Mmr:
    """Puts a different reply before a near copy of a better one."""

    name = "mmr"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        diversity: float = Field(
            0.35, ge=0, le=1, description="0: by total alone, 1: by difference alone"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def rerankers(self) -> list[Reranker]:
        return [self]

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Candidate]:
        if len(candidates) < 2:  # noqa: PLR2004 one candidate is in order already
            return list(candidates)
        vectors = tools.embed([candidate.text for candidate in candidates])
        similarity = vectors.astype(np.float64) @ vectors.astype(np.float64).T
        relevance = scaled([candidate.total for candidate in candidates])
        order = greedy_mmr(relevance, similarity, self._settings.diversity)
        return [candidates[position] for position in order]


def greedy_mmr(
    relevance: NDArray[np.float64], similarity: NDArray[np.float64], diversity: float
) -> list[int]:
    """
    Return every position once, best first; the first is the most relevant one.
    Ties keep their order. O(n²): n is the number of candidates.
    """
    order: list[int] = []
    left = np.ones(len(relevance), dtype=bool)
    gain = relevance
    # Similarity to the closest one picked. Nobody is rewarded for being opposite.
    closest = np.zeros(len(relevance))
    while left.any():
        best = int(np.where(left, gain, -np.inf).argmax())
        order.append(best)
        left[best] = False
        closest = np.maximum(closest, similarity[best])
        gain = (1 - diversity) * relevance - diversity * closest
    return order
