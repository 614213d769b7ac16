"""
Finds the weights of the scorers that pick best, and shows what each scorer is worth.

Pure and fast: it works on scores that were computed once, as z-scores over each set, as
`bot.ranking.with_totals` makes them, and ranks by their weighted sum alone: rerankers
and selectors are left out. Weights are searched on a small grid by seeded coordinate
ascent, because the mean worth of a pick has steps and no gradient. A search over a few
hundred sets finds luck too: `cross_validated` says how much, and what is reported is to
be measured on the other half (`halves`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_RESTARTS = 12
_FOLDS = 5
# Totals that differ by less are equal: they were summed in another order.
_DIGITS = 9

Floats = NDArray[np.float64]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredSet:
    """
    The candidates of one question: `scores` [k, s] as the scorers gave them, and what
    it would be `worth` [k] to pick each.
    """

    scores: Floats
    worth: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """
    The mean worth of the picks on the folds that weights were tuned on, and of the
    picks on the fold that was held out: one number for each set, in order.
    """

    tuned: float
    held_out: Sequence[float]


def halves(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return what stands at even positions, to tune on, and the rest, to report on."""
    return list(items[::2]), list(items[1::2])


def of_half(
    items: Sequence[Item], half: Literal["tune", "report", "all"]
) -> list[Item]:
    if half == "all":
        return list(items)
    tune_on, report_on = halves(items)
    return tune_on if half == "tune" else report_on


def tune(
    sets: Sequence[ScoredSet],
    names: Sequence[str],
    start: Mapping[str, float],
    seed: int = 0,
) -> dict[str, float]:
    """
    Return the weights, one for each of `names` (the columns of the scores), with which
    the picks of these sets are worth most; never less than with `start` (1 where it
    says nothing). Of equals those with the fewest scorers are taken, then the lightest.
    """
    if not sets or not names:
        return dict(zip(names, _vector(names, start).tolist(), strict=True))
    stacked = _Stacked.of(sets)
    generator = np.random.default_rng(seed)
    given = _vector(names, start)
    starts = [given, *np.eye(len(names)), np.ones(len(names))]
    starts += [generator.choice(GRID, len(names)) for _ in range(_RESTARTS)]
    ends = np.stack([given, *(_ascended(stacked, one, generator) for one in starts)])
    means = stacked.means(ends.T)
    best = max(zip(ends, means, strict=True), key=lambda one: _standing(*one))[0]
    return dict(zip(names, best.tolist(), strict=True))


def evaluate(
    sets: Sequence[ScoredSet], names: Sequence[str], weights: Mapping[str, float]
) -> list[int]:
    """Return the pick of each set: its highest total, the first of equals."""
    if not sets:
        return []
    picks = _Stacked.of(sets).picks(_vector(names, weights)[:, None])
    return [int(pick) for pick in picks[:, 0]]


def worths(
    sets: Sequence[ScoredSet], names: Sequence[str], weights: Mapping[str, float]
) -> list[float]:
    """Return what the pick of each set is worth."""
    picks = evaluate(sets, names, weights)
    return [float(one.worth[pick]) for one, pick in zip(sets, picks, strict=True)]


def leave_one_out(
    sets: Sequence[ScoredSet], names: Sequence[str], weights: Mapping[str, float]
) -> dict[str, list[float]]:
    """
    Return what each scorer changes: for each set, the worth of the pick less that of
    the pick without the scorer, the other weights being as they are.
    """
    whole = worths(sets, names, weights)
    return {
        name: np.subtract(
            whole, worths(sets, names, {**_full(names, weights), name: 0.0})
        ).tolist()
        for name in names
    }


def cross_validated(
    sets: Sequence[ScoredSet],
    names: Sequence[str],
    start: Mapping[str, float],
    seed: int = 0,
) -> Validated:
    """
    Tune on four fifths and pick in the fifth that is left, five times over. Where the
    first figure is far above the second, tuning has learned the sets by heart.
    """
    folds = np.random.default_rng(seed).permutation(len(sets)) % _FOLDS
    held_out = np.zeros(len(sets))
    tuned: list[float] = []
    for fold in range(_FOLDS):
        outside = [one for one, its in zip(sets, folds, strict=True) if its != fold]
        inside = [one for one, its in zip(sets, folds, strict=True) if its == fold]
        weights = tune(outside, names, start, seed)
        tuned += worths(outside, names, weights)
        held_out[folds == fold] = worths(inside, names, weights)
    return Validated(
        tuned=float(np.mean(tuned)) if tuned else 0.0, held_out=held_out.tolist()
    )


def z_scores(scores: Floats) -> Floats:
    """Return [k, s] as z-scores by column; 0 where a column calls all equal."""
    exact = np.asarray(scores, np.float64)
    spread = exact.std(axis=0)
    # As in bot.ranking: rounding leaves equal values a spread of their last digit.
    flat = spread <= 1e-9 * np.maximum(1.0, np.abs(exact).max(axis=0, initial=0.0))
    centred = exact - exact.mean(axis=0)
    z: Floats = np.divide(centred, spread, out=np.zeros_like(exact), where=~flat)
    return z


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stacked:
    """
    All sets as one array: `z` [n, k, s], `worth` [n, k] and `missing` [n, k], where a
    set has fewer candidates than the largest.
    """

    z: Floats
    worth: Floats
    missing: NDArray[np.bool_]

    @classmethod
    def of(cls, sets: Sequence[ScoredSet]) -> _Stacked:
        largest = max(len(one.worth) for one in sets)
        scorers = sets[0].scores.shape[1]
        z = np.zeros((len(sets), largest, scorers))
        worth = np.zeros((len(sets), largest))
        missing = np.ones((len(sets), largest), dtype=np.bool_)
        for row, one in enumerate(sets):
            k = len(one.worth)
            z[row, :k] = z_scores(one.scores)
            worth[row, :k] = one.worth
            missing[row, :k] = False
        return cls(z=z, worth=worth, missing=missing)

    def picks(self, weights: Floats) -> NDArray[np.intp]:
        """Return the pick [n, w] of each set under each column of `weights` [s, w]."""
        totals = np.round(self.z @ weights, _DIGITS)
        totals[self.missing] = -np.inf
        picks: NDArray[np.intp] = totals.argmax(axis=1)
        return picks

    def means(self, weights: Floats) -> Floats:
        """Return the mean worth [w] of the picks."""
        found = np.take_along_axis(self.worth, self.picks(weights), axis=1)
        mean: Floats = found.mean(axis=0)
        return mean


def _ascended(
    stacked: _Stacked, start: Floats, generator: np.random.Generator
) -> Floats:
    """Move one weight at a time to its best place on the grid until none moves."""
    at, standing = start, _standing(start, stacked.means(start[:, None])[0])
    while True:
        before = standing
        for scorer in generator.permutation(len(at)):
            choices = np.repeat(at[:, None], len(GRID), axis=1)
            choices[scorer] = GRID
            for choice, mean in zip(choices.T, stacked.means(choices), strict=True):
                if _standing(choice, mean) > standing:
                    at, standing = choice.copy(), _standing(choice, mean)
        if standing == before:
            return at


def _standing(weights: Floats, mean: float) -> tuple[float, int, float]:
    """Return what orders weights: worth, then fewer scorers, then less weight."""
    return (
        round(float(mean), _DIGITS),
        -int(np.count_nonzero(weights)),
        -float(weights.sum()),
    )


def _vector(names: Sequence[str], weights: Mapping[str, float]) -> Floats:
    return np.array([weights.get(name, 1.0) for name in names], np.float64)


def _full(names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    return {name: weights.get(name, 1.0) for name in names}
