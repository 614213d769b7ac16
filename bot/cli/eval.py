"""`chorus eval`: how good retrieval and answers are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import write_json, write_table
from bot.evaluation.report import Row
from bot.evaluation.suites import SUITES, HalfOrAll, QuestionFile


@click.command("eval")
@click.argument("suite", type=click.Choice(list(SUITES)))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="File in the suite's format; `handbook` ships its own.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use so many, evenly spread.")
@click.option(
    "--half",
    type=click.Choice(["tune", "report", "all"]),
    default="all",
    help="Questions of one half of the handbook's file; default all.",
)
@click.option(
    "--blocks",
    is_flag=True,
    help="Also answer in blocks, and time what is read first; handbook and qa.",
)
@config_option
@json_option
def command(  # noqa: PLR0913 (one per option)
    *,
    suite: str,
    data: Path | None,
    limit: int | None,
    half: HalfOrAll,
    blocks: bool,
    path: Path,
    as_json: bool,
) -> None:
    """
    Measure how good retrieval and answers are.

    handbook: the shipped questions about the shipped documents. qa: an XQuAD file, each
    question with its own passage. retrieval: an XQuAD file, its passages as documents.
    Intervals are 95 % bootstrap intervals over the questions.
    """
    questions = QuestionFile(path=data, limit=limit, half=half)
    with opened(path) as bot:
        rows = asyncio.run(
            SUITES[suite](bot.app, questions, bot.progress, blocks=blocks)
        )
    if as_json:
        for row in rows:
            write_json(row.as_json(), indent=None)
    else:
        _write_rows(rows)


def _write_rows(rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    write_table(
        ["", *names, "n"],
        [
            [row.config, *(_cell(row, name) for name in names), str(row.n)]
            for row in rows
        ],
    )


def _cell(row: Row, name: str) -> str:
    if name not in row.metrics:
        return ""
    low, high = row.intervals[name]
    digits = 0 if "ms" in name.split() else 3
    return f"{row.metrics[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
