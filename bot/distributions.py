"""
Distributions as plugins meet them: logits, log-probabilities and totals, made into
numbers that can be compared. Pure functions on tensors and arrays, for plugins too.

Knows nothing of texts, prompts or turns. What is missing, infinite or no number is
given a place rather than passed on, if no function says otherwise. Does not load torch
until a function has to make a tensor: scorers and rerankers do without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

LogProbs = Sequence[float] | NDArray[np.float32]
Logits = NDArray[np.float32] | NDArray[np.float64]

# A token that is held impossible (minus infinity) must not swallow a sum or a mean.
LEAST_LOG_PROB = -50.0

# The log-probability of a row that is only a copy: below all others, yet finite, so
# that it holds a text that can be drawn when there are fewer texts than rows.
UNUSED = -1e9

_FAR_LOGIT = 1e4
# In place of minus infinity: p is 0 there in float32, and so is p · log p.
_FINITE_LOG_PROB = -200.0


# Searches: rows are texts, and a step continues the best of them


def first_alone(rows: int) -> Tensor:
    """
    Return log P [rows], in float64, of rows that all begin as one text: the first step
    may continue it only once, so all but the first are `UNUSED`.
    """
    import torch  # noqa: PLC0415 - what scores or reranks needs no torch

    sums = torch.full((rows,), UNUSED, dtype=torch.float64)
    sums[0] = 0.0
    return sums


def likeliest(logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """
    Return log p, in float64, and the ids of the likeliest tokens of each row of logits
    [k, vocab], likeliest first: two [k, n] tensors, n at most `number`.
    """
    largest, tokens = logits.topk(min(number, logits.shape[1]), dim=1, sorted=True)
    return (largest - logits.logsumexp(dim=1, keepdim=True)).double(), tokens


def finished(logits: Tensor) -> Tensor:
    """
    Return which rows [k] of logits [k, vocab] have ended. The core leaves such a row
    one token, at a logit of exactly 0; a processor that leaves one leaves it the
    model's own logit.
    """
    impossible = logits.isneginf().sum(dim=1)
    return (impossible == logits.shape[1] - 1) & (logits.amax(dim=1) == 0)


def length_penalty(lengths: Tensor, exponent: float) -> Tensor:
    """
    Return ((5 + length) / 6) ^ exponent for each of the lengths, in their shape and in
    float64, by which Wu et al. 2016 divide log P (arXiv:1609.08144, equation 14).
    """
    return ((5 + lengths.double()) / 6) ** exponent


# Tokens


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy, in nats, of each row of log-probabilities [k, n]: [k, 1]."""
    # An impossible token has p = 0 and adds nothing, if only its log p is finite.
    finite = log_probs.clamp(min=_FINITE_LOG_PROB)
    return -(log_probs.exp() * finite).sum(dim=-1, keepdim=True)


def mean_log_prob(log_probs: LogProbs, exponent: float = 1.0) -> float:
    """
    Return the sum of a text's log-probabilities [n] over n ^ exponent: their mean, or
    with 0 their sum. Each counts from -50 to 0, one that is no number as -50; without
    any it is 0.
    """
    if not len(log_probs):
        return 0.0
    known = np.nan_to_num(np.asarray(log_probs, np.float64), nan=LEAST_LOG_PROB)
    clipped = np.clip(known, LEAST_LOG_PROB, 0)
    return float(clipped.sum() / len(clipped) ** exponent)


# Labels of a classifier


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the probabilities [n, m] of each row of `finite_logits` [n, m]."""
    known = finite_logits(logits)
    powers = np.exp(known - known.max(axis=1, keepdims=True, initial=-np.inf))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def finite_logits(logits: Logits) -> NDArray[np.float64]:
    """Return the logits in float64, infinite ones far out, and 0 for no number."""
    # A logit that is no number speaks neither for a label nor against it.
    exact = logits.astype(np.float64)
    return np.nan_to_num(exact, nan=0, posinf=_FAR_LOGIT, neginf=-_FAR_LOGIT)


# Totals of candidates


def comparable(total: float | None) -> float:
    """Return the total; one that is missing, or no number, is below all others."""
    return -math.inf if total is None or not math.isfinite(total) else total


def scaled(totals: Sequence[float | None]) -> NDArray[np.float64]:
    """
    Return totals [n] from 0 (lowest, or not `comparable`) to 1; all 0 when they are
    equal.
    """
    found = [comparable(total) for total in totals]
    known = [total for total in found if total > -math.inf]
    lowest = min(known, default=0.0)
    spread = max(known, default=0.0) - lowest
    if not spread:
        return np.zeros(len(found))
    return np.array([max(total - lowest, 0.0) / spread for total in found])
