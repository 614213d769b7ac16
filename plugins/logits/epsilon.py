"""
Removes tokens below an absolute probability.

    keep v where p(v) ≥ ε, and the likeliest in any case

Hewitt, Manning and Liang 2022, arXiv:2210.15191. Unlike min-p, the floor does not move
with how sure the model is; `eta` lowers it where the model is unsure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn


class Epsilon:
    """Cuts every token below one fixed probability."""

    name = "epsilon"
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        minimum: float = Field(
            6e-4, gt=0, lt=1, description="smallest probability kept, epsilon"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> EpsilonStep:
        return EpsilonStep(minimum=self._settings.minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonStep:
    """Keeps no state: every step of every turn is the same function."""

    minimum: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return without_rare(logits, self.minimum)


def without_rare(logits: Tensor, minimum: float) -> Tensor:
    """Return the logits with every token of p < `minimum` at minus infinity."""
    floor = logits.logsumexp(dim=-1, keepdim=True) + math.log(minimum)
    floor = floor.minimum(logits.amax(dim=-1, keepdim=True))
    return logits.masked_fill(logits < floor, -math.inf)
