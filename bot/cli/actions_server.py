"""`chorus actions-server`: the bot as the action server and NLG server of a Rasa."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli.logs import log_to_stderr
from bot.cli.opening import Opened, config_option, opened
from bot.cli.screen import say
from bot.config import Config

if TYPE_CHECKING:
    from bot.actions_server.server import ActionsServer

NAMED = 5  # actions that are named when it is ready


@click.command("actions-server")
@click.option("--host", help="In place of actions.server.host.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="In place of actions.server.port; 0: any free one.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65_535),
    help="In place of actions.server.grpc_port: serve gRPC there, too.",
)
@config_option
def command(
    *, host: str | None, port: int | None, grpc_port: int | None, path: Path
) -> None:
    """
    Serve actions, replies and wordings to a Rasa assistant.

    Rasa's endpoints.yml names it: `action_endpoint` with /webhook at its end, `nlg`
    with /nlg. SIGTERM and Ctrl-C end it with 0. It needs the index and the model, and
    no Redis.
    """
    log_to_stderr(logging.INFO)
    given = {"host": host, "port": port, "grpc_port": grpc_port}
    changes = {name: value for name, value in given.items() if value is not None}
    with opened(path, _without_connectors) as bot:
        asyncio.run(_serve(bot, changes))


def _without_connectors(config: Config) -> Config:
    """Rasa is who talks to customers here."""
    return config.model_copy(update={"connectors": ()})


async def _serve(bot: Opened, changes: dict[str, Any]) -> None:
    config = bot.app.config
    settings = config.actions.server.model_copy(update=changes)
    stopped = asyncio.Event()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stopping, stopped.set)
    async with bot.app.serving_rasa(settings) as server:
        bot.progress.end()
        for line in _served(server, await server.names()):
            say(line)
        say(f"{config.name} serves Rasa; stop with Ctrl-C")
        await stopped.wait()


def _served(server: ActionsServer, names: Sequence[str]) -> list[str]:
    named = ", ".join(names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    lines = [
        f"actions  {server.url}/webhook  ({named}{more})",
        f"wording  {server.url}/nlg",
    ]
    if server.grpc_address:
        lines.append(f"gRPC     {server.grpc_address}")
    return lines
