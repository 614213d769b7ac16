"""
Learns from customers' thumbs which replies they call good.

    maximise Σ log p(rating | reply) - l2 / 2 · |weights|²
    p(good) = sigmoid(b + Σ w_i · (score_i - mean_i) / scale_i + v · embedding(reply))

Logistic regression by Newton's method. Scores are made to have a spread of one, and a
whole embedding has a length of one, so the penalty treats the embedding as one opinion
beside those of the scorers. Knows nothing of where thumbs and vectors come from, nor of
who uses the model: it is what the scorer `feedback` reads.

How good it is is measured on replies that it was not fitted to: the area under the ROC
curve (the chance that a good reply is put before a bad one), averaged over folds. It is
an estimate for replies that won already; those that were not sent nobody judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from bot.errors import ConfigError

FOLDS = 5
_FEWEST = 2  # of each kind, for a fold to be left out
_STEPS = 100
_ENOUGH = 1e-8  # of a change, for Newton's method to end
_LEAST_SPREAD = 1e-9
_SCORES_ITSELF = "feedback"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A reply that was judged: its scores, its embedding, and whether it was good."""

    scores: Mapping[str, float]
    vector: NDArray[np.float32]
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackModel:
    """What was learned, in the shape that is written to the file."""

    names: Sequence[str]
    means: Sequence[float]
    scales: Sequence[float]
    weights: Sequence[float]
    embedding: Sequence[float]
    bias: float
    trained_on: int
    version: int = 1

    def as_json(self) -> dict[str, JsonValue]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """
    A model, and what it is worth: `auc` on replies it had not seen, `chance_auc` up to
    which a model that knows nothing comes in 39 of 40 cases.
    """

    model: FeedbackModel
    good: int
    bad: int
    auc: float
    chance_auc: float

    @property
    def useful(self) -> bool:
        return self.auc > self.chance_auc


def train(examples: Sequence[Example], *, minimum: int, l2: float = 1.0) -> Training:
    """
    Return the model of all examples and its worth by cross-validation. Raises
    ConfigError where there are fewer than `minimum` good or bad ones.
    """
    good = sum(example.good for example in examples)
    bad = len(examples) - good
    needed = max(minimum, _FEWEST)
    if min(good, bad) < needed:
        raise ConfigError(
            f"feedback: {good} good and {bad} bad replies are too few to learn from; "
            f"wait for {needed} of each kind"
        )
    return Training(
        model=fitted(examples, l2),
        good=good,
        bad=bad,
        auc=cross_validated_auc(examples, l2),
        # Two standard deviations of the rank-sum statistic without any difference
        # (Mann and Whitney 1947).
        chance_auc=0.5 + 2 * math.sqrt((good + bad + 1) / (12 * good * bad)),
    )


def cross_validated_auc(examples: Sequence[Example], l2: float) -> float:
    """Return the mean AUC over folds with a like share of good replies in each."""
    good = np.array([example.good for example in examples])
    fold = _folds(good)
    areas = []
    for held_out in range(fold.max() + 1):
        unseen = fold == held_out
        others = [one for one, out in zip(examples, unseen, strict=True) if not out]
        model = fitted(others, l2)
        log_odds = np.array([log_odds_of(one, model) for one in examples])
        areas.append(auc(log_odds[unseen], good[unseen]))
    return float(np.mean(areas))


