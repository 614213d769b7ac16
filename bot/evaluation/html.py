"""
A report as one HTML page: tables, plots, and behind every figure its candidates.

Knows the report and `effects`, and nothing of how answers came about. The page needs no
network and forbids itself one (its policy allows the page's own style and script, by
their hashes). Tables and plots are in the HTML; the candidates are JSON in the page,
of which its script shows what is asked for. What customers and models wrote is hostile:
Jinja2 escapes it in the HTML, `embedded` in the JSON, and the script writes text only.

How it looks, and the script, are in report.html.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bot.evaluation import effects
from bot.evaluation.behind import Behind, embedded, visible
from bot.evaluation.metrics import Interval
from bot.evaluation.plots import (
    Scale,
    interval_of,
    less_is_better,
    panels,
    scatters,
    spreads,
)
from bot.evaluation.report import Report, Row

_UNKNOWN = "\N{EN DASH}"


def html(report: Report, *, title: str, made: datetime) -> str:
    """
    Return the page. It can be written as UTF-8 whatever the texts hold, and is the
    same for the same arguments.
    """
    behind, bar = Behind(report), effects.bar(report.details)
    sections = {
        "results": _results(report, behind),
        "scatters": scatters(report.rows, behind),
        "panels": panels(effects.coverages(report.details), behind),
        "spreads": spreads(effects.separations(report.details, bar), behind),
        "effects": _effects(report, bar, behind),
    }
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            visible(value)
            if isinstance(value, str) and not isinstance(value, Markup)
            else value
        ),
    )
    environment.filters |= {"hash": _hash, "number": number, "share": _share}
    template = resources.files("bot.evaluation").joinpath("report.html")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        suite=report.suite,
        made=made,
        configs=behind.configs,
        questions=len({detail.record.turn.id for detail in report.details}),
        candidates=sum(len(one.record.candidates) for one in report.details),
        worthy_from=bar,
        data=Markup(embedded(behind.page())),  # noqa: S704 -- embedded escapes it
        **sections,
    )


def number(value: float | None) -> str:
    """Write a figure with the digits that matter at its size."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    if value == 0:
        return "0"
    for size, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= size:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else _UNKNOWN


def _hash(text: str) -> Markup:
    """The source that allows exactly this inline style or script."""
    digest = hashlib.sha256(text.encode()).digest()
    # Base64 needs no escaping, and a policy must not have its + written as an entity.
    return Markup(f"'sha256-{base64.b64encode(digest).decode()}'")  # noqa: S704


# The table of configurations


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A figure, what opens its list, and its interval as shares of the column."""

    value: float
    href: str
    interval: Interval | None
    bar: tuple[float, float, float] | None
    zero: float | None
    best: bool


def _results(report: Report, behind: Behind) -> dict[str, object]:
    names = list(dict.fromkeys(name for row in report.rows for name in row.metrics))
    columns = {name: _column(report.rows, name, behind) for name in names}
    return {
        "names": [(name, less_is_better(name)) for name in names],
        "rows": [
            (row, [columns[name].get(place) for name in names])
            for place, row in enumerate(report.rows)
        ],
    }


def _column(rows: Sequence[Row], name: str, behind: Behind) -> dict[int, _Cell]:
    values = {
        place: row.metrics[name]
        for place, row in enumerate(rows)
        if math.isfinite(row.metrics.get(name, math.nan))
    }
    intervals = {place: interval_of(rows[place], name) for place in values}
    ends = [end for pair in intervals.values() if pair for end in pair]
    if not values:
        return {}
    low, high = min([*values.values(), *ends]), max([*values.values(), *ends])
    across = Scale(low, high, 0.0, 100.0)
    best = (min if less_is_better(name) else max)(values.values())
    return {
        place: _Cell(
            value=value,
            href=behind.cell(rows[place].config, name),
            interval=pair,
            bar=(across(pair[0]), across(value), across(pair[1])) if pair else None,
            zero=across(0.0) if low < 0 < high else None,
            best=value == best and len(set(values.values())) > 1,
        )
        for place, value in values.items()
        for pair in [intervals[place]]
    }


# What each plugin changed


def _effects(report: Report, worthy_from: float, behind: Behind) -> dict[str, object]:
    details = report.details
    order: Callable[[str], int] = behind.configs.index
    return {
        "filters": [
            (
                one,
                behind.candidates(
                    f"{one.config}: dropped by {one.plugin}", one.dropped
                ),
                behind.candidates(
                    f"{one.config}: worthy, and dropped by {one.plugin}", one.worthy
                ),
            )
            for one in sorted(
                effects.filter_effects(details, worthy_from),
                key=lambda effect: order(effect.config),
            )
        ],
        "scorers": [
            (one, behind.changes(one))
            for one in sorted(
                effects.scorer_effects(details),
                key=lambda effect: order(effect.config),
            )
        ],
        "rerankers": [
            (one, behind.changes(one))
            for one in sorted(
                effects.reranker_effects(details),
                key=lambda effect: order(effect.config),
            )
        ],
        "sources": [
            (
                one,
                behind.candidates(f"{one.config}: by {_source(one)}", one.candidates),
                behind.candidates(
                    f"{one.config}: picked, by {_source(one)}", one.picks
                ),
            )
            for one in sorted(
                effects.source_effects(details),
                key=lambda effect: order(effect.config),
            )
        ],
    }


def _source(effect: effects.SourceEffect) -> str:
    return f"{effect.origin}, {effect.variant}" if effect.variant else effect.origin
