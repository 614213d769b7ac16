"""
Beam search: siblings are beams, and the likeliest continuations of all of them go on.

    s(y) = log P(y) / lp(y),  lp(y) = ((5 + |y|) / 6) ^ length_penalty

k siblings are k beams. Each step keeps the k best of all beams' continuations by s,
best first, so the candidates come in the order of their scores. Beam search over what
a network predicts: Graves 2012, arXiv:1211.3711; Sutskever, Vinyals and Le 2014,
arXiv:1409.3215. The length penalty: Wu et al. 2016, arXiv:1609.08144, equation 14,
without coverage; |y| counts the token that ends y. A finished beam has one way to go
on, as it is, and stays until k others are better. Nothing is random.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.distributions import finished, first_alone, length_penalty, likeliest
from bot.interfaces import Draw, Sampler
from bot.model import Turn


class Beam:
    """Candidates are the likeliest texts a search finds; they differ little."""

    name = "beam"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        length_penalty: float = Field(
            0.6, ge=0, le=5, description="more favours longer replies; 0: sums only"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def samplers(self) -> list[Sampler]:
        return [self]

    def begin(self, turn: Turn, siblings: int, generator: torch.Generator) -> BeamStep:
        return BeamStep(siblings, self._settings.length_penalty)


class BeamStep:
    """One turn's search: log P and length of each beam. O(k · vocab) per step."""

    def __init__(self, siblings: int, length_penalty: float) -> None:
        # All rows begin as one text: the first step may continue it only once.
        self._sums = first_alone(siblings)
        self._lengths = torch.zeros(siblings, dtype=torch.long)
        self._length_penalty = length_penalty

    def __call__(self, logits: Tensor) -> Draw:
        # No beam can place more than k of its continuations: no others are looked at.
        log_probs, tokens = likeliest(logits, len(logits))
        sums = self._sums.to(logits.device).unsqueeze(1) + log_probs
        lengths = self._lengths.to(logits.device) + ~finished(logits)
        scores = sums / length_penalty(lengths, self._length_penalty).unsqueeze(1)
        # Stable: of equal scores the earlier beam's likelier token is first.
        order = scores.flatten().sort(descending=True, stable=True).indices
        chosen = order[: len(logits)]
        parents = chosen // tokens.shape[1]
        self._sums = sums.flatten()[chosen]
        self._lengths = lengths[parents]
        return Draw(tokens=tokens.flatten()[chosen], parents=parents)
