"""
The plots of a report's page, as plain numbers in the units of their view box.

Knows rows, coverages and separations, and which list each mark opens; report.html draws
them. Which metrics become axes is read from their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bot.evaluation import metrics
from bot.evaluation.behind import Behind
from bot.evaluation.effects import Coverage, Place, Separation
from bot.evaluation.metrics import Interval
from bot.evaluation.report import Row

# What a metric's name says of it. The names are the suites'; an unknown one is taken
# for a quality of which more is better.
_DIVERSITY = re.compile(
    r"distinct|\bead\b|\bent\b|entropy|self bleu|vendi|cluster|distance|diversity"
)
_COST = re.compile(
    r"\bms\b|\bs\b|seconds|tokens|cost|perplexity|declined|failed|problems"
)
_LESS_IS_BETTER = re.compile(
    r"self bleu|\bms\b|\bs\b|seconds|tokens|cost|perplexity|wrongly|failed|problems"
)
# The first that a report has is the one that is plotted first, and of metrics that say
# nearly the same only one: what the set means, what its words are, how many kinds.
_QUALITY_FIRST = (
    re.compile(r"contain"),
    re.compile(r"accuracy of the pick"),
    re.compile(r"accuracy"),
    re.compile(r"\bany\b"),
    re.compile(r"\bf1\b"),
    re.compile(r"gap"),
    re.compile(r"pick"),
)
_DIVERSITY_FIRST = (
    re.compile(r"vendi"),
    re.compile(r"distinct 2"),
    re.compile(r"cluster"),
    re.compile(r"distance"),
    re.compile(r"distinct"),
    re.compile(r"self bleu"),
)
# Of costs one: what a set took to write is kept with it, the whole turn's time is not.
_COST_FIRST = (re.compile(r"write ms"), re.compile(r"^ms$|ms total|total ms"))
_AXES = 3  # so many metrics of each kind are plotted against each other

_BINS = 16


def less_is_better(name: str) -> bool:
    return bool(_LESS_IS_BETTER.search(_words(name)))


def interval_of(row: Row, name: str) -> Interval | None:
    """Return a metric's interval where it has one that can be drawn."""
    pair = row.intervals.get(name)
    return pair if pair is not None and all(map(math.isfinite, pair)) else None


def _words(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name).casefold()


# Plots: numbers in the units of a view box


@dataclass(frozen=True, slots=True)
class Scale:
    """Puts a value between `low` and `high` on a line from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high <= self.low:
            return round((self.start + self.end) / 2, 1)
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A plot without what is in it: its size, axes and their marks."""

    width: int
    height: int
    x: Scale
    y: Scale
    x_marks: Sequence[tuple[float, str]]
    y_marks: Sequence[tuple[float, str]]


def _frame(
    xs: Sequence[float], ys: Sequence[float], size: tuple[int, int], *, whole_x: bool
) -> Frame:
    """Frame these values, with a twentieth of room round them."""
    width, height = size
    x = _roomy(xs, 46.0, width - 14.0, room=0.0 if whole_x else 0.06)
    y = _roomy(ys, height - 40.0, 12.0, room=0.06)
    x_marks = whole_ticks(x.low, x.high) if whole_x else ticks(x.low, x.high)
    return Frame(
        width=width,
        height=height,
        x=x,
        y=y,
        x_marks=[(x(mark), f"{mark:g}") for mark in x_marks],
        y_marks=[(y(mark), f"{mark:g}") for mark in ticks(y.low, y.high)],
    )


def _roomy(values: Sequence[float], start: float, end: float, room: float) -> Scale:
    low, high = min(values), max(values)
    margin = (high - low) * room or (0.5 if room else 0.0)
    return Scale(low - margin, high + margin, start, end)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about as many as wanted."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= 0.7 * rough)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    return [float(f"{(first + place) * step:.10g}") for place in range(count)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Return whole numbers from `low` to `high`, at most eight."""
    step = max(1, math.ceil((high - low) / 7))
    return [float(one) for one in range(math.ceil(low), math.floor(high) + 1, step)]


# Quality against diversity, and against cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A configuration in the plane, by its number in the table."""

    number: int
    config: str
    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None
    x_href: str
    y_href: str
    on_front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    x_name: str
    y_name: str
    less_x: bool
    less_y: bool
    frame: Frame
    points: Sequence[Point]
    front: Sequence[tuple[float, float]]


