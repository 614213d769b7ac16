"""`chorus chat`: the terminal connector alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from bot.cli.ingest import ingested
from bot.cli.opening import Opened, config_option, opened
from bot.cli.screen import say
from bot.config import Config, Use
from bot.errors import KnowledgeError

TERMINAL = "terminal"


@click.command("chat")
@config_option
def command(*, path: Path) -> None:
    """
    Talk to the bot in this terminal.

    The first time, the configured documents are read into the index. When standard
    input is not a terminal, each line of it is a message.
    """
    with opened(path, _with_the_terminal_only) as bot:
        _ingest_the_first_time(bot)
        asyncio.run(_talk(bot))


def _with_the_terminal_only(config: Config) -> Config:
    configured = [use for use in config.connectors if use.use == TERMINAL]
    return config.model_copy(
        update={"connectors": tuple(configured) or (Use(use=TERMINAL),)}
    )


def _ingest_the_first_time(bot: Opened) -> None:
    try:
        bot.app.index()
    except KnowledgeError as missing:
        say(f"Reading the documents first ({missing})")
        summary, problems = ingested(bot)
        for line in (*problems, summary):
            say(line)


async def _talk(bot: Opened) -> None:
    async with bot.app.running(shares=False, patient=False) as manager:
        bot.progress.end()
        await manager.run()
        # The last delivery is marked, or the next process would deliver it again.
        await manager.idle()
