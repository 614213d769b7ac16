"""
Scores how certain the generator was while it wrote.

    score(y) = 1 / n Σ over tokens of KL(uniform, p) = -1 / (n V) Σ Σ_j log(V · p_j)

Kang et al. 2025, arXiv:2502.18581 (NeurIPS): best of N without a reward model. Unlike
likelihood it looks at the whole distribution, not at the token that was drawn, so a
bold draw costs nothing by itself. Free: the engine has the numbers when it draws. What
the model did not write, or a server wrote, has none and gets the mean of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn


class SelfCertainty:
    """Prefers what was written with certainty. At least 0."""

    name = "self-certainty"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        means = [mean_certainty(candidate.certainties) for candidate in candidates]
        known = [mean for mean in means if mean is not None]
        neutral = sum(known) / len(known) if known else 0.0
        return [neutral if mean is None else mean for mean in means]


def mean_certainty(certainties: Sequence[float]) -> float | None:
    """Return the mean over the tokens that have a certainty; None without any."""
    finite = [one for one in certainties if math.isfinite(one)]
    return sum(finite) / len(finite) if finite else None
