"""`chorus explain`: how a turn was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from bot import explain
from bot.app import App
from bot.cli.opening import Words, config_option, json_option, opened
from bot.cli.screen import write_json, write_markdown
from bot.errors import StoreError
from bot.model import Record


@click.command("explain")
@click.argument("turn", type=Words())
@config_option
@json_option
def command(*, turn: str, path: Path, as_json: bool) -> None:
    """Show how a turn was answered, and what was not sent and why."""
    with opened(path) as bot:
        record, ratings = asyncio.run(_record(bot.app, turn))
    if as_json:
        write_json(explain.everything(record, ratings))
    else:
        write_markdown(explain.text_with_prompt(record, ratings))


async def _record(app: App, turn: str) -> tuple[Record, Sequence[int]]:
    async with app.store() as store:
        record = await store.record(turn)
        ratings = await store.ratings(turn)
    if record is None:
        days = app.config.conversation.record_ttl_days
        raise StoreError(
            f"no record of turn {turn!r}: there never was one, or it is older than "
            f"conversation.record_ttl_days ({days:g}); `chorus ask` prints the id"
        )
    return record, ratings
