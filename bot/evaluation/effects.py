"""
What each plugin changed in the answers of a report, as pure functions of the records.

Knows what a record kept and nothing else. No plugin is asked again, so an effect is
what can be recomputed: a scorer is left out of the total, but rerankers and the
selector do not see the other order; a candidate that a filter dropped has no scores.
Every count comes with the places of the candidates it counts.

A candidate is worthy when its worth reaches `bar`. What nobody judged counts neither
way. Replies written in blocks have a set of candidates in every block.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bot.evaluation import metrics
from bot.evaluation.metrics import Interval
from bot.evaluation.quality import pairwise_accuracy
from bot.evaluation.report import Detail
from bot.model import Candidate

# A total summed in another order differs in its last digits.
_EQUAL = 1e-9


class Place(NamedTuple):
    """A candidate: positions in the report's details and in the record."""

    detail: int
    candidate: int


class Change(NamedTuple):
    """Which candidate came first with a plugin, and which without it."""

    detail: int
    first: int
    instead_of: int
    gained: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterEffect:
    """`worthy` of the dropped ones, of the `judged` ones among them."""

    config: str
    plugin: str
    candidates: int
    dropped: Sequence[Place]
    worthy: Sequence[Place]
    judged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEffect:
    """
    A scorer or a reranker: in how many of the `sets` that it saw another candidate
    came first because of it, and what that was worth: the mean over all questions
    whose worth is known (`gained` is None when none is).
    """

    config: str
    plugin: str
    sets: int
    changes: Sequence[Change]
    gained: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEffect:
    """
    What a writer, or a prompt variant, gave: candidates, and picks among all `sets`
    of the configuration. Worths are means, None where nobody judged.
    """

    config: str
    origin: str
    variant: str
    candidates: Sequence[Place]
    worth: float | None
    picks: Sequence[Place]
    picked_worth: float | None
    sets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """
    How a scorer's numbers tell worthy candidates from others. `auc` compares any
    worthy one with any other, `within` only candidates of one question whose worth
    differs, which is all that a ranking needs; ties count half.
    """

    config: str
    scorer: str
    worthy: Mapping[Place, float]
    unworthy: Mapping[Place, float]
    auc: float | None
    within: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """
    Worth against the number of candidates, one number per question in `drawn[j]`,
    `ranked[j]` and `picked`, of the questions at `details`.
    """

    config: str
    details: Sequence[int]
    drawn: Sequence[Sequence[float]] = field(default=())
    ranked: Sequence[Sequence[float]] = field(default=())
    picked: Sequence[float] = ()


def bar(details: Sequence[Detail]) -> float:
    """
    Return the worth from which a candidate is worthy: a half where worths are shares,
    the middle between the lowest and the highest where they are ratings.
    """
    known = [
        worth
        for detail in details
        for position in range(len(detail.record.candidates))
        if (worth := worth_of(detail, position)) is not None
    ]
    if not known or (min(known) >= 0.0 and max(known) <= 1.0):
        return 0.5
    return (min(known) + max(known)) / 2


def worth_of(detail: Detail, position: int | None) -> float | None:
    """Return what picking this candidate is worth, None where nobody knows."""
    if position is None or not 0 <= position < len(detail.worth):
        return None
    worth = float(detail.worth[position])
    return worth if math.isfinite(worth) else None


# Filters


def filter_effects(details: Sequence[Detail], worthy_from: float) -> list[FilterEffect]:
    """One for each filter that dropped something, most first in a configuration."""
    seen: dict[str, int] = defaultdict(int)
    dropped: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for number, detail in enumerate(details):
        seen[detail.config] += len(detail.record.candidates)
        for position, candidate in enumerate(detail.record.candidates):
            if candidate.dropped is not None:
                key = detail.config, filter_of(candidate.dropped)
                dropped[key].append(Place(number, position))
    effects = []
    for (config, plugin), places in dropped.items():
        worths = {place: worth_of(details[place[0]], place[1]) for place in places}
        judged = {place: worth for place, worth in worths.items() if worth is not None}
        effects.append(
            FilterEffect(
                config=config,
                plugin=plugin,
                candidates=seen[config],
                dropped=places,
                worthy=[
                    place for place, worth in judged.items() if worth >= worthy_from
                ],
                judged=len(judged),
            )
        )
    return sorted(effects, key=lambda one: -len(one.dropped))


def filter_of(why: str) -> str:
    """Name the filter in `name: why`, which is how the ranking notes a drop."""
    return why.split(":", 1)[0]


# Scorers


def scorer_effects(details: Sequence[Detail]) -> list[OrderEffect]:
    """
    Leave each scorer's contribution out of the total, and see who comes first then.
    Who comes first is by total, before rerankers; among equals nothing changes.
    """
    tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
    for number, detail in enumerate(details):
        for by_total in _sets_by_total(detail):
            first = by_total[0]
            candidates = detail.record.candidates
            for scorer in candidates[first].contributions:
                other = _first_without(scorer, candidates, by_total)
                tallies[detail.config, scorer].add(number, detail, first, other)
    return _order_effects(tallies)


