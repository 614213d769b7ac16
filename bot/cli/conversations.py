"""`chorus conversations`: the lanes, and what there is to do in them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.app import App
from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import ago, say, write_json, write_table

if TYPE_CHECKING:
    from bot.conversation.state import Overview


@click.command("conversations")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many, those with work to do first.",
)
@config_option
@json_option
def command(*, limit: int, path: Path, as_json: bool) -> None:
    """List the conversations, those with work to do first."""
    with opened(path) as bot:
        found = asyncio.run(_found(bot.app, limit))
    if as_json:
        for one in found:
            write_json(asdict(one), indent=None)
    elif found:
        columns = [
            "digest",
            "state",
            "waiting",
            "undelivered",
            "events",
            "quiet",
            "people",
            "key",
        ]
        write_table(columns, [_cells(one) for one in found])
    else:
        say("there are no conversations")


def _cells(one: Overview) -> list[str]:
    return [
        one.digest,
        one.state,
        _since(one.waiting, one.waiting_s),
        _since(one.undelivered, one.undelivered_s),
        str(one.events),
        ago(one.quiet_s),
        "-" if one.handed_s is None else f"for {ago(one.handed_s)}",
        one.key,
    ]


def _since(number: int, seconds: float) -> str:
    return f"{number} for {ago(seconds)}" if number else "-"


async def _found(app: App, limit: int) -> list[Overview]:
    from bot.conversation import overview

    async with app.store() as store:
        return await overview.conversations(store, limit)
