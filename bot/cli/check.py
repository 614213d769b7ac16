"""`chorus check`: everything wrong with a configuration, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from bot.app import App
from bot.cli.opening import OpenApp, config_option
from bot.cli.progress import StepProgress
from bot.cli.screen import write
from bot.config import Config
from bot.interfaces import Progress


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
def command(*, file: Path | None, path: Path) -> None:
    """Check a configuration file and show every problem at once."""
    checked = file or path
    open_app: OpenApp = click.get_current_context().obj or _open_strictly
    with StepProgress() as progress:
        config = open_app(checked, progress, lambda config: config).config
    plugins = _counted(len(config.plugins), "plugin")
    connectors = _counted(len(config.connectors), "connector")
    write(f"{checked} is fine: {plugins}, {connectors}")


def _open_strictly(
    path: Path,
    progress: Progress,
    changed: Callable[[Config], Config],  # noqa: ARG001 (of the protocol)
) -> App:
    """Go on after the first mistakes, and look for the documents too."""
    return App.from_file(path, progress)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
