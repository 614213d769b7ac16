"""
Removes tokens below a probability that sinks where the model is unsure.

    keep v where p(v) ≥ η = min(ε, √ε · exp(-H(p))), and the likeliest in any case

Hewitt, Manning and Liang 2022, arXiv:2210.15191, with their alpha = √ε. The docstring
of transformers' EtaLogitsWarper says √(ε · exp(-H)) instead; its code is the paper's,
and so is this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.distributions import entropy
from bot.interfaces import LogitsProcessor
from bot.model import Turn


class Eta:
    """Cuts improbable tokens, fewer of them where the model is unsure."""

    name = "eta"
    changes_argmax = False

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        epsilon: float = Field(
            2e-3, gt=0, lt=1, description="highest floor; it sinks with the entropy"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> EtaStep:
        return EtaStep(epsilon=self._settings.epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtaStep:
    """Keeps no state: every step of every turn is the same function."""

    epsilon: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return without_rare_for_its_entropy(logits, self.epsilon)


def without_rare_for_its_entropy(logits: Tensor, epsilon: float) -> Tensor:
    """Return the logits with every token of p < η at minus infinity."""
    log_probs = logits.log_softmax(dim=-1)
    floor = log_floor(log_probs, epsilon)
    floor = floor.minimum(log_probs.amax(dim=-1, keepdim=True))
    return logits.masked_fill(log_probs < floor, -math.inf)


def log_floor(log_probs: Tensor, epsilon: float) -> Tensor:
    """Return log η of each row, [k, 1]."""
    return (0.5 * math.log(epsilon) - entropy(log_probs)).clamp(max=math.log(epsilon))
