"""
Makes a token that siblings have just drawn cost more: diverse decoding while sampling.

    z_v - strength · |{siblings that drew v at one of their last `window` positions}|

The Hamming term of diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424;
after Li, Monroe and Jurafsky 2016, arXiv:1611.08562), for rows that are sampled side by
side: there a group pays for what earlier groups chose at this position, here a row pays
for what the others chose at the positions just before, as all draw at the same time.
The first token is therefore free. What the siblings were all given to go on from does
not count, and each sibling counts once for a token.

A sibling that has ended is filled up with an end token, and may not push the others
away from theirs: end tokens do not count once the vocabulary is known, and without it a
token that a sibling drew last and second to last does not count for that sibling.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn

# Stands in a window where nothing counts.
NOTHING = -1


class SiblingPenalty:
    """Siblings keep out of each other's way, so a set holds more than one idea."""

    name = "sibling-penalty"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        strength: float = Field(
            0.5, ge=0, le=20, description="taken off the logit for each such sibling"
        )
        window: int = Field(
            4, ge=1, le=64, description="last positions of a sibling that count"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._end_tokens: frozenset[int] = frozenset()

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._end_tokens = vocabulary.end_tokens

    def begin(self, turn: Turn, siblings: int) -> SiblingPenaltyStep:
        return SiblingPenaltyStep(
            self._settings.strength, self._settings.window, self._end_tokens
        )


class SiblingPenaltyStep:
    """One turn's penalty; it remembers how much all siblings were given."""

    def __init__(
        self, strength: float, window: int, end_tokens: Collection[int]
    ) -> None:
        self._strength = strength
        self._window = window
        self._end_tokens = end_tokens
        self._given: int | None = None

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        if self._given is None:
            self._given = tokens.shape[1]
        drawn = tokens[:, self._given :]
        recent = counting(drawn, self._window, self._end_tokens)
        ids, others = drawn_by_others(recent)
        changed = logits.clone()
        changed[:, ids] -= self._strength * others
        return changed


def counting(drawn: Tensor, window: int, end_tokens: Collection[int]) -> Tensor:
    """Return the last tokens [k, ≤ window] of `drawn`, NOTHING where none counts."""
    recent = drawn[:, -window:].clone()
    for token in end_tokens:
        recent[recent == token] = NOTHING
    if drawn.shape[1] > 1:
        last = drawn[:, -1:]
        filled_up = (last == drawn[:, -2:-1]) & (recent == last)
        recent[filled_up] = NOTHING
    return recent


def drawn_by_others(recent: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the distinct ids [n] in `recent` [k, w], and how many of the other rows hold
    each, [k, n].
    """
    ids = torch.unique(recent[recent != NOTHING])
    holds = (recent.unsqueeze(-1) == ids).any(dim=1).to(torch.int64)
    return ids, holds.sum(dim=0, keepdim=True) - holds
