"""`chorus check`: everything wrong with a configuration, at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import click

from bot.app import App
from bot.cli import FIXABLE
from bot.cli.opening import OpenApp, config_option
from bot.cli.progress import StepProgress
from bot.cli.screen import write
from bot.config import Config
from bot.errors import ChorusError, StoreError, place_of
from bot.interfaces import Connector, Finding, Inspects, Keeps, Progress

INSPECTION_S = 15.0

Word = Literal["ok", "wrong", "unknown"]

MARKS: Mapping[Word, str] = {"ok": "✓", "wrong": "✗", "unknown": "-"}


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--connect",
    is_flag=True,
    help="Also ask each connector's service whether all is set up; nothing is changed.",
)
@config_option
def command(*, file: Path | None, connect: bool, path: Path) -> None:
    """Check a configuration file and show every problem at once."""
    checked = file or path
    ctx = click.get_current_context()
    open_app: OpenApp = ctx.obj or _open_strictly
    with StepProgress() as progress:
        app = open_app(checked, progress, lambda config: config)
    _check_paths(app)
    plugins = _counted(len(app.config.plugins), "plugin")
    connectors = _counted(len(app.config.connectors), "connector")
    write(f"{checked} is fine: {plugins}, {connectors}")
    if connect and not asyncio.run(_is_connected(app)):
        ctx.exit(FIXABLE)


def _open_strictly(
    path: Path,
    progress: Progress,
    changed: Callable[[Config], Config],  # noqa: ARG001 (of the protocol)
) -> App:
    """Go on after the first mistakes, and look for the documents too."""
    return App.from_file(path, progress)


def _check_paths(app: App) -> None:
    """Raise ConfigError where two connectors answer at one path."""
    from bot.web import routes

    routes(app.plugins.connectors)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def _is_connected(app: App) -> bool:
    """Tell what every connector finds, and return whether all of it is well."""
    well = True
    async with AsyncExitStack() as opened:
        no_shelf = await _give_shelves(app, opened)
        for connector in app.plugins.connectors:
            if not isinstance(connector, Inspects):
                _tell(connector, "unknown", "it cannot be asked; nothing was checked")
                continue
            for finding in await _findings(connector, no_shelf):
                _tell(connector, "ok" if finding.well else "wrong", finding.told)
                well = well and finding.well
    return well


async def _give_shelves(app: App, opened: AsyncExitStack) -> str | None:
    """Open the store where a connector looks into it; return what is wrong with it."""
    keepers = [
        connector
        for connector in app.plugins.connectors
        if isinstance(connector, Inspects) and isinstance(connector, Keeps)
    ]
    if not keepers:
        return None
    try:
        store = await opened.enter_async_context(app.store())
    except StoreError as error:
        return str(error)
    for connector in keepers:
        connector.keep_on(store.shelf(connector.name))
    return None


async def _findings(connector: Inspects, no_shelf: str | None) -> Sequence[Finding]:
    if no_shelf is not None and isinstance(connector, Keeps):
        return [Finding(well=False, told=no_shelf)]
    try:
        async with asyncio.timeout(INSPECTION_S):
            return await connector.inspect()
    except TimeoutError:
        told = (
            f"no answer within {INSPECTION_S:g} s; look at the network, then try again"
        )
    except ChorusError as error:
        told = str(error)
    # Code of a stranger: what it failed with must not hide what the others find.
    except Exception as error:  # noqa: BLE001
        told = f"asking failed with {place_of(error)}; tell the connector's author"
    return [Finding(well=False, told=told)]


def _tell(connector: Connector, word: Word, told: str) -> None:
    shown = MARKS[word] if _is_on_terminal() else word
    write(f"{shown} {connector.name}: {told.removeprefix(f'{connector.name}: ')}")


def _is_on_terminal() -> bool:
    return sys.stdout.isatty()
