"""
Diverse beam search: beams in groups, each group kept from the tokens of those before.

    a group keeps its best by (log P(y) - strength · n) / lp(y),
    n: how often earlier groups drew y's last token in this step

Vijayakumar et al. 2016, arXiv:1610.02424, with the Hamming penalty; lp is beam's. Each
group searches by itself and knows of the others only by n, so the first group is a
plain search with fewer beams. The penalty is of one step and is not carried: what a
group keeps is compared by log P again in the next step, and its beams stand best first
by what they were kept by. The penalty is in nats, at any length. A beam that has
ended draws nothing: it neither pays nor counts. Nothing is random. Candidates come
group after group, not in the order of all their scores.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.distributions import UNUSED, finished, first_alone, length_penalty, likeliest
from bot.interfaces import Draw, Sampler
from bot.model import Turn

NO_TOKEN = -1  # what a beam that has ended draws


class DiverseBeam:
    """Likely candidates that part early: one search for each group of siblings."""

    name = "diverse-beam"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        groups: int = Field(
            4, ge=1, le=64, description="searches kept apart; at most one per candidate"
        )
        strength: float = Field(
            0.5, ge=0, le=100, description="nats a token costs per earlier use; 0: none"
        )
        length_penalty: float = Field(
            0.6, ge=0, le=5, description="more favours longer replies; 0: sums only"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def samplers(self) -> list[Sampler]:
        return [self]

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> DiverseBeamStep:
        return DiverseBeamStep(
            group_sizes(siblings, self._settings.groups),
            strength=self._settings.strength,
            length_penalty=self._settings.length_penalty,
        )


class DiverseBeamStep:
    """
    One turn's searches: log P and length of each beam, groups one after another.
    O(k · vocab + k³) per step; the k³ are comparisons of single tokens.
    """

    def __init__(
        self, sizes: list[int], *, strength: float, length_penalty: float
    ) -> None:
        # All rows begin as one text: each group's first step may continue it only once.
        self._sums = torch.cat([first_alone(size) for size in sizes])
        self._lengths = torch.zeros(sum(sizes), dtype=torch.long)
        self._sizes = sizes
        self._strength = strength
        self._length_penalty = length_penalty

    def __call__(self, logits: Tensor) -> Draw:
        log_probs, tokens = likeliest(logits, len(logits))
        ended = finished(logits)
        sums = self._sums.to(logits.device).unsqueeze(1) + log_probs
        lengths = self._lengths.to(logits.device) + ~ended
        parents, places = kept_by_groups(
            sums,
            # What stays as it is draws no token, whatever it is padded with.
            tokens.masked_fill(ended.unsqueeze(1), NO_TOKEN),
            length_penalty(lengths, self._length_penalty),
            sizes=self._sizes,
            strength=self._strength,
        )
        self._sums = sums[parents, places]
        self._lengths = lengths[parents]
        return Draw(tokens=tokens[parents, places], parents=parents)


def group_sizes(beams: int, groups: int) -> list[int]:
    """
    Return how many beams each group has: as equal as can be, the first groups one more
    where it does not come out even, and no group without any.
    """
    groups = min(groups, beams)
    return [beams // groups + (number < beams % groups) for number in range(groups)]


def kept_by_groups(
    sums: Tensor,
    tokens: Tensor,
    penalties: Tensor,
    *,
    sizes: list[int],
    strength: float,
) -> tuple[Tensor, Tensor]:
    """
    Return which continuations go on, as rows and columns, two [k] tensors: each group
    keeps as many of its own as it has beams. `sums` and `tokens` are [k, n], the n
    likeliest continuations of each beam, NO_TOKEN where it has ended; `penalties`
    [k] divide their scores. With n = k nothing is missed: the penalty can push no more
    tokens out of a group's share of its n than the groups before it have drawn.
    """
    width = tokens.shape[1]
    drawn = tokens.new_empty(0)
    rows, columns = [], []
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        uses = (tokens[own].unsqueeze(2) == drawn).sum(dim=2)
        scores = (sums[own] - strength * uses) / penalties[own].unsqueeze(1)
        # Stable: of equal scores the earlier beam's likelier token is first.
        order = scores.flatten().sort(descending=True, stable=True).indices[:size]
        row, column = start + order // width, order % width
        rows.append(row)
        columns.append(column)
        # Copies say nothing of their own, and nothing was drawn for what has ended.
        taken = tokens[row, column]
        real = (taken != NO_TOKEN) & (sums[row, column] > UNUSED / 2)
        drawn = torch.cat([drawn, taken[real]])
        start += size
    return torch.cat(rows), torch.cat(columns)
