"""
Removes tokens that are improbable beside the likeliest one.

    keep v where p(v) ≥ minimum · max p

Nguyen et al. 2024, arXiv:2407.01082; arXiv:2506.13681 re-reads its evidence and finds
no gain over top-p at equal tuning, so measure before trusting it. Works on the
model's own distribution, before the sampler's temperature: the set of tokens kept
does not change with the temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor, Truncation
from bot.model import Turn


class MinP:
    """Cuts the tail harder where the model is sure, less where it is not."""

    name = "min-p"
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        minimum: float = Field(
            0.05, gt=0, le=1, description="smallest share of the top probability kept"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    @property
    def truncation(self) -> Truncation:
        return Truncation(min_p=self._settings.minimum)

    def begin(self, turn: Turn, siblings: int) -> MinPStep:
        return MinPStep(minimum=self._settings.minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinPStep:
    """Keeps no state: every step of every turn is the same function."""

    minimum: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return without_improbable(logits, self.minimum)


def without_improbable(logits: Tensor, minimum: float) -> Tensor:
    """Return the logits with every token under `minimum` · max p at minus infinity."""
    # log p(v) - log p(top) = logit(v) - logit(top): no softmax is needed.
    floor = logits.amax(dim=-1, keepdim=True) + math.log(minimum)
    return logits.masked_fill(logits < floor, -math.inf)
