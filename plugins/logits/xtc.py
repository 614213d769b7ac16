"""
Now and then removes the obvious: all likely tokens but the least likely of them.

    with `probability`, if two or more tokens have p(v) ≥ threshold,
    remove all of those except the one with the smallest p(v)

"Exclude top choices", by P. E. Weidmann, 2024: no paper, but text-generation-webui
(pull request 6335) and llama.cpp. Whatever is left was likely enough to be considered,
so the text stays coherent and leaves the beaten track. It pushes away from what the
model knows best: a tool for small talk, not for questions about documents. Tokens that
end the reply are never removed, or replies would not end; the original says the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn


class Xtc:
    """Siblings leave the obvious at different places, so they differ more."""

    name = "xtc"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        probability: float = Field(
            0.5, ge=0, le=1, description="how often a step removes; 0: never"
        )
        threshold: float = Field(
            0.1,
            ge=0.001,
            le=0.5,
            description="probability from which a token counts as an obvious one",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: frozenset[int] = frozenset()

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._kept = vocabulary.end_tokens

    def begin(self, turn: Turn, siblings: int) -> XtcStep:
        return XtcStep(
            probability=self._settings.probability,
            threshold=self._settings.threshold,
            kept=self._kept,
            # Not torch's generator: one with the sampler's seed would draw the numbers
            # that the sampler draws.
            generator=np.random.default_rng(turn.seed & ((1 << 64) - 1)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class XtcStep:
    """One turn's luck: one number for each row and step, whether it is used or not."""

    probability: float
    threshold: float
    kept: Collection[int]
    generator: np.random.Generator

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        lucky = self.generator.random(len(logits)) < self.probability
        chosen = torch.from_numpy(lucky).to(logits.device)
        return without_obvious(logits, chosen, self.threshold, self.kept)


def without_obvious(
    logits: Tensor, chosen: Tensor, threshold: float, kept: Collection[int] = ()
) -> Tensor:
    """
    Return the logits with the top choices of the rows `chosen` [k] bool at minus
    infinity. Of two equally likely least ones, the one with the lower id is left.
    """
    floor = logits.logsumexp(dim=-1, keepdim=True) + math.log(threshold)
    # No more than 1 / threshold tokens can be so likely; one more for the rounding.
    number = min(int(1 / threshold) + 1, logits.shape[1])
    largest, tokens = logits.topk(number, dim=-1, sorted=True)
    obvious = (largest >= floor) & chosen.unsqueeze(1)
    least = largest.masked_fill(~obvious, math.inf).amin(dim=-1, keepdim=True)
    removed = obvious & (tokens != _lowest_id(tokens, obvious & (largest == least)))
    for token in kept:
        removed &= tokens != token
    return logits.scatter(1, tokens, largest.masked_fill(removed, -math.inf))


def _lowest_id(tokens: Tensor, among: Tensor) -> Tensor:
    """Return [k, 1] the lowest of the ids that are `among`; of none, one too high."""
    beyond = torch.iinfo(tokens.dtype).max
    return tokens.masked_fill(~among, beyond).amin(dim=-1, keepdim=True)
