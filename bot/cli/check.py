"""`chorus check`: everything wrong with a configuration, at once."""

from __future__ import annotations

from pathlib import Path

import click

from bot.cli.opening import config_option, opened
from bot.cli.screen import write


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
def command(*, file: Path | None, path: Path) -> None:
    """Check a configuration file and show every problem at once."""
    checked = file or path
    with opened(checked) as bot:
        config = bot.app.config
    plugins = _counted(len(config.plugins), "plugin")
    connectors = _counted(len(config.connectors), "connector")
    write(f"{checked} is fine: {plugins}, {connectors}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
