"""
What stands behind the figures of a report's page: the lists that they open, and the
candidates, as the JSON that the page's script shows.

Knows nothing of tables and plots. A list is named by the link that opens it, `#f12`.
Texts are made `visible` here, and `embedded` keeps them from ending the script element
that they stand in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from bot import explain
from bot.evaluation import effects
from bot.evaluation.effects import OrderEffect, Place
from bot.evaluation.report import Detail, Report
from bot.model import Candidate

_HISTORY = 10  # messages before a question that are shown

# Characters that would hide what a text says, or move what stands beside it.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """
    Return the text with what is invisible in it spelled out: control characters as
    their pictures, marks that turn the direction of writing as `[U+202E]`.
    """
    return _HIDDEN.sub(lambda found: _spelled(found[0]), text)


def _spelled(character: str) -> str:
    code = ord(character)
    if code < 0x20:  # noqa: PLR2004 -- the pictures follow the codes up to the space
        return chr(0x2400 + code)
    return f"[U+{code:04X}]"


def embedded(page: Mapping[str, JsonValue]) -> str:
    """Return JSON that no HTML parser reads as markup."""
    written = json.dumps(
        page, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


class Behind:
    """
    Gathers the list behind each figure, for the script to show. A list is named by its
    place; its rows are questions, or candidates of questions.
    """

    def __init__(self, report: Report) -> None:
        self.details = report.details
        self.configs = list(
            dict.fromkeys(
                [
                    *(row.config for row in report.rows),
                    *(detail.config for detail in report.details),
                ]
            )
        )
        self.of = {
            config: [
                number
                for number, detail in enumerate(self.details)
                if detail.config == config
            ]
            for config in self.configs
        }
        self._lists: list[JsonValue] = []
        self._cells: dict[tuple[str, str], str] = {}

    def questions(
        self,
        title: str,
        details: Sequence[int],
        values: Sequence[float] | None = None,
        *,
        metric: str | None = None,
        note: str = "",
    ) -> str:
        """Add a list of questions, each with its value or its own metric."""
        return self._add(
            title,
            note,
            {
                "rows": list(details),
                "metric": metric,
                "values": None if values is None else [_rounded(one) for one in values],
            },
            empty=not details,
        )

    def candidates(
        self, title: str, places: Iterable[Place], *, score: str | None = None
    ) -> str:
        """Add a list of candidates, each with its worth or a scorer's score."""
        found = list(places)
        return self._add(
            title,
            "",
            {
                "rows": [place.detail for place in found],
                "at": [place.candidate for place in found],
                "score": score,
            },
            empty=not found,
        )

    def changes(self, effect: OrderEffect) -> str:
        """Add a list of the questions where another candidate came first."""
        changes = sorted(effect.changes, key=lambda one: one.gained or 0.0)
        return self._add(
            f"{effect.config}: first because of {effect.plugin}",
            "The value is what it gained in worth over who would have been first.",
            {
                "rows": [one.detail for one in changes],
                "at": [one.first for one in changes],
                "instead": [one.instead_of for one in changes],
                "values": [_rounded(one.gained) for one in changes],
            },
            empty=not changes,
        )

    def cell(self, config: str, metric: str) -> str:
        """Return the list behind one configuration's metric."""
        key = config, metric
        if key not in self._cells:
            measured = [
                one for one in self.of[config] if metric in self.details[one].metrics
            ]
            note = "This figure is not kept question by question; it is over these."
            self._cells[key] = self.questions(
                f"{config}: {metric}",
                measured or self.of[config],
                metric=metric if measured else None,
                note="" if measured else note,
            )
        return self._cells[key]

    def _add(
        self, title: str, note: str, rows: Mapping[str, JsonValue], *, empty: bool
    ) -> str:
        if empty:
            return ""
        told = {
            name: visible(value) if isinstance(value, str) else value
            for name, value in rows.items()
            if value is not None
        }
        self._lists.append({"title": visible(title), "note": note, **told})
        return f"#f{len(self._lists) - 1}"

    def page(self) -> dict[str, JsonValue]:
        """Everything that the script shows; every text made visible."""
        passages: dict[str, int] = {}
        scorers = {
            config: list(
                dict.fromkeys(
                    scorer
                    for one in numbers
                    for candidate in self.details[one].record.candidates
                    for scorer in candidate.scores
                )
            )
            for config, numbers in self.of.items()
        }
        details: list[JsonValue] = [
            self._detail(detail, scorers[detail.config], passages)
            for detail in self.details
        ]
        return {
            "lists": self._lists,
            "configs": [visible(config) for config in self.configs],
            "scorers": [
                [visible(one) for one in scorers[config]] for config in self.configs
            ],
            "columns": list(_COLUMNS),
            "details": details,
            # A passage is found for many questions, and by every configuration.
            "passages": [json.loads(passage) for passage in passages],
        }

    def _detail(
        self, detail: Detail, scorers: Sequence[str], passages: dict[str, int]
    ) -> JsonValue:
        record = detail.record
        candidates: list[JsonValue] = [
            _candidate(candidate, effects.worth_of(detail, position), scorers)
            for position, candidate in enumerate(record.candidates)
        ]
        found: list[JsonValue] = []
        for passage in record.turn.passages:
            told = json.dumps([visible(explain.place(passage)), visible(passage.text)])
            found.append(
                [passages.setdefault(told, len(passages)), _rounded(passage.score)]
            )
        return {
            "id": visible(record.turn.id),
            "config": self.configs.index(detail.config),
            "question": visible(record.turn.question),
            "history": [
                [event.kind, visible(event.text)]
                for event in record.turn.history[-_HISTORY:]
            ],
            "outcome": record.outcome,
            "reply": visible(record.reply.text),
            "why": visible(record.why),
            "chosen": record.chosen,
            "expected": [visible(one) for one in detail.expected],
            "metrics": {
                visible(name): _rounded(value) for name, value in detail.metrics.items()
            },
            "candidates": candidates,
            "passages": found,
            "orders": {
                visible(name): [place + 1 for place in order]
                for name, order in record.orders.items()
            },
            "problems": [visible(one) for one in record.problems],
            "ms": {visible(name): _rounded(ms) for name, ms in record.ms.items()},
        }


_COLUMNS = (
    "text",
    "origin",
    "variant",
    "finish",
    "tokens",
    "block",
    "settled",
    "rank",
    "dropped",
    "total",
    "worth",
    "scores",
    "contributions",
)


def _candidate(
    candidate: Candidate, worth: float | None, scorers: Sequence[str]
) -> JsonValue:
    """A row: the columns' names, ten thousand times, would be a megabyte."""
    scored = bool(candidate.scores)
    told: dict[str, JsonValue] = {
        "text": visible(candidate.text),
        "origin": visible(candidate.origin),
        "variant": visible(candidate.variant),
        "finish": candidate.finish,
        "tokens": len(candidate.tokens),
        "block": candidate.block,
        "settled": int(candidate.settled),
        "rank": candidate.rank,
        "dropped": None if candidate.dropped is None else visible(candidate.dropped),
        "total": _rounded(candidate.total),
        "worth": _rounded(worth),
        "scores": (
            [_rounded(candidate.scores.get(one)) for one in scorers] if scored else None
        ),
        "contributions": (
            [_rounded(candidate.contributions.get(one)) for one in scorers]
            if scored
            else None
        ),
    }
    return [told[column] for column in _COLUMNS]


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