def _first_without(
    scorer: str, candidates: Sequence[Candidate], by_total: Sequence[int]
) -> int:
    left = np.array(
        [
            sum(
                part
                for name, part in candidates[position].contributions.items()
                if name != scorer
            )
            for position in by_total
        ]
    )
    # The first within the tolerance, so the one that leads by total keeps a tie.
    return by_total[int((left >= left.max() - _EQUAL).argmax())]


# Rerankers


def reranker_effects(details: Sequence[Detail]) -> list[OrderEffect]:
    """Compare who is first in each reranker's order with who was before it."""
    tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
    for number, detail in enumerate(details):
        for block, ranked in _sets(detail):
            orders = _orders(detail, block, len(ranked))
            by_total = _by_total(ranked, orders)
            firsts = [0, *(order[0] for order in orders.values())]
            for plugin, (before, after) in zip(orders, pairwise(firsts), strict=True):
                tallies[detail.config, plugin].add(
                    number, detail, by_total[after], by_total[before]
                )
    return _order_effects(tallies)


# Writers and prompt variants


def source_effects(details: Sequence[Detail]) -> list[SourceEffect]:
    """Who wrote the candidates, and who wrote those that were picked."""
    given: dict[tuple[str, str, str], list[Place]] = defaultdict(list)
    picks: dict[tuple[str, str, str], list[Place]] = defaultdict(list)
    sets: dict[str, int] = defaultdict(int)
    for number, detail in enumerate(details):
        picked = set(_picks(detail))
        sets[detail.config] += len(picked)
        for position, candidate in enumerate(detail.record.candidates):
            key = detail.config, candidate.origin, candidate.variant
            given[key].append(Place(number, position))
            if position in picked:
                picks[key].append(Place(number, position))
    effects = [
        SourceEffect(
            config=config,
            origin=origin,
            variant=variant,
            candidates=places,
            worth=_mean_worth(details, places),
            picks=picks[config, origin, variant],
            picked_worth=_mean_worth(details, picks[config, origin, variant]),
            sets=sets[config],
        )
        for (config, origin, variant), places in given.items()
    ]
    return sorted(effects, key=lambda one: -len(one.picks))


def _picks(detail: Detail) -> Iterator[int]:
    """The pick of each block; of a whole reply, the one that was sent."""
    for position, candidate in enumerate(detail.record.candidates):
        if candidate.settled or position == detail.record.chosen:
            yield position


def _mean_worth(details: Sequence[Detail], places: Sequence[Place]) -> float | None:
    worths = [worth_of(details[number], position) for number, position in places]
    known = [worth for worth in worths if worth is not None]
    return metrics.mean(known) if known else None


# Scores against worth


def separations(details: Sequence[Detail], worthy_from: float) -> list[Separation]:
    """Each scorer's numbers for worthy candidates and others, per configuration."""
    worthy: dict[tuple[str, str], dict[Place, float]] = defaultdict(dict)
    unworthy: dict[tuple[str, str], dict[Place, float]] = defaultdict(dict)
    within: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, detail in enumerate(details):
        for scorer, scored in _judged_scores(detail).items():
            key = detail.config, scorer
            for position, score, worth in scored:
                side = worthy if worth >= worthy_from else unworthy
                side[key][Place(number, position)] = score
            share = pairwise_accuracy(
                [score for _, score, _ in scored], [worth for _, _, worth in scored]
            )
            within[key] += [] if share is None else [share]
    return [
        Separation(
            config=config,
            scorer=scorer,
            worthy=worthy[config, scorer],
            unworthy=unworthy[config, scorer],
            auc=auc(
                list(worthy[config, scorer].values()),
                list(unworthy[config, scorer].values()),
            ),
            within=metrics.mean(shares) if shares else None,
        )
        for (config, scorer), shares in within.items()
    ]


def _judged_scores(detail: Detail) -> dict[str, list[tuple[int, float, float]]]:
    """(position, score, worth) of each candidate that has both, by scorer."""
    found: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for position, candidate in enumerate(detail.record.candidates):
        worth = worth_of(detail, position)
        for scorer, score in candidate.scores.items() if worth is not None else ():
            if worth is not None and math.isfinite(score):
                found[scorer].append((position, score, worth))
    return found


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """
    Return the chance that a positive lies above a negative, ties half. In O(n log n),
    where `quality.auc` holds every pair: a report has ten thousand candidates.
    """
    if not positives or not negatives:
        return None
    ordered = np.sort(np.asarray(negatives, np.float64))
    below = np.searchsorted(ordered, positives, side="left")
    not_above = np.searchsorted(ordered, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))


# Worth against the number of candidates


