"""
Truncation: temperature, top-k, top-p and min-p for every row of a batch at once.

Rows of different turns have settings of their own. The vocabulary is not sorted where
a slice of its likeliest tokens holds everything that may be drawn; where it does not,
the whole row is. Knows nothing about turns: randomness comes in as numbers.

Top-k: Fan, Lewis and Dauphin 2018, arXiv:1805.04833. Top-p: Holtzman et al. 2020,
arXiv:1904.09751. Min-p: Nguyen et al. 2024, arXiv:2407.01082.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bot.errors import PluginError
from bot.generation.decoding import needed
from bot.interfaces import GenerationRequest, Truncates, Truncation

if TYPE_CHECKING:
    from torch import Tensor

SLICE = 256  # tokens looked at first where no top-k says how many are needed


def truncation_of(request: GenerationRequest) -> Truncation | None:
    """Return what a request's plugins truncate, None if one of them does more."""
    processors = needed(request.logits_processors, request.sampler)
    if not isinstance(request.sampler, Truncates):
        return None
    whole = request.sampler.truncation
    for each in [request.sampler, *processors]:
        if isinstance(each, Truncates):
            _check(each.name, each.truncation)
    for each in processors:
        if not isinstance(each, Truncates) or not each.truncation.is_min_p:
            return None
        # Two minima: what the larger one keeps, the smaller keeps too.
        whole = replace(whole, min_p=max(whole.min_p, each.truncation.min_p))
    return whole


def _check(plugin: str, truncation: object) -> None:
    if not isinstance(truncation, Truncation) or not (
        0 <= truncation.temperature < math.inf
        and truncation.top_k >= 0
        and 0 < truncation.top_p <= 1
        and 0 <= truncation.min_p <= 1
    ):
        raise PluginError(
            plugin, f"wants {truncation!r}; keep to what bot.interfaces.Truncation says"
        )


def draw(
    logits: Tensor, truncations: Sequence[Truncation], uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Return the tokens [r] drawn from `logits` [r, vocab] and their natural
    log-probabilities [r] under the logits as they are. `uniforms` [r] in [0, 1) decide,
    one for each row; a row's draw depends on nothing but its own row.
    """
    # Rows that look at slices of other sizes are drawn apart: which of two equal tokens
    # is in a slice, and in what order, depends on its size.
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    sizes = [_slice(one, logits.shape[1]) for one in truncations]
    for size in set(sizes):
        rows = [row for row, own in enumerate(sizes) if own == size]
        chosen = [truncations[row] for row in rows]
        if len(rows) == len(sizes):
            tokens = _drawn(logits, chosen, uniforms, size)
        else:
            tokens[rows] = _drawn(logits[rows], chosen, uniforms[rows], size)
    scores = logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=1)
    return tokens, scores


def _slice(truncation: Truncation, vocabulary: int) -> int:
    """How many of the likeliest tokens are looked at first; 0: the first of them."""
    if not truncation.temperature:
        return 0
    return min(truncation.top_k or SLICE, vocabulary)


def _drawn(
    logits: Tensor, truncations: Sequence[Truncation], uniforms: Tensor, size: int
) -> Tensor:
    if not size:
        return logits.argmax(dim=1)
    settings = _settings(truncations, logits)
    values, ids = logits.topk(size, dim=1)
    places, complete = _places(values, settings, uniforms, logits)
    tokens = ids.gather(1, places)
    if not bool(complete.all()):
        rows = (~complete).nonzero().squeeze(1)
        tokens[rows] = _drawn_from_all(logits[rows], settings.of(rows), uniforms[rows])
    return tokens.squeeze(1)


@dataclass(frozen=True, slots=True)
class _Settings:
    """The rows' settings, each [r, 1]; `floor` is how far below the top min-p goes."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    floor: Tensor

    def of(self, rows: Tensor) -> _Settings:
        return _Settings(
            self.temperature[rows], self.top_k[rows], self.top_p[rows], self.floor[rows]
        )

    @property
    def cut_nothing(self) -> Tensor:
        all_kept = (self.top_k == math.inf) & (self.top_p == 1)
        return (all_kept & (self.floor == -math.inf)).squeeze(1)


def _settings(truncations: Sequence[Truncation], logits: Tensor) -> _Settings:
    columns = zip(
        *(
            (
                one.temperature,
                one.top_k or math.inf,
                one.top_p,
                math.log(one.min_p) if one.min_p else -math.inf,
            )
            for one in truncations
        ),
        strict=True,
    )
    return _Settings(
        *(torch.tensor(each, device=logits.device).unsqueeze(1) for each in columns)
    )


def _places(
    values: Tensor, settings: _Settings, uniforms: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Draw from `values` [r, s], the largest of `logits` in order. Return the places drawn
    [r, 1], and for which rows [r] all that may be drawn is among the values.
    """
    kept = values.shape[1]
    floor = values[:, :1] + settings.floor
    ranks = torch.arange(kept, device=values.device)
    survives = (values >= floor) & (ranks < settings.top_k)
    scaled = (values / settings.temperature).masked_fill(~survives, -math.inf)
    whole = kept == logits.shape[1]
    closed = (settings.top_k <= kept) | (values[:, -1:] < floor) | whole
    norm = scaled.logsumexp(dim=1, keepdim=True)
    if not bool(closed.all()):
        # What lies outside is as likely as it is, though it will not be drawn.
        left = logits.masked_fill(logits < floor, -math.inf)
        over_all = (left / settings.temperature).logsumexp(dim=1, keepdim=True)
        norm = torch.where(closed, norm, over_all)
    chances = (scaled - norm).exp()
    sums = chances.cumsum(dim=1)
    # Where nothing is cut, rounding must not decide which way a row is drawn.
    reached = (sums[:, -1:] >= settings.top_p) & (settings.top_p < 1)
    complete = (closed | reached).squeeze(1)
    # What comes before a token decides, so the one that crosses top_p stays in.
    in_nucleus = sums - chances < settings.top_p
    return _inverse(chances.masked_fill(~in_nucleus, 0.0), uniforms), complete


def _inverse(chances: Tensor, uniforms: Tensor) -> Tensor:
    """Return the place [r, 1] at which the sum of chances passes its uniform share."""
    sums = chances.cumsum(dim=1)
    target = uniforms.unsqueeze(1) * sums[:, -1:]
    # Rounding may lift the target to the sum itself: then the last possible one.
    last = (
        (chances > 0).int().mul(torch.arange(chances.shape[1], device=chances.device))
    )
    return (sums <= target).sum(dim=1, keepdim=True).minimum(last.amax(1, keepdim=True))


def _drawn_from_all(logits: Tensor, settings: _Settings, uniforms: Tensor) -> Tensor:
    """Return tokens [r, 1], from rows that are sorted only where order matters."""
    tokens = torch.empty(len(logits), 1, dtype=torch.long, device=logits.device)
    free = settings.cut_nothing
    if bool(free.any()):
        rows = free.nonzero().squeeze(1)
        scaled = logits[rows] / settings.temperature[rows]
        tokens[rows] = _inverse(scaled.softmax(dim=1), uniforms[rows])
    if not bool(free.all()):
        rows = (~free).nonzero().squeeze(1)
        values, ids = logits[rows].sort(dim=1, descending=True)
        places, _ = _places(values, settings.of(rows), uniforms[rows], logits[rows])
        tokens[rows] = ids.gather(1, places)
    return tokens
