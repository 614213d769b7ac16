"""
Draws each sibling's next token at random, after temperature, top-k and top-p.

    p(v) ∝ exp(z_v / T) over the k largest logits, cut to the smallest set of tokens
    whose probabilities reach top_p, and renormalised

Top-k: Fan, Lewis and Dauphin 2018, arXiv:1805.04833. Top-p: Holtzman et al. 2020,
arXiv:1904.09751. The order is that of transformers: temperature, top-k, top-p, so
top_p is a share of what top-k left. Rows are siblings and are drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import Draw, Sampler, Truncation
from bot.model import Turn


class Multinomial:
    """The default sampler. Temperature 0 takes the likeliest token: greedy decoding."""

    name = "multinomial"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        temperature: float = Field(
            0.7, ge=0, le=5, description="above 1 flattens, below 1 sharpens, 0: greedy"
        )
        top_k: int = Field(
            50, ge=0, le=1_000_000, description="likeliest tokens kept; 0 keeps all"
        )
        top_p: float = Field(
            0.95, gt=0, le=1, description="probability that the kept tokens must reach"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def samplers(self) -> list[Sampler]:
        return [self]

    @property
    def greedy(self) -> bool:
        """Whether only the argmax counts, so that the engine can skip what keeps it."""
        return self._settings.temperature == 0

    @property
    def truncation(self) -> Truncation:
        settings = self._settings
        return Truncation(
            temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
        )

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> GreedyStep | MultinomialStep:
        if self.greedy:
            return GreedyStep()
        return MultinomialStep(
            temperature=self._settings.temperature,
            top_k=self._settings.top_k,
            top_p=self._settings.top_p,
            generator=generator,
        )


class GreedyStep:
    """The likeliest token of every row; ties go to the lowest id."""

    def __call__(self, logits: Tensor) -> Draw:
        return Draw(tokens=logits.argmax(dim=-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class MultinomialStep:
    """One turn's drawing; all randomness comes from `generator`."""

    temperature: float
    top_k: int
    top_p: float
    generator: torch.Generator

    def __call__(self, logits: Tensor) -> Draw:
        probabilities, tokens = truncated(
            logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )
        drawn = torch.multinomial(probabilities, 1, generator=self.generator)
        return Draw(tokens=tokens.gather(-1, drawn).squeeze(-1))


def truncated(
    logits: Tensor, *, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor]:
    """
    Return the tokens that may be drawn, likeliest first, and their probabilities: two
    [k, kept] tensors, rows summing to one. With top-k set, only its slice is sorted:
    O(vocab) rather than O(vocab log vocab).
    """
    vocabulary = logits.shape[-1]
    kept = min(top_k, vocabulary) if top_k else vocabulary
    largest, tokens = logits.topk(kept, dim=-1, sorted=True)
    probabilities = (largest / temperature).softmax(dim=-1)
    # What comes before a token decides, so the one that crosses top_p stays in,
    # and so does the first, whatever its probability.
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return probabilities / probabilities.sum(dim=-1, keepdim=True), tokens
