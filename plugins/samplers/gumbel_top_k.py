"""
Draws siblings that are all different: a sample of texts without replacement.

    key(y) = log P(y) + Gumbel noise; the k texts of the largest keys, largest first
    a text's keys are drawn so that their maximum is the key of its beginning

Stochastic beam search: Kool, van Hoof and Welling 2019, arXiv:1903.06059, algorithm 1.
Row 0 is a draw from P, row 1 a draw from P without row 0's text, and so on; P is the
model's distribution after the temperature. Two rows may still read alike where one
text has several tokenisations, and are copies where fewer than k texts are possible.
The noise of the whole vocabulary is most of what a step costs.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.distributions import first_alone
from bot.interfaces import Draw, Sampler
from bot.model import Turn

LOG_HALF = -math.log(2)


class GumbelTopK:
    """No two candidates are the same text, and the first is an ordinary sample."""

    name = "gumbel-top-k"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        temperature: float = Field(
            0.7, ge=0.05, le=5, description="above 1 flattens, below 1 sharpens"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def samplers(self) -> list[Sampler]:
        return [self]

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> GumbelTopKStep:
        return GumbelTopKStep(siblings, self._settings.temperature, generator)


class GumbelTopKStep:
    """
    One turn's search: log P and key of each row's text. O(k · vocab) per step, in
    float64. Logits may have leading dimensions: each index is a turn of its own.
    """

    def __init__(
        self, siblings: int, temperature: float, generator: torch.Generator
    ) -> None:
        # All rows begin as one text: the first step may continue it only once. Where
        # that text's key lies says nothing about which of its continuations win.
        self._sums = first_alone(siblings)
        self._keys = self._sums
        self._temperature = temperature
        self._generator = generator

    def __call__(self, logits: Tensor) -> Draw:
        rows, vocabulary = logits.shape[-2:]
        begun = self._sums.to(logits.device).unsqueeze(-1)
        log_probs = (logits.double() / self._temperature).log_softmax(dim=-1) + begun
        perturbed = log_probs + gumbel_like(log_probs, self._generator)
        # No row can place more than k of its continuations, and `conditioned` keeps
        # their order: nothing else has to be conditioned.
        largest, tokens = perturbed.topk(min(rows, vocabulary), dim=-1, sorted=True)
        keys = conditioned(largest, self._keys.to(logits.device)).flatten(-2)
        self._keys, chosen = (
            part[..., :rows] for part in keys.sort(dim=-1, descending=True, stable=True)
        )
        sums = log_probs.gather(-1, tokens).flatten(-2)
        self._sums = sums.gather(-1, chosen)
        return Draw(
            tokens=tokens.flatten(-2).gather(-1, chosen),
            parents=chosen // tokens.shape[-1],
        )


def gumbel_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return independent standard Gumbel noise in the shape and type of `values`."""
    uniform = torch.rand(
        values.shape, generator=generator, device=values.device, dtype=values.dtype
    )
    # From a 0 would come a key of minus infinity, and NaN where it is the largest.
    uniform.clamp_min_(torch.finfo(values.dtype).tiny)
    return uniform.log_().neg_().log_().neg_()


def conditioned(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """
    Return Gumbel variables `perturbed` [..., n], largest first, as they are given that
    the largest is `maximum` [...]: -log(exp(-maximum) - exp(-largest) + exp(-each)).
    The order stays. Written as in the paper's appendix B.3, which does not overflow.
    """
    ceiling = maximum.unsqueeze(-1)
    below = perturbed - perturbed[..., :1]
    shift = ceiling - perturbed + log_one_minus_exp(below)
    return ceiling - shift.clamp_min(0) - torch.log1p(torch.exp(-shift.abs()))


def log_one_minus_exp(values: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x ≤ 0, to full precision at both ends."""
    return torch.where(
        values > LOG_HALF,
        torch.log(-torch.expm1(values)),
        torch.log1p(-torch.exp(values)),
    )
