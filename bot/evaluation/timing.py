"""
Times two ways of doing the same thing so that they can be compared.

Knows nothing about what is done. The ways take turns, so that a machine that slows
down slows both; round 0 warms up and does not count.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.evaluation.metrics import Interval
from bot.evaluation.report import BenchRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """
    Two ways of doing one case. Each is told the round's number, so that it can be
    given work that no cache has seen; both get the same.
    """

    case: str
    ours: Callable[[int], object]
    baseline: str
    theirs: Callable[[int], object]
    unit: str
    per_second: float  # how many units a second has


def measured(
    contest: Contest,
    *,
    rounds: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> BenchRow:
    """Return the medians over `rounds`, in the contest's unit."""
    times = raced(
        {"ours": contest.ours, "theirs": contest.theirs},
        rounds=rounds,
        warm_up=warm_up,
        clock=clock,
    )
    return compared(
        contest.case,
        [seconds * contest.per_second for seconds in times["ours"]],
        contest.baseline,
        [seconds * contest.per_second for seconds in times["theirs"]],
        contest.unit,
    )


def raced(
    ways: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    enough_s: float = math.inf,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """
    Return the seconds that each way took in each round. A way that has taken
    `enough_s` in all sits the other rounds out.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, way in ways.items():
            if sum(times[name]) >= enough_s:
                continue
            seconds = _spent(way, number, clock)
            if number > 0:
                times[name].append(seconds)
    return times


def compared(
    case: str,
    ours: Sequence[float],
    baseline: str,
    theirs: Sequence[float],
    unit: str,
) -> BenchRow:
    """Return the row of one case: the medians and ranges of both ways' repeats."""
    return BenchRow(
        case=case,
        ours=statistics.median(ours),
        baseline=baseline,
        theirs=statistics.median(theirs),
        unit=unit,
        spread=(spread(ours), spread(theirs)),
    )


def _spent(
    way: Callable[[int], object], number: int, clock: Callable[[], float]
) -> float:
    began = clock()
    way(number)
    return clock() - began


def spread(times: Sequence[float]) -> Interval:
    return (min(times), max(times))
