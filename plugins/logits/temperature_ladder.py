"""
Gives each sibling its own temperature, from a cautious one to a daring one.

    geometric: T_i = lowest · (highest / lowest)^(i / (k - 1)),  i = 0 … k - 1
    linear:    T_i = lowest + (highest - lowest) · i / (k - 1)

The ladder of parallel tempering (Earl and Deem 2005, arXiv:physics/0508111), without
its exchanges: no temperature is right for every question, so a set tries several and
ranking decides. Sibling 0 has the lowest one, and so has a single sibling. Divides the
logits, so the sampler's own temperature multiplies with it. The rung belongs to the
place in the set: a sampler that re-parents rows moves texts between rungs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn

Spacing = Literal["geometric", "linear"]


class TemperatureLadder:
    """Writes siblings from safe to surprising, each at its own temperature."""

    name = "temperature-ladder"
    # A division keeps the order; logits a rounding apart may become equal, no more.
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        lowest: float = Field(
            0.5, ge=0.01, le=5, description="temperature of the first sibling"
        )
        highest: float = Field(
            1.5, ge=0.01, le=5, description="temperature of the last sibling"
        )
        spacing: Spacing = Field(
            "geometric", description="equal ratios, or linear: equal differences"
        )

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.lowest > self.highest:
                raise ValueError("lowest is above highest; swap them")
            return self

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> TemperatureLadderStep:
        settings = self._settings
        rungs = ladder(siblings, settings.lowest, settings.highest, settings.spacing)
        return TemperatureLadderStep(temperatures=rungs.unsqueeze(1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemperatureLadderStep:
    """One turn's `temperatures`, [k, 1]."""

    temperatures: Tensor

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return logits / self.temperatures.to(logits.device)


def ladder(rungs: int, lowest: float, highest: float, spacing: Spacing) -> Tensor:
    """Return the temperatures [rungs] float32, lowest first."""
    height = torch.linspace(0, 1, rungs, dtype=torch.float64)
    if spacing == "linear":
        return (lowest + (highest - lowest) * height).float()
    return (lowest * (highest / lowest) ** height).float()
