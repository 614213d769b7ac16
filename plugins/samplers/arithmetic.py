"""
Draws siblings at equal distances through the model's distribution over texts.

    code(i) = (i + ½) / k + shift mod 1; each step draws the token v in whose share of
    [0, 1) the code lies, c(v) ≤ code < c(v) + p(v), then code ← (code - c(v)) / p(v)

Arithmetic sampling: Vilnis et al. 2023, arXiv:2210.15458. Each sibling by itself is an
ordinary sample; together they are spread: any beginning that has the probability P is
written by k · P siblings, rounded up or down. Shares lie in the order of token ids,
since siblings with one text must agree on them whatever the last bit of a logit is.
Temperature, top-k and top-p are those of `multinomial`.

Unlike in the paper, a sibling whose text has P < 1 / k, which it writes alone, gets a
new code at each token. Nothing is lost: no other can come to its text any more, and its
own code says nothing about where in it to go. But an old code is blown up by 1 / P, and
the rounding of logits with it: after some 16 nats a seed could not be repeated.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import Draw, Sampler
from bot.model import Turn

# The largest code there is: they lie in [0, 1).
BELOW_ONE = 1 - 2.0**-53


class Arithmetic:
    """Samples like `multinomial`, but siblings share out what is likely."""

    name = "arithmetic"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        temperature: float = Field(
            0.7, ge=0.05, le=5, description="above 1 flattens, below 1 sharpens"
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

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> ArithmeticStep:
        device, exact = generator.device, torch.float64
        shift = torch.rand(1, generator=generator, device=device, dtype=exact)
        return ArithmeticStep(
            spread(siblings, shift),
            temperature=self._settings.temperature,
            top_k=self._settings.top_k,
            top_p=self._settings.top_p,
            generator=generator,
        )


class ArithmeticStep:
    """
    One turn's drawing: the code [k] of each sibling, and P of its text. O(k · vocab)
    per step, O(k · vocab · log vocab) with top-p alone. Codes and logits may have
    leading dimensions: each index is a turn of its own.
    """

    def __init__(
        self,
        codes: Tensor,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        generator: torch.Generator,
    ) -> None:
        self._codes = codes
        self._chances = torch.ones_like(codes)
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._generator = generator

    def __call__(self, logits: Tensor) -> Draw:
        shares, tokens = shared_out(
            logits,
            temperature=self._temperature,
            top_k=self._top_k,
            top_p=self._top_p,
        )
        places, within, widths = located(shares, self._codes)
        self._chances = self._chances * widths
        alone = self._chances * self._codes.shape[-1] < 1
        self._codes = self._fresh().where(alone, within)
        return Draw(tokens=tokens.gather(-1, places.unsqueeze(-1)).squeeze(-1))

    def _fresh(self) -> Tensor:
        return torch.rand(
            self._codes.shape,
            generator=self._generator,
            device=self._codes.device,
            dtype=torch.float64,
        )


def spread(siblings: int, shift: Tensor) -> Tensor:
    """Return codes [..., k] at equal distances on the circle, moved by `shift`."""
    places = torch.arange(siblings, dtype=torch.float64, device=shift.device)
    return below_one(((places + 0.5) / siblings + shift) % 1)


def shared_out(
    logits: Tensor, *, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor]:
    """
    Return where each token's share of [0, 1) ends, and the tokens, two [..., kept]
    tensors in the order of ids. The last share that is not empty ends at exactly 1.
    """
    vocabulary = logits.shape[-1]
    kept = min(top_k, vocabulary) if top_k else vocabulary
    if kept == vocabulary and top_p == 1:
        probabilities = (logits.double() / temperature).softmax(dim=-1)
        tokens = torch.arange(vocabulary, device=logits.device).expand(logits.shape)
    else:
        largest, tokens = logits.topk(kept, dim=-1, sorted=True)
        probabilities = (largest.double() / temperature).softmax(dim=-1)
        # What comes before a token decides, so the one that crosses top_p stays in.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities, tokens = by_id(probabilities, tokens, vocabulary)
    ends = probabilities.cumsum(dim=-1)
    return ends / ends[..., -1:], tokens


def by_id(
    probabilities: Tensor, tokens: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """Return both [..., kept] in the order of ids."""
    if tokens.shape[-1] < vocabulary:
        tokens, order = tokens.sort(dim=-1)
        return probabilities.gather(-1, order), tokens
    # Every token has its place already: a second sort would cost as much as the first.
    placed = torch.empty_like(probabilities).scatter_(-1, tokens, probabilities)
    return placed, torch.arange(vocabulary, device=tokens.device).expand(tokens.shape)


def located(ends: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return the place of the share in which each code lies, where in it the code lies,
    from 0 to 1, and how wide it is: three [..., k] tensors.
    """
    places = torch.searchsorted(ends, codes.unsqueeze(-1), right=True)
    # A share that is empty ends where the one before it does, and is never found.
    end = ends.gather(-1, places).squeeze(-1)
    start = ends.gather(-1, (places - 1).clamp_min(0)).squeeze(-1)
    places = places.squeeze(-1)
    start = start.where(places > 0, 0.0)
    return places, below_one((codes - start) / (end - start)), end - start


def below_one(codes: Tensor) -> Tensor:
    """Return the codes, those that rounding made 1 or more just below it."""
    return codes.clamp_max(BELOW_ONE)