def scatters(rows: Sequence[Row], behind: Behind) -> list[Scatter]:
    """Plot quality against diversity, and against time, the best known first."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    diversities = [name for name in names if _DIVERSITY.search(_words(name))]
    costs = [
        name for name in names if any(one.search(_words(name)) for one in _COST_FIRST)
    ]
    qualities = [
        name
        for name in names
        if name not in diversities
        and not _COST.search(_words(name))
        and " - " not in name  # a difference says again what its metric says
    ]
    across = [
        *_preferred(diversities, _DIVERSITY_FIRST)[:_AXES],
        *_preferred(costs, _COST_FIRST)[:1],
    ]
    pairs = [
        (x_name, y_name)
        for y_name in _preferred(qualities, _QUALITY_FIRST)[:_AXES]
        for x_name in across
    ]
    made = [_scatter(rows, *pair, behind) for pair in pairs]
    return [one for one in made if one is not None]


def _preferred(names: Sequence[str], first: Sequence[re.Pattern[str]]) -> list[str]:
    """Known kinds first, in the order of `first`, and after them what is left."""
    kinds = [[name for name in names if kind.search(_words(name))] for kind in first]
    # Each kind's first name, then the second names, then what is of no kind.
    return list(
        dict.fromkeys(
            [
                *(kind[0] for kind in kinds if kind),
                *(name for kind in kinds for name in kind),
                *names,
            ]
        )
    )


def _scatter(
    rows: Sequence[Row], x_name: str, y_name: str, behind: Behind
) -> Scatter | None:
    there = [
        (place, row)
        for place, row in enumerate(rows, 1)
        if all(
            math.isfinite(row.metrics.get(name, math.nan)) for name in (x_name, y_name)
        )
    ]
    if not there:
        return None
    less_x, less_y = less_is_better(x_name), less_is_better(y_name)
    places = [(row.metrics[x_name], row.metrics[y_name]) for _, row in there]
    front = pareto(
        [(-x if less_x else x, -y if less_y else y) for x, y in places],
    )
    points = [
        Point(
            number=place,
            config=row.config,
            x=x,
            y=y,
            x_interval=interval_of(row, x_name),
            y_interval=interval_of(row, y_name),
            x_href=behind.cell(row.config, x_name),
            y_href=behind.cell(row.config, y_name),
            on_front=at in front,
        )
        for at, ((place, row), (x, y)) in enumerate(zip(there, places, strict=True))
    ]
    frame = _frame(
        [end for one in points for end in (one.x, *(one.x_interval or ()))],
        [end for one in points for end in (one.y, *(one.y_interval or ()))],
        (480, 330),
        whole_x=False,
    )
    return Scatter(
        x_name=x_name,
        y_name=y_name,
        less_x=less_x,
        less_y=less_y,
        frame=frame,
        points=points,
        front=_stairs(sorted(places[at] for at in front), frame, less_x=less_x),
    )


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """
    Return which points no other beats: none is as good in both and better in one.
    More is better. O(n²): n is the number of configurations.
    """
    return {
        at
        for at, (x, y) in enumerate(points)
        if not any(
            other_x >= x and other_y >= y and (other_x > x or other_y > y)
            for other_x, other_y in points
        )
    }


def _stairs(
    ascending: Sequence[tuple[float, float]], frame: Frame, *, less_x: bool
) -> list[tuple[float, float]]:
    """Return the border of what the front's points beat, from the first to the last."""
    corners: list[tuple[float, float]] = []
    for x, y in ascending:
        if corners:
            before_x, before_y = corners[-1]
            corners.append((x, before_y) if less_x else (before_x, y))
        corners.append((x, y))
    return [(frame.x(x), frame.y(y)) for x, y in corners]


# Quality against the number of candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One point of a curve: the best of `j` candidates."""

    j: int
    value: float
    interval: Interval
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    config: str
    questions: int
    drawn: Sequence[Step]
    ranked: Sequence[Step]
    pick: Step
    frame: Frame
    others: Sequence[Sequence[tuple[float, float]]]


