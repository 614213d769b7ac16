"""`chorus run`: every configured connector, until stopped."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import click

from bot.cli.logs import log_to_stderr
from bot.cli.opening import Opened, config_option, opened
from bot.cli.screen import say
from bot.errors import ConfigError


@click.command("run")
@config_option
def command(*, path: Path) -> None:
    """Talk on every configured connector until stopped."""
    log_to_stderr(logging.INFO)
    with opened(path) as bot:
        names = [connector.name for connector in bot.app.plugins.connectors]
        if not names:
            raise ConfigError(
                f"{path}: connectors: the list is empty, so there is nobody to talk "
                "to; add one, or use `chorus chat`"
            )
        asyncio.run(_talk(bot, names))


async def _talk(bot: Opened, names: list[str]) -> None:
    async with bot.app.running() as manager:
        bot.progress.end()
        say(f"{bot.app.config.name} is talking on {', '.join(names)}; stop with Ctrl-C")
        await manager.run()
