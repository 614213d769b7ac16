"""`chorus run`: connectors and workers, until stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.logs import log_to_stderr
from bot.cli.opening import Opened, config_option, opened
from bot.cli.screen import say
from bot.errors import ConfigError

if TYPE_CHECKING:
    from bot.conversation.manager import Role


@click.command("run")
@click.option(
    "--only",
    type=click.Choice(["connectors", "workers"]),
    help="Do one half; other processes on the same Redis do the other.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="In place of operations.port, for another process on this machine.",
)
@config_option
def command(*, only: Role | None, port: int | None, path: Path) -> None:
    """
    Talk on every configured connector until stopped.

    SIGTERM and Ctrl-C accept no more, let running turns finish within
    workers.shutdown_s, hand back the others, and end with 0; a second Ctrl-C ends at
    once.
    """
    log_to_stderr(logging.INFO)
    with opened(path) as bot:
        names = [connector.name for connector in bot.app.plugins.connectors]
        if not names:
            raise ConfigError(
                f"{path}: connectors: the list is empty, so there is nobody to talk "
                "to; add one, or use `chorus chat`"
            )
        roles: tuple[Role, ...] = (only,) if only else ("connectors", "workers")
        asyncio.run(_work(bot, names, roles, port))


async def _work(
    bot: Opened, names: list[str], roles: tuple[Role, ...], port: int | None
) -> None:
    operations = bot.app.config.operations
    if port is not None:
        operations = operations.model_copy(update={"port": port})
    with _signals() as stopped:
        async with bot.app.running(roles=roles, operations=operations) as manager:
            bot.progress.end()
            does = "talks on" if "connectors" in roles else "answers what comes from"
            say(f"{bot.app.config.name} {does} {', '.join(names)}; stop with Ctrl-C")
            await manager.run(stopped)


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Yield what is set by SIGTERM, and by the first Ctrl-C."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stopped.set()

    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