def panels(found: Sequence[Coverage], behind: Behind) -> list[Panel]:
    """
    Make a small plot for each configuration, all in one scale, the others in grey.
    Every point has an interval by bootstrap: ten milliseconds for 200 questions.
    """
    if not found:
        return []
    curves = {
        one.config: (
            _steps(one, one.drawn, "the best of any {} candidates", behind),
            _steps(one, one.ranked, "the best of the first {} in rank", behind),
            _steps(one, [one.picked], "what was picked", behind)[0],
        )
        for one in found
    }
    steps = [
        step
        for drawn, ranked, pick in curves.values()
        for step in (*drawn, *ranked, pick)
    ]
    frame = _frame(
        [1.0, *(float(step.j) for step in steps)],
        [end for step in steps for end in (step.value, *step.interval)],
        (320, 220),
        whole_x=True,
    )
    lines = {
        config: [(frame.x(step.j), frame.y(step.value)) for step in drawn]
        for config, (drawn, _, _) in curves.items()
    }
    return [
        Panel(
            config=one.config,
            questions=len(one.details),
            drawn=curves[one.config][0],
            ranked=curves[one.config][1],
            pick=curves[one.config][2],
            frame=frame,
            others=[line for config, line in lines.items() if config != one.config],
        )
        for one in found
    ]


def _steps(
    coverage: Coverage, curve: Sequence[Sequence[float]], what: str, behind: Behind
) -> list[Step]:
    return [
        Step(
            j=j,
            value=metrics.mean(values),
            interval=metrics.bootstrap(values),
            href=behind.questions(
                f"{coverage.config}: worth of {what.format(j)}",
                coverage.details,
                values,
            ),
        )
        for j, values in enumerate(curve, 1)
    ]


# How scores are spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    low: float
    high: float
    worthy: int
    unworthy: int
    worthy_href: str
    unworthy_href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Two histograms of one scorer; heights are shares of each side's own number."""

    of: Separation
    bins: Sequence[Bin]
    tallest: float
    marks: Sequence[tuple[float, str]]


def spreads(
    separations: Sequence[Separation], behind: Behind
) -> dict[str, list[Spread]]:
    """Each configuration's histograms, one for each scorer."""
    found: dict[str, list[Spread]] = {config: [] for config in behind.configs}
    for one in separations:
        found[one.config].append(_spread(one, behind))
    return {config: some for config, some in found.items() if some}


def _spread(one: Separation, behind: Behind) -> Spread:
    scores = np.array([*one.worthy.values(), *one.unworthy.values()])
    low, high = float(scores.min()), float(scores.max())
    margin = 0.5 if low == high else 0.0
    # Not numpy's own edges: it refuses scores that differ in their last digit only.
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    bins = [
        _bin(one, low, high, worthy, unworthy, behind)
        for low, high, worthy, unworthy in zip(
            edges[:-1].tolist(),
            edges[1:].tolist(),
            _binned(one.worthy, edges.tolist()),
            _binned(one.unworthy, edges.tolist()),
            strict=True,
        )
    ]
    across = Scale(float(edges[0]), float(edges[-1]), 4.0, 316.0)
    marks = ticks(float(edges[0]), float(edges[-1]), 4)
    return Spread(
        of=one,
        bins=bins,
        tallest=max(
            count / max(1, len(side))
            for bin_ in bins
            for count, side in (
                (bin_.worthy, one.worthy),
                (bin_.unworthy, one.unworthy),
            )
        ),
        marks=[(across(mark), f"{mark:g}") for mark in marks],
    )


def _binned(scores: Mapping[Place, float], edges: Sequence[float]) -> list[list[Place]]:
    """Each bin's candidates; a score on an edge between two belongs to the upper."""
    bins: list[list[Place]] = [[] for _ in edges[1:]]
    inner = edges[1:-1]
    for place, bin_ in zip(
        scores, np.searchsorted(inner, list(scores.values()), side="right"), strict=True
    ):
        bins[int(bin_)].append(place)
    return bins


def _bin(  # noqa: PLR0913, PLR0917 -- a row of the table, as it is zipped
    one: Separation,
    low: float,
    high: float,
    worthy: Sequence[Place],
    unworthy: Sequence[Place],
    behind: Behind,
) -> Bin:
    where = f"{one.scorer} from {low:.3g} to {high:.3g}"
    return Bin(
        low=low,
        high=high,
        worthy=len(worthy),
        unworthy=len(unworthy),
        worthy_href=behind.candidates(
            f"{one.config}: worthy candidates, {where}", worthy, score=one.scorer
        ),
        unworthy_href=behind.candidates(
            f"{one.config}: unworthy candidates, {where}", unworthy, score=one.scorer
        ),
    )
