"""
Draws the reply at random, better ones more often.

    p(y) ∝ exp(total(y) / temperature)

For bots that should not always say the same, and for collecting feedback on more than
the favourite: the probabilities are known, so that judgements can be weighted by
their inverse. The draw depends on the turn's seed alone and can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import comparable
from bot.interfaces import Selector
from bot.model import Candidate, Selection, Turn

# numpy's seeds are not negative; a turn's may be.
_SEED_MASK = (1 << 64) - 1


class Sample:
    """Draws at random, a better total more often."""

    name = "sample"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        temperature: float = Field(
            0.5, ge=0.01, le=100, description="low: nearly always the best, high: any"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def selectors(self) -> list[Selector]:
        return [self]

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        rng = np.random.default_rng(turn.seed & _SEED_MASK)
        chances = softmax(
            [candidate.total for candidate in ranked], self._settings.temperature
        )
        index = int(rng.choice(len(ranked), p=chances))
        return Selection(
            index=index,
            why=f"drawn with probability {chances[index]:.2f} from {len(ranked)}",
        )


def softmax(totals: Sequence[float | None], temperature: float) -> NDArray[np.float64]:
    """
    Return the probabilities; a total that is missing, or no number, counts as least.
    """
    found = [comparable(total) for total in totals]
    least = min((total for total in found if total > -math.inf), default=0.0)
    logits = np.maximum(found, least)
    weights = np.exp((logits - logits.max()) / temperature)
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances
