"""`chorus dead-letters`: the messages that were set aside, and another try."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.app import App
from bot.cli.opening import Words, config_option, json_option, opened
from bot.cli.screen import ago, say, write_json, write_table

if TYPE_CHECKING:
    from bot.conversation.state import DeadLetter


@click.command("dead-letters")
@click.option("--retry", type=Words(), metavar="ID", help="Have this one answered.")
@config_option
@json_option
def command(*, retry: str | None, path: Path, as_json: bool) -> None:
    """List the messages that were set aside, or have one tried again."""
    with opened(path) as bot:
        if retry is not None:
            turn = asyncio.run(_retried(bot.app, retry))
            say(f"waits to be answered again; explain with: chorus explain {turn}")
            return
        found = asyncio.run(_found(bot.app))
    if as_json:
        for one in found:
            write_json(asdict(one), indent=None)
    elif found:
        columns = ["id", "age", "attempts", "platform", "digest", "why"]
        write_table(columns, [_cells(one) for one in found])
    else:
        say("there are no dead letters")


def _cells(one: DeadLetter) -> list[str]:
    return [
        one.id,
        ago(one.age_s),
        str(one.attempts),
        one.platform,
        one.digest,
        " ".join(one.why.split()),
    ]


async def _found(app: App) -> list[DeadLetter]:
    from bot.conversation import overview

    async with app.store() as store:
        return await overview.dead_letters(store)


async def _retried(app: App, id_: str) -> str:
    from bot.conversation import overview

    async with app.store() as store:
        return await overview.retry(store, id_)
