"""
The rows that evaluations and benchmarks report. Their JSON is a contract.

Knows nothing about how a figure came about, and nothing about terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from bot.evaluation import metrics
from bot.evaluation.metrics import Interval
from bot.model import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration's figures over `n` questions, with 95 % intervals."""

    config: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    n: int

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "config": self.config,
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "n": self.n,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """
    One question as one configuration answered it: what figures are made of. `worth`
    says of each of the record's candidates what it would have been worth to pick it
    (1 where it holds the answer, or a person's rating), and is empty where nobody
    knows; `metrics` are this question's own.
    """

    config: str
    record: Record
    expected: Sequence[str] = ()
    worth: Sequence[float] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a suite found: a row for each configuration, and the answers behind it."""

    suite: str
    rows: Sequence[Row]
    details: Sequence[Detail] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """
    One case measured both ways in one run; medians. A `ratio` above 1 means ours is
    better. `spread` is the range of the repeats: (ours, theirs), each (low, high).
    What nobody else does has no `baseline`, nor what comes from one. `also` are further
    figures of the case, by name.
    """

    case: str
    ours: float
    baseline: str | None = None
    theirs: float | None = None
    unit: str
    more_is_better: bool = False
    spread: Sequence[Interval] = field(default=())
    also: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.theirs is None:
            return None
        ratio = self.theirs / self.ours
        return 1 / ratio if self.more_is_better else ratio

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "case": self.case,
            "ours": self.ours,
            "baseline": self.baseline,
            "theirs": self.theirs,
            "unit": self.unit,
            "ratio": self.ratio,
            "spread": [list(pair) for pair in self.spread],
            "also": dict(self.also),
        }


def row(
    config: str, measured: Mapping[str, Sequence[float]], n: int | None = None
) -> Row:
    """
    Make a row from one number per question for each metric. Metrics may be over
    different questions; `n` defaults to the longest. A metric over none is left out.
    """
    some = {name: values for name, values in measured.items() if len(values)}
    return Row(
        config=config,
        metrics={name: metrics.mean(values) for name, values in some.items()},
        intervals={name: metrics.bootstrap(values) for name, values in some.items()},
        n=n if n is not None else max(map(len, some.values()), default=0),
    )
