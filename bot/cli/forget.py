"""`chorus forget`: erases a person."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.app import App
from bot.cli.opening import Words, config_option, opened
from bot.cli.screen import say, write

if TYPE_CHECKING:
    from bot.conversation.state import Forgotten


@click.command("forget")
@click.argument("user", type=Words())
@click.option(
    "--platform", type=Words(), help="Only there; another person may have the same id."
)
@config_option
def command(*, user: str, platform: str | None, path: Path) -> None:
    """Erase what is stored about a person."""
    with opened(path) as bot:
        erased = asdict(asyncio.run(_forgotten(bot.app, user, platform)))
    if any(erased.values()):
        counts = ", ".join(f"{name} {number}" for name, number in erased.items())
        write(f"erased about {user!r}: {counts}")
        if bot.app.config.redis.url is not None:
            say(
                "its append-only file still has what was erased, until it is written "
                "anew: run BGREWRITEAOF on your Redis, and mind its backups"
            )
    else:
        write(f"nothing is stored about {user!r}")


async def _forgotten(app: App, user: str, platform: str | None) -> Forgotten:
    async with app.store() as store:
        return await store.forget(user, platform)
