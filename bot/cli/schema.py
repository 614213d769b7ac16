"""`chorus schema`: the JSON Schema of the configuration file."""

from __future__ import annotations

from pathlib import Path

import click

from bot.cli.opening import config_option, opened
from bot.cli.screen import write_json


@click.command("schema")
@config_option
def command(*, path: Path) -> None:
    """Print the JSON Schema of the configuration file."""
    with opened(path) as bot:
        write_json(bot.app.schema())