def _folds(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Deal both kinds out in turn; there is one of each in every fold."""
    count = min(FOLDS, int(good.sum()), int((~good).sum()))
    rng = np.random.default_rng(0)
    fold = np.empty(len(good), np.int64)
    for kind in (good, ~good):
        shuffled = rng.permutation(np.flatnonzero(kind))
        fold[shuffled] = np.arange(len(shuffled)) % count
    return fold


def auc(scores: Floats, good: NDArray[np.bool_]) -> float:
    """
    Return the chance that a good one scores above a bad one; a tie counts half. There
    must be both kinds. O(n · m) for n good and m bad ones.
    """
    above = np.sign(scores[good][:, None] - scores[~good][None, :])
    return float((above.mean() + 1) / 2)


def fitted(examples: Sequence[Example], l2: float) -> FeedbackModel:
    """Return the model that explains the examples best, for the penalty."""
    names = sorted({name for one in examples for name in one.scores} - {_SCORES_ITSELF})
    scores = np.array([[_score(one, name) for name in names] for one in examples])
    scores = scores.reshape(len(examples), len(names))
    means, scales = _means_and_scales(scores)
    vectors = np.array([one.vector for one in examples], np.float64)
    # What is moved to the middle does not pull at the bias; it is moved back below.
    centre = vectors.mean(axis=0)
    features = np.hstack([standardised(scores, means, scales), vectors - centre])
    good = np.array([float(one.good) for one in examples])
    weights, bias = logistic(features, good, l2)
    return FeedbackModel(
        names=tuple(names),
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights[: len(names)].tolist()),
        embedding=tuple(weights[len(names) :].tolist()),
        bias=bias - float(weights[len(names) :] @ centre),
        trained_on=len(examples),
    )


def log_odds_of(example: Example, model: FeedbackModel) -> float:
    """Return what the model thinks of a reply; the scorer computes the same."""
    scores = np.array([[_score(example, name) for name in model.names]])
    parts = standardised(scores, np.array(model.means), np.array(model.scales))
    by_scores = float(parts[0] @ np.array(model.weights)) if model.names else 0.0
    by_meaning = float(example.vector.astype(np.float64) @ np.array(model.embedding))
    return model.bias + by_scores + by_meaning


def _score(example: Example, name: str) -> float:
    value = example.scores.get(name, math.nan)
    return value if math.isfinite(value) else math.nan


def _means_and_scales(scores: Floats) -> tuple[Floats, Floats]:
    """Return both for each column of what is known; a constant column keeps scale 1."""
    known = ~np.isnan(scores)
    count = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, scores, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, scores - means, 0) ** 2).sum(axis=0) / count)
    floor = _LEAST_SPREAD * np.maximum(1, np.abs(means))
    return means, np.where(spread > floor, spread, 1.0)


def standardised(scores: Floats, means: Floats, scales: Floats) -> Floats:
    """Return scores [n, m] around their means; one that is missing counts as it."""
    return np.nan_to_num((scores - means) / scales, nan=0.0)


def logistic(features: Floats, good: Floats, l2: float) -> tuple[Floats, float]:
    """
    Return the weights and the bias of L2-penalised logistic regression, by Newton's
    method with halved steps. The bias bears no penalty. `good` is 1 or 0, both occur.
    """
    # The weights are a sum of examples, so fewer examples than features leave as few
    # directions to look in; a turn of the axes changes neither fit nor penalty.
    axes: Floats = np.linalg.svd(features, full_matrices=False)[2]
    rows = np.hstack([features @ axes.T, np.ones((len(features), 1))])
    penalty = np.full(rows.shape[1], l2)
    penalty[-1] = 0.0
    weights: Floats = np.zeros(rows.shape[1])
    loss = _loss(rows, good, penalty, weights)
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(rows @ weights, -500, 500)))
        slope = rows.T @ (chances - good) + penalty * weights
        curve = rows.T @ (rows * (chances * (1 - chances))[:, None]) + np.diag(penalty)
        # The bias alone may have no curvature left, where every chance is 0 or 1.
        step: Floats = np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
        weights, lower = _lowered(rows, good, penalty, (weights, step, loss))
        if loss - lower <= _ENOUGH:
            break
        loss = lower
    return axes.T @ weights[:-1], float(weights[-1])


def _lowered(
    rows: Floats, good: Floats, penalty: Floats, at: tuple[Floats, Floats, float]
) -> tuple[Floats, float]:
    """Go as much of the step as makes the loss smaller; return where, and the loss."""
    weights, step, loss = at
    for halvings in range(30):
        tried = weights - step / 2**halvings
        lower = _loss(rows, good, penalty, tried)
        if lower < loss:
            return tried, lower
    return weights, loss


def _loss(rows: Floats, good: Floats, penalty: Floats, weights: Floats) -> float:
    margins = rows @ weights
    misfit = np.logaddexp(0, margins) - good * margins
    return float(misfit.sum() + 0.5 * (penalty * weights**2).sum())
