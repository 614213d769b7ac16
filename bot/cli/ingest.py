"""`chorus ingest`: documents into the index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bot.cli import FIXABLE
from bot.cli.opening import Opened, config_option, opened
from bot.cli.screen import say, write


@click.command("ingest")
@click.argument("documents", nargs=-1, metavar="PATH…", type=click.Path(path_type=Path))
@config_option
@click.pass_context
def command(ctx: click.Context, *, documents: Sequence[Path], path: Path) -> None:
    """
    Read documents into the index; only what changed is read again.

    Without PATH, the configuration's knowledge.paths are read, and documents from
    elsewhere leave the index. With PATH, what is not under it stays as it is.
    """
    with opened(path) as bot:
        summary, problems = ingested(bot, documents)
    for problem in problems:
        say(problem)
    write(summary)
    if problems:
        ctx.exit(FIXABLE)


def ingested(bot: Opened, documents: Sequence[Path] = ()) -> tuple[str, Sequence[str]]:
    """Bring the index up to date; return a sentence, and what could not be read."""
    report = bot.app.ingest(documents or None)
    bot.progress.end()
    summary = (
        f"{report.passages} passages; documents: {len(report.added)} added, "
        f"{len(report.changed)} changed, {len(report.removed)} removed, "
        f"{len(report.unchanged)} unchanged"
    )
    return summary, report.problems
