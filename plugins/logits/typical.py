"""
Keeps the tokens whose surprise is closest to what the model expects of the next token.

    |-log p(v) - H(p)|, smallest first, until the kept probabilities reach `mass`

Meister et al. 2022, arXiv:2202.00666. The token that reaches the mass stays in, and so
does every other that is exactly as typical. The likeliest token itself may go, where
the model is unsure. O(vocab) per row, unless all tokens are about as likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn

_LEAST_LOG_PROB = -200.0
_BINS_PER_NAT = 100
_BINS = 4096


class Typical:
    """Cuts what is much less likely than expected, and what is much more so."""

    name = "typical"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        mass: float = Field(
            0.9, gt=0, lt=1, description="probability that the kept tokens must reach"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> TypicalStep:
        return TypicalStep(mass=self._settings.mass)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalStep:
    """Keeps no state: every step of every turn is the same function."""

    mass: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return without_untypical(logits, self.mass)


def without_untypical(logits: Tensor, mass: float) -> Tensor:
    """Return the logits with all but the most typical tokens at minus infinity."""
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()
    # Impossible tokens have p = 0 and add nothing, if only their log p is finite.
    finite = log_probs.clamp_(min=_LEAST_LOG_PROB)
    entropy = -(probs * finite).sum(dim=-1, keepdim=True)
    strangeness = finite.add_(entropy).abs_()
    limit = strangeness_reaching(strangeness, probs, mass)
    return logits.masked_fill(strangeness > limit, -math.inf)


def strangeness_reaching(strangeness: Tensor, probs: Tensor, mass: float) -> Tensor:
    """
    Return for each row, [k, 1], how strange a token may be so that the kept ones reach
    `mass`. Only the bin in which the sum crosses it is sorted, rather than all tokens.
    """
    bins = (strangeness * _BINS_PER_NAT).clamp_(max=_BINS - 1).long()
    sums = probs.new_zeros(len(probs), _BINS).scatter_add_(1, bins, probs).cumsum(1)
    # Rounding may leave the sum of all short of a mass close to one.
    crossing = (sums < mass).sum(dim=1).clamp(max=_BINS - 1)
    limits = []
    for row, at in enumerate(crossing.tolist()):
        members = (bins[row] == at).nonzero().squeeze(1)
        nearest, order = strangeness[row, members].sort()
        before = sums[row, at - 1] if at else 0.0
        reached = before + probs[row, members[order]].cumsum(0)
        last = int((reached < mass).sum())
        limits.append(float(nearest[last]) if last < len(nearest) else math.inf)
    return strangeness.new_tensor(limits).unsqueeze(1)
