"""
Keeps the tokens whose logits are within n standard deviations of the largest.

    keep v where z_v ≥ max z - n · std(z),  over the tokens that are possible

Tang et al. 2024, arXiv:2411.07641: the logits of a sure model are a bell of noise and a
few outliers, and the outliers are meant. A temperature scales both sides alike, so
what is kept does not change with it, wherever in the order this step stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn


class TopNSigma:
    """Cuts what is far below the likeliest; keeps the same at any temperature."""

    name = "top-n-sigma"
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        n: float = Field(
            1.0, gt=0, le=20, description="standard deviations below the top logit kept"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> TopNSigmaStep:
        return TopNSigmaStep(n=self._settings.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopNSigmaStep:
    """Keeps no state: every step of every turn is the same function."""

    n: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return within_n_sigma(logits, self.n)


def within_n_sigma(logits: Tensor, n: float) -> Tensor:
    """Return the logits with those below max - n · std at minus infinity."""
    top = logits.amax(dim=-1, keepdim=True)
    return logits.masked_fill(logits < top - n * deviation(logits), -math.inf)


def deviation(logits: Tensor) -> Tensor:
    """Return std of each row's finite logits, [k, 1]; of a single one it is 0."""
    possible = logits.isfinite()
    number = possible.sum(dim=-1, keepdim=True)
    mean = logits.where(possible, 0).sum(dim=-1, keepdim=True) / number
    squares = (logits - mean).square_().where(possible, 0)
    return (squares.sum(dim=-1, keepdim=True) / number).sqrt()
