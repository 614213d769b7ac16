"""
Sets the temperature of each step by how unsure the model is.

    T = T0 · N^(θ / H(p)),  0 < N < 1, H in nats, never below `lowest`

Zhang, Bao and Huang 2024, "EDT", arXiv:2403.14541, equation for T with N = 0.8: a sure
model is made greedy, an unsure one gets the whole of T0. Divides the logits, so the
sampler's own temperature multiplies with it: leave that one at 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from bot import hookimpl
from bot.distributions import entropy
from bot.interfaces import LogitsProcessor
from bot.model import Turn

# Below any entropy that matters; a row with one token left has none at all.
_LEAST_ENTROPY = 1e-6


class EntropyTemperature:
    """Makes an unsure model more daring than one that is sure."""

    name = "entropy-temperature"
    # A division keeps the order; logits a rounding apart may become equal, no more.
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        temperature: float = Field(
            1.0, ge=0.05, le=5, description="T0: the temperature of an unsure model"
        )
        theta: float = Field(
            0.5, ge=0, le=20, description="how fast it falls with certainty; 0: never"
        )
        base: float = Field(0.8, gt=0, lt=1, description="N, which theta / H is put to")
        lowest: float = Field(
            0.1, ge=0.01, le=5, description="temperature that no step falls below"
        )

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.lowest > self.temperature:
                raise ValueError("lowest is above temperature; lower it")
            return self

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> EntropyTemperatureStep:
        settings = self._settings
        return EntropyTemperatureStep(
            temperature=settings.temperature,
            theta=settings.theta,
            base=settings.base,
            lowest=settings.lowest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyTemperatureStep:
    """Keeps no state: every step of every turn is the same function."""

    temperature: float
    theta: float
    base: float
    lowest: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        nats = entropy(logits.log_softmax(dim=-1))
        exponent = self.theta / nats.clamp(min=_LEAST_ENTROPY)
        scale = self.temperature * (exponent * math.log(self.base)).exp()
        return logits / scale.clamp(min=self.lowest)
