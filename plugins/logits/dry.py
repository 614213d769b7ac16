"""
Makes a token that would lengthen a repeat cost more, the longer the repeat already is.

    z_v - multiplier · base^(n - allowed_length) where n ≥ allowed_length,
    n: how many of the row's last tokens stood before an earlier v, in the same order

"Don't repeat yourself", by P. E. Weidmann, 2024: no paper, but text-generation-webui
(pull request 5677) and llama.cpp, whose defaults for base and length these are. It sees
what the reply has drawn, not the prompt: quoting a passage once is no repeat. A repeat
ends at a token whose text holds one of `breakers`, and such tokens are never penalised,
so lists and tables keep their marks. O(k · t · n) per step, n at most 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.errors import PluginError
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn

# Repeats are compared up to here; base^48 is still a float32 for every base allowed.
LONGEST = 50

Breaker = Annotated[str, Field(min_length=1, max_length=20)]


class Dry:
    """Lets a short repeat pass and stops a loop."""

    name = "dry"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        multiplier: float = Field(
            0.8, ge=0, le=100, description="cost of a repeat of the allowed length"
        )
        base: float = Field(
            1.75, ge=1, le=4, description="how the cost grows with each further token"
        )
        allowed_length: int = Field(
            2, ge=1, le=LONGEST, description="shorter repeats cost nothing, in tokens"
        )
        breakers: tuple[Breaker, ...] = Field(
            ("\n", ":", '"', "*"),
            max_length=100,
            description="texts at which a repeat ends; () needs no vocabulary",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._breaks: Tensor | None = None
        if not settings.breakers:
            self._breaks = torch.empty(0, dtype=torch.long)

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._breaks = breaking(vocabulary, self._settings.breakers)

    def begin(self, turn: Turn, siblings: int) -> DryStep:
        if self._breaks is None:
            raise PluginError(
                self.name,
                "was not given the model's vocabulary, where it looks up breakers; "
                "use it with a local model, or set breakers to []",
            )
        return DryStep(
            multiplier=self._settings.multiplier,
            base=self._settings.base,
            allowed_length=self._settings.allowed_length,
            breaks=self._breaks,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DryStep:
    """Keeps no state: the tokens drawn so far are all it needs. `breaks` are ids."""

    multiplier: float
    base: float
    allowed_length: int
    breaks: Tensor

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        broken = torch.isin(tokens, self.breaks.to(tokens.device))
        lengths = repeats(tokens, broken)
        following = tokens[:, 1:]
        counts = (lengths >= self.allowed_length) & ~broken[:, 1:]
        cost = self.multiplier * self.base ** (lengths - self.allowed_length).float()
        penalty = torch.zeros_like(logits)
        # Of several repeats that one token would lengthen, the longest counts.
        penalty.scatter_reduce_(1, following, cost.where(counts, 0), "amax")
        return logits - penalty


def breaking(vocabulary: Vocabulary, breakers: tuple[str, ...]) -> Tensor:
    """Return the ids of the tokens that hold one of the breakers."""
    pieces = (vocabulary.piece(token) for token in range(vocabulary.size))
    ids = [
        token
        for token, piece in enumerate(pieces)
        if any(breaker in piece for breaker in breakers)
    ]
    return torch.tensor(ids, dtype=torch.long)


def repeats(tokens: Tensor, broken: Tensor) -> Tensor:
    """
    Return how many tokens up to and with each position but the last, [k, t - 1], are
    the last tokens of `tokens` [k, t] again; `broken` [k, t] tokens end a repeat.
    """
    places = tokens.shape[1] - 1
    lengths = tokens.new_zeros(len(tokens), max(places, 0))
    same = torch.ones_like(lengths, dtype=torch.bool)
    for back in range(min(LONGEST, places)):
        # What stood `back` before each position, and `back` before the end.
        earlier = tokens[:, : places - back] == tokens[:, places - back, None]
        same[:, back:] &= earlier & ~broken[:, places - back, None]
        same[:, :back] = False
        if not bool(same.any()):
            break
        lengths += same
    return lengths
