"""
Times two ways of doing the same thing so that they can be compared.

Knows nothing about what is done. The ways take turns, so that a machine that slows
down slows both; round 0 warms up and does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
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
    times: list[tuple[float, float]] = []
    for number in range(0 if warm_up else 1, rounds + 1):
        ours = _spent(contest.ours, number, clock)
        theirs = _spent(contest.theirs, number, clock)
        times.append((ours * contest.per_second, theirs * contest.per_second))
    ours_times, their_times = zip(*times[-rounds:], strict=True)
    return BenchRow(
        case=contest.case,
        ours=statistics.median(ours_times),
        baseline=contest.baseline,
        theirs=statistics.median(their_times),
        unit=contest.unit,
        spread=(_range(ours_times), _range(their_times)),
    )


def _spent(
    way: Callable[[int], object], number: int, clock: Callable[[], float]
) -> float:
    began = clock()
    way(number)
    return clock() - began


def _range(times: tuple[float, ...]) -> Interval:
    return (min(times), max(times))
