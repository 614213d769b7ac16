"""`chorus bench`: how fast a part is beside its usual alternative."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import write_json, write_table
from bot.evaluation.benches import BENCHES, IN_PARTS, bench
from bot.evaluation.report import BenchRow


@click.command("bench")
@click.argument("name", type=click.Choice(list(BENCHES)))
@click.option("--only", default="", help="Measure cases with this in their names.")
@config_option
@json_option
def command(*, name: str, only: str, path: Path, as_json: bool) -> None:
    """
    Measure the speed of a part against its usual alternative.

    Both sides run in turns, in this process and on the same threads, after a warm-up;
    figures are medians of the repeats. A ratio above 1 means ours is better. Where
    there is no alternative, ours stands alone.
    """
    if only and name not in IN_PARTS:
        raise click.BadParameter(f"bench {name!r} has no parts", param_hint="--only")
    with opened(path) as bot:
        rows = bench(name, only)(bot.app, bot.progress)
    if as_json:
        for row in rows:
            write_json(row.as_json(), indent=None)
    else:
        _write_rows(rows)


def _write_rows(rows: Sequence[BenchRow]) -> None:
    also = list(dict.fromkeys(name for row in rows for name in row.also))
    columns = ["case", "ours", "theirs", "unit", "ratio", "spread", *also, "baseline"]
    write_table(columns, [_cells(row, also) for row in rows])


def _cells(row: BenchRow, also: Sequence[str]) -> list[str]:
    return [
        row.case,
        _shown(row.ours),
        "" if row.theirs is None else _shown(row.theirs),
        row.unit,
        "" if row.ratio is None else f"{row.ratio:.2f}",
        " / ".join(f"{_shown(low)} to {_shown(high)}" for low, high in row.spread),
        *(_shown(row.also[name]) if name in row.also else "" for name in also),
        row.baseline or "",
    ]


def _shown(figure: float) -> str:
    """Three digits, but no powers of ten."""
    return f"{figure:.3g}" if abs(figure) < 1000 else f"{figure:.0f}"  # noqa: PLR2004
