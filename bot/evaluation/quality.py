"""
How good replies, rankings and detectors are, as pure functions, each with the interval
that fits it. `metrics` has what compares a reply with an answer.

Knows nothing about files or bots: texts, scores and ranks in, floats out. Nothing
returns NaN: what is not defined is 0, or None where 0 would be mistaken for a finding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from bot.evaluation import metrics
from bot.evaluation.metrics import Interval
from bot.text import is_written_in
from bot.text import rouge_l as longest_common

Values = Sequence[float] | NDArray[np.float64]

_RESAMPLES = 2000
_TAILS = (0.025, 0.975)
_NORMAL_95 = 1.959964
# A token that the model holds impossible must not make the whole text impossible.
_LEAST_LOG_PROB = -50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    interval: Interval


# Replies


def bleu(reply: str, references: Sequence[str]) -> float:
    """
    Return sacrebleu's sentence BLEU-4, 0 to 1, with its own tokeniser (13a; zh where
    the reply is written in Chinese), effective order and exponential smoothing.
    """
    if not references or not reply.strip():
        return 0.0
    chinese = is_written_in(reply, {"zh"})
    scored = _sentence_bleu("zh" if chinese else "13a").sentence_score(
        reply, list(references)
    )
    return min(1.0, scored.score / 100)


@functools.cache
def _sentence_bleu(tokenizer: str) -> BLEU:
    # `force`: a reply that looks tokenised is the model's doing, not worth a warning.
    return BLEU(tokenize=tokenizer, effective_order=True, force=True)


def rouge_l(reply: str, references: Sequence[str]) -> float:
    """Return the best ROUGE-L F1 over the references, words folded as SQuAD does."""
    said = metrics.normalised(reply)
    return max(
        (longest_common(said, metrics.normalised(one)) for one in references),
        default=0.0,
    )


def perplexity(log_probs: Sequence[float]) -> float:
    """Return exp(- mean log p), at least 1; of a text without tokens it is 1."""
    if not len(log_probs):
        return 1.0
    finite = np.nan_to_num(np.asarray(log_probs, np.float64), nan=_LEAST_LOG_PROB)
    return float(np.exp(-np.clip(finite, _LEAST_LOG_PROB, 0.0).mean()))


def coverage_at(holds: Sequence[bool]) -> list[float]:
    """
    Return for every j from 1 on whether any of the first j candidates holds the answer:
    what the best of all pickers would reach with so many.
    """
    return [float(any(holds[: j + 1])) for j in range(len(holds))]


# Picks against people


def share_of_gap(
    picked: Sequence[float], chance: Sequence[float], oracle: Sequence[float]
) -> Estimate:
    """
    Return how much of the way from a random pick to the best one the picks go:
    (mean picked - mean chance) / (mean oracle - mean chance), one number per question
    each, and its bootstrap interval over the questions. Without a way it is 0.
    """
    gained = np.subtract(picked, chance, dtype=np.float64)
    possible = np.subtract(oracle, chance, dtype=np.float64)
    if not gained.size:
        return Estimate(value=0.0, interval=(0.0, 0.0))
    drawn = np.random.default_rng(0).integers(
        gained.size, size=(_RESAMPLES, gained.size)
    )
    shares = _ratio(gained[drawn].mean(axis=1), possible[drawn].mean(axis=1))
    value = _ratio(gained.mean(keepdims=True), possible.mean(keepdims=True))
    return Estimate(value=float(value[0]), interval=_percentiles(shares))


def spearman(one: Values, other: Values) -> float:
    """
    Return Spearman's rank correlation, ties at their average rank; 0 where either side
    calls all equal.
    """
    ranks = average_ranks(one), average_ranks(other)
    centred = [of - of.mean() if of.size else of for of in ranks]
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / scale) if scale else 0.0


def average_ranks(values: Values) -> NDArray[np.float64]:
    """Return the rank of each value, from 1 for the lowest, equals at their mean."""
    exact = np.asarray(values, np.float64)
    _, group, sizes = np.unique(exact, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: NDArray[np.float64] = (last - (sizes - 1) / 2)[group]
    return ranks


def pairwise_accuracy(scores: Values, worth: Values) -> float | None:
    """
    Return in how many pairs of unequal worth the worthier has the higher score; an
    equal score counts half. None without such a pair.
    """
    scored, worthy = np.asarray(scores, np.float64), np.asarray(worth, np.float64)
    better = worthy[:, None] > worthy[None, :]
    if not better.any():
        return None
    apart = np.sign(scored[:, None] - scored[None, :])[better]
    return float((apart + 1).mean() / 2)


# Detectors


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """
    Return the chance that a positive has a higher score than a negative (the area under
    the ROC curve), equals counting half. None without one of each.
    """
    if not len(positives) or not len(negatives):
        return None
    return float(_wins(positives, negatives).mean())


def auc_estimate(
    positives: Sequence[float], negatives: Sequence[float]
) -> Estimate | None:
    """Return the AUC and its bootstrap interval, both kinds being drawn apart."""
    if not len(positives) or not len(negatives):
        return None
    wins = _wins(positives, negatives)
    generator = np.random.default_rng(0)
    drawn = [
        generator.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES).astype(
            np.float32
        )
        / size
        for size in wins.shape
    ]
    areas = np.einsum("rn,rn->r", drawn[0] @ wins, drawn[1], dtype=np.float64)
    return Estimate(value=float(wins.mean()), interval=_percentiles(areas))


def threshold(positives: Values, negatives: Values) -> float:
    """
    Return the score from which on to call something positive so that the mean of both
    kinds' shares of right calls is best; the lowest such positive's score.
    """
    high, low = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    choices = np.unique(high)
    kept = (high[None, :] >= choices[:, None]).mean(axis=1)
    refused = (low[None, :] < choices[:, None]).mean(axis=1)
    return float(choices[int((kept + refused).argmax())])


def _wins(
    positives: Sequence[float], negatives: Sequence[float]
) -> NDArray[np.float32]:
    """Return [p, n]: 1 where the positive is higher, a half where they are equal."""
    high, low = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    wins: NDArray[np.float32] = (
        (high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])
    ).astype(np.float32)
    return wins


def wilson(hits: int, trials: int) -> Interval:
    """
    Return the 95 % interval of a proportion (Wilson 1927), which stays within 0 and 1
    and is no point where all or none hit; without trials anything is possible.
    """
    if not trials:
        return (0.0, 1.0)
    share, z2 = hits / trials, _NORMAL_95**2
    centre = share + z2 / (2 * trials)
    width = _NORMAL_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    return (max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale))


# Rankings; ranks count from 1, None is what was not found


def recall_at(ranks: Sequence[int | None], depth: int) -> float:
    """Return the share of what is wanted that stands within the first `depth`."""
    return metrics.mean([metrics.hit(rank, depth) for rank in ranks])


def ndcg(ranks: Sequence[int | None], depth: int) -> float:
    """
    Return the normalised discounted cumulative gain at `depth` (Järvelin and Kekäläinen
    2002): each wanted thing found at rank r adds 1 / log2(1 + r), over what they would
    add at the top. Two things found at one place cannot add more than two places do.
    """
    best = sum(_discount(rank) for rank in range(1, min(len(ranks), depth) + 1))
    gained = sum(
        _discount(rank) for rank in ranks if rank is not None and rank <= depth
    )
    return min(1.0, gained / best) if best else 0.0


def _discount(rank: int) -> float:
    return 1 / math.log2(1 + rank)


def _ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64]
) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.divide(
        part, whole, out=np.zeros_like(part), where=whole > 0
    )
    return shares


def _percentiles(statistics: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(statistics, _TAILS)
    return (float(low), float(high))
