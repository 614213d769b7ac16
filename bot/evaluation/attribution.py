"""
Suite `attribution`: do the bot's scorers see whether a reply is supported?

It reads replies that people labelled, with the knowledge they were to be based on, in
the format of BEGIN (Dziri et al. 2022, arXiv:2105.00071): a table with tabs whose
header names `data_source`, `knowledge`, `message`, `response` and `begin_label`.
`--data` is a file, or a folder of which all `.tsv` files are read.

The figure is the AUC of the label "Fully attributable": the chance that a supported
reply has a higher score than another one. A scorer sees one reply at a time, so one
that compares siblings (consensus) is at chance. The configured total of a set of one
would always be 0; here it is the weighted sum of z-scores over all replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bot.errors import ConfigError
from bot.evaluation import quality, tuning
from bot.evaluation.judges import AppTools, Bots, Judge, Judged, Toolbox, knowledge
from bot.evaluation.lines import DataFile, Line, chosen, named, table
from bot.evaluation.report import Detail, Report, Row
from bot.evaluation.turns import asking
from bot.interfaces import Progress

if TYPE_CHECKING:
    from bot.app import App

SUPPORTED = "Fully attributable"
_NEEDS = (
    "a table with tabs whose header names data_source, knowledge, message, response "
    "and begin_label"
)

Floats = NDArray[np.float64]


class Labelled(Line):
    """A reply, what it was to be based on, and whether people found that it is."""

    data_source: Annotated[str, Field(min_length=1)]
    knowledge: str
    message: str
    response: str
    begin_label: Annotated[str, Field(min_length=1)]

    @property
    def supported(self) -> bool:
        return self.begin_label == SUPPORTED


async def attribution(
    bots: Bots,
    file: DataFile,
    progress: Progress,
    *,
    tools: Callable[[App], Toolbox] = AppTools,
    also: Sequence[Path] = (),
) -> Report:
    """Measure each scorer's AUC, and the total's; `also` are further files."""
    paths = [named(file, "a file of labelled replies, or a folder of them"), *also]
    labelled = [
        one
        for path in _files(paths)
        for one in chosen(path, table(path, Labelled, _NEEDS, delimiter="\t"), file)
    ]
    rows: list[Row] = []
    details: list[Detail] = []
    for name, app in bots:
        judge = Judge.of(name, app, tools)
        judged = await _judged(judge, labelled, progress)
        scores = {
            scorer: np.array([float(one.scores[scorer][0]) for one in judged])
            for scorer in judge.scorers
        }
        rows += [
            _row(f"{name}: {scorer}", labelled, values)
            for scorer, values in scores.items()
        ]
        total = _total(judge, scores, len(labelled))
        rows.append(_row(name, labelled, total))
        details += [
            Detail(
                config=name,
                record=judge.record(one),
                expected=(label.begin_label,),
                worth=(float(label.supported),),
                metrics={"total": float(weighed)},
            )
            for one, label, weighed in zip(judged, labelled, total, strict=True)
        ]
    return Report(suite="attribution", rows=rows, details=details)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.tsv")) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"{path}: has no .tsv files; name a folder that has")
        found += inside
    return found


async def _judged(
    judge: Judge, labelled: Sequence[Labelled], progress: Progress
) -> list[Judged]:
    step = f"Scoring ({judge.name})"
    judged = []
    for done, one in enumerate(labelled):
        progress(step, done, len(labelled))
        turn = replace(
            asking(f"reply-{done}", one.message), passages=knowledge(one.knowledge)
        )
        judged.append(await judge.judge(turn, [one.response]))
    progress(step, len(labelled), len(labelled))
    return judged


def _total(judge: Judge, scores: Mapping[str, Floats], replies: int) -> Floats:
    total = np.zeros(replies)
    for scorer, values in scores.items():
        total += judge.weight(scorer) * tuning.z_scores(values[:, None])[:, 0]
    return total


def _row(name: str, labelled: Sequence[Labelled], scores: Floats) -> Row:
    """Return the AUC within each source, and over all replies."""
    sources = list(dict.fromkeys(one.data_source for one in labelled))
    estimates: dict[str, quality.Estimate] = {}
    for title, among in [
        *((f"auc {source}", source) for source in sources),
        ("auc", None),
    ]:
        of = [
            (score, one.supported)
            for score, one in zip(scores.tolist(), labelled, strict=True)
            if among in (None, one.data_source)
        ]
        estimate = quality.auc_estimate(
            [score for score, supported in of if supported],
            [score for score, supported in of if not supported],
        )
        if estimate is not None:
            estimates[title] = estimate
    return Row(
        config=name,
        metrics={title: one.value for title, one in estimates.items()},
        intervals={title: one.interval for title, one in estimates.items()},
        n=len(labelled),
    )
