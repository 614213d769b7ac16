"""
Orders candidates as the likeliest draw of a determinantal point process would.

    L_ij = q_i · s_ij · q_j, q = exp(quality_weight · scaled total), s in 0..1
    next = argmax over the rest of det L(those picked and it)

Greedy maximum a posteriori: Chen, Zhang and Zhou 2018, arXiv:1709.05135. A determinant
is the squared volume that replies span, so a reply is worth its quality times what no
combination of those before it already says; `mmr` looks at the closest one alone. What
says nothing new any more follows by total. O(n³): n is the number of candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import scaled
from bot.interfaces import Reranker, Tools
from bot.model import Candidate, Turn

# A share of a reply's own length. Below it is what rounding of float32 vectors leaves.
_NOTHING_NEW = 1e-6


class Dpp:
    """Puts replies first that are good and, together, span much."""

    name = "dpp"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        quality_weight: float = Field(
            1.0, ge=0, le=20, description="0: by difference alone, high: by total alone"
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
        quality = scaled([candidate.total for candidate in candidates])
        order = greedy_map(
            self._settings.quality_weight * quality, similarities(vectors)
        )
        return [candidates[position] for position in order]


def greedy_map(
    log_quality: NDArray[np.float64], similarity: NDArray[np.float64]
) -> list[int]:
    """
    Return every position once, best first, for log q [n] and a positive semi-definite
    s [n, n] with ones on its diagonal. Ties keep their order.

    The quality of those picked is the same for all that could follow, so Chen's
    incremental Cholesky factor is kept of s alone, and log q added outside: e^q cannot
    overflow, and what is new about a reply is a share of 1.
    """
    places = len(log_quality)
    new = similarity.diagonal().copy()
    rows = np.zeros((places, places))
    left = np.ones(places, dtype=bool)
    order: list[int] = []
    while (adds := left & (new > _NOTHING_NEW)).any():
        # log det grows by 2 log q + log d² with d² = `new`.
        gain = np.where(adds, 2 * log_quality + np.log(np.where(adds, new, 1)), -np.inf)
        best = int(gain.argmax())
        picked = len(order)
        share = (similarity[best] - rows[:, :picked] @ rows[best, :picked]) / math.sqrt(
            new[best]
        )
        rows[:, picked] = share
        new = new - share**2
        left[best] = False
        order.append(best)
    rest = np.flatnonzero(left)
    return [*order, *rest[np.argsort(-log_quality[rest], kind="stable")].tolist()]


def similarities(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """
    Return (1 + cosine) / 2, as the paper maps it: it is never negative, so nobody is
    rewarded for being opposite. It is the product of the rows [1, v] with themselves,
    scaled to length one, hence positive semi-definite; an empty text, which has no
    direction, is equally far from all others.
    """
    extended = np.insert(vectors.astype(np.float64), 0, 1.0, axis=1)
    extended /= np.linalg.norm(extended, axis=1, keepdims=True)
    similarity: NDArray[np.float64] = extended @ extended.T
    return similarity