def coverages(details: Sequence[Detail]) -> list[Coverage]:
    """
    What the best of j candidates is worth, for every j, beside what was picked.

    A record has its candidates in rank order and not as they were drawn, and siblings
    are exchangeable: so `drawn` is the mean over all ways of taking j of them, dropped
    ones too. `ranked` takes the first j in rank. A question that has fewer than j
    keeps the best it has; where nothing was picked, the pick is worth 0.
    """
    known: dict[str, list[tuple[int, list[float], list[float], float]]] = {}
    for number, detail in enumerate(details):
        worths = _worths(detail)
        if worths:
            drawn = expected_best(list(worths.values()))
            ranked = [
                worths[position]
                for position in worths
                if detail.record.candidates[position].dropped is None
            ]
            best = np.maximum.accumulate(ranked).tolist() if ranked else [0.0]
            picked = worth_of(detail, detail.record.chosen) or 0.0
            known.setdefault(detail.config, []).append((number, drawn, best, picked))
    return [
        Coverage(
            config=config,
            details=[number for number, *_ in rows],
            drawn=_at_each([drawn for _, drawn, _, _ in rows]),
            ranked=_at_each([best for _, _, best, _ in rows]),
            picked=[picked for *_, picked in rows],
        )
        for config, rows in known.items()
    ]


def expected_best(worths: Sequence[float]) -> list[float]:
    """
    Return, for j = 1 … n, the mean of the best of j over all choices of j from n.

    The i-th smallest is the best of C(i-1, j-1) among C(n, j) choices. Of worths that
    are 0 or 1 this is pass@k of Chen et al. 2021, https://arxiv.org/abs/2107.03374.
    """
    n, ascending = len(worths), sorted(worths)
    return [
        sum(
            worth * (math.comb(below, j - 1) / math.comb(n, j))
            for below, worth in enumerate(ascending)
        )
        for j in range(1, n + 1)
    ]


def _worths(detail: Detail) -> dict[int, float]:
    """Worth by position, of the set that the reply was picked from."""
    candidates = detail.record.candidates
    if not candidates:
        return {}
    last = candidates[-1 if detail.record.chosen is None else detail.record.chosen]
    return {
        position: worth
        for position, candidate in enumerate(candidates)
        if candidate.block == last.block
        and (worth := worth_of(detail, position)) is not None
    }


def _at_each(curves: Sequence[Sequence[float]]) -> list[list[float]]:
    """One list per j of each question's value there."""
    longest = max(map(len, curves))
    return [[curve[min(j, len(curve) - 1)] for curve in curves] for j in range(longest)]


# The sets of a record, and their order by total


def _sets_by_total(detail: Detail) -> Iterator[Sequence[int]]:
    for block, ranked in _sets(detail):
        yield _by_total(ranked, _orders(detail, block, len(ranked)))


def _sets(detail: Detail) -> Iterator[tuple[int, Sequence[int]]]:
    """Each block's number, and the positions of its ranked candidates in rank order."""
    blocks: dict[int, list[int]] = defaultdict(list)
    for position, candidate in enumerate(detail.record.candidates):
        if candidate.dropped is None:
            blocks[candidate.block].append(position)
    yield from blocks.items()


def _orders(detail: Detail, block: int, length: int) -> dict[str, Sequence[int]]:
    """The orders of one block's rerankers, by their names, as they were asked."""
    suffix = f", block {block}" if block else ""
    return {
        name.removesuffix(suffix): order
        for name, order in detail.record.orders.items()
        if name.endswith(suffix) and sorted(order) == list(range(length))
    }


def _by_total(
    ranked: Sequence[int], orders: Mapping[str, Sequence[int]]
) -> Sequence[int]:
    """Undo the last reranker, whose order is the one that the candidates have."""
    if not orders:
        return ranked
    by_total = [0] * len(ranked)
    for position, place in zip(ranked, list(orders.values())[-1], strict=True):
        by_total[place] = position
    return by_total


class _Tally:
    """Counts who came first, with a plugin and without, over the sets it saw."""

    def __init__(self) -> None:
        self.sets = 0
        self.changes: list[Change] = []
        self.gains: dict[int, float] = defaultdict(float)

    def add(self, number: int, detail: Detail, first: int, other: int) -> None:
        self.sets += 1
        mine, others = worth_of(detail, first), worth_of(detail, other)
        gained = None if mine is None or others is None else mine - others
        if gained is not None:
            self.gains[number] += gained
        if first != other:
            self.changes.append(Change(number, first, other, gained))


def _order_effects(tallies: Mapping[tuple[str, str], _Tally]) -> list[OrderEffect]:
    return [
        OrderEffect(
            config=config,
            plugin=plugin,
            sets=tally.sets,
            changes=tally.changes,
            gained=metrics.mean(list(tally.gains.values())) if tally.gains else None,
            interval=(
                metrics.bootstrap(list(tally.gains.values())) if tally.gains else None
            ),
        )
        for (config, plugin), tally in tallies.items()
    ]
