"""
Never draws an n-gram of tokens that the reply has drawn before.

    p(v) = 0 where the row's last n - 1 tokens were followed by v before

Paulus, Xiong and Socher 2017, arXiv:1705.04304, section 2.5 (trigrams). With
`across_siblings`, nor any n-gram that a sibling has drawn: replies cannot share a turn
of phrase. Siblings draw at the same time, so two of them may still draw the same
n-gram in the same step. Tokens that end the reply are never blocked, once the
vocabulary is known, so neither are those that fill up a sibling that has ended. A row
in which nothing else is possible keeps what it has: some token must be drawn.
O(k · t · n) per step, O(k² · t · n) across siblings.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn


class NgramBlock:
    """Ends loops for good; long names and figures are blocked like the rest."""

    name = "ngram-block"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        size: int = Field(
            6, ge=2, le=50, description="tokens in a sequence that may not come twice"
        )
        across_siblings: bool = Field(
            default=False, description="also block what any sibling has drawn"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: frozenset[int] = frozenset()

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._kept = vocabulary.end_tokens

    def begin(self, turn: Turn, siblings: int) -> NgramBlockStep:
        return NgramBlockStep(
            size=self._settings.size,
            across_siblings=self._settings.across_siblings,
            kept=self._kept,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramBlockStep:
    """Keeps no state: the tokens drawn so far are all it needs."""

    size: int
    across_siblings: bool
    kept: Collection[int]

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        rows, repeats = repeating(tokens, self.size, across=self.across_siblings)
        for token in self.kept:
            others = repeats != token
            rows, repeats = rows[others], repeats[others]
        blocked = logits.clone()
        blocked[rows, repeats] = -math.inf
        stuck = blocked.amax(dim=1) == -math.inf
        blocked[stuck] = logits[stuck]
        return blocked


def repeating(tokens: Tensor, size: int, *, across: bool) -> tuple[Tensor, Tensor]:
    """
    Return the tokens that would complete an n-gram again: two tensors [n], the rows
    and the tokens. `tokens` is [k, t]; with `across` every row is compared with all.
    """
    drawn = tokens.shape[1]
    if drawn < size:
        nothing = tokens.new_empty(0)
        return nothing, nothing
    beginning = tokens[:, drawn - size + 1 :]
    ngrams = tokens.unfold(1, size, 1)
    if across:
        same = (ngrams[None, :, :, :-1] == beginning[:, None, None]).all(dim=-1)
        rows, sources, places = same.nonzero(as_tuple=True)
        return rows, ngrams[sources, places, -1]
    same = (ngrams[:, :, :-1] == beginning[:, None]).all(dim=-1)
    rows, places = same.nonzero(as_tuple=True)
    return rows, ngrams[rows, places, -1]
