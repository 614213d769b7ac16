"""`chorus handoff`: the conversations that people have, and whose one is to be."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.app import App
from bot.cli.opening import Words, config_option, json_option, opened
from bot.cli.screen import ago, say, write_json, write_table
from bot.errors import ConfigError
from bot.model import Reply

if TYPE_CHECKING:
    from bot.conversation.state import HandedOver

WHY = "an operator took it over"


@click.command("handoff")
@click.option(
    "--resume",
    type=Words(),
    metavar="CONVERSATION",
    help="Give the bot this one back; its digest or its key.",
)
@click.option(
    "--pause",
    type=Words(),
    metavar="CONVERSATION",
    help="Give people this one: the bot is silent there.",
)
@config_option
@json_option
def command(
    *, resume: str | None, pause: str | None, path: Path, as_json: bool
) -> None:
    """List the conversations that people have, hand one over or back."""
    if resume is not None and pause is not None:
        raise ConfigError("--resume and --pause: name one of them, not both")
    with opened(path) as bot:
        if resume is not None:
            say(asyncio.run(_resumed(bot.app, resume)))
            return
        if pause is not None:
            say(asyncio.run(_paused(bot.app, pause)))
            return
        found = asyncio.run(_found(bot.app))
    if as_json:
        for one in found:
            write_json(asdict(one), indent=None)
    elif found:
        columns = ["digest", "since", "quiet", "platform", "why", "key"]
        write_table(columns, [_cells(one) for one in found])
    else:
        say("people have no conversation")


def _cells(one: HandedOver) -> list[str]:
    return [
        one.digest,
        ago(one.since_s),
        ago(one.quiet_s),
        one.platform,
        " ".join(one.why.split()),
        one.key,
    ]


async def _found(app: App) -> list[HandedOver]:
    from bot.conversation import handoff

    async with app.store() as store:
        return await handoff.handed_over(store)


async def _resumed(app: App, name: str) -> str:
    from bot.conversation import handoff

    async with app.store() as store:
        address = await handoff.find(store, name)
        told = Reply(text=app.config.replies_for(address).resumed)
        if await handoff.give_back(store, address, told):
            return f"{address.digest}: the bot answers there again"
        return f"{address.digest}: the bot has it already"


async def _paused(app: App, name: str) -> str:
    from bot.conversation import handoff

    async with app.store() as store:
        address = await handoff.find(store, name)
        told = Reply(text=app.config.replies_for(address).handed_over)
        if await handoff.hand_over(store, address, WHY, told):
            return f"{address.digest}: the bot is silent there"
        return f"{address.digest}: people have it already"
