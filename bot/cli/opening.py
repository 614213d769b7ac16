"""
How a command gets its bot: which file, with which changes, and who hears of progress.

Knows nothing about what commands do. Tests hand another way of opening to the command
line as click's `obj`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from bot import plugin_manager
from bot.app import App
from bot.cli.progress import StepProgress
from bot.config import Config, Use
from bot.config_file import load
from bot.errors import ConfigError
from bot.interfaces import Progress

DEFAULT_CONFIG = Path("config/bot.yaml")

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class OpenApp(Protocol):
    """Builds the bot of a file; `changed` maps its configuration before that."""

    def __call__(
        self, path: Path, progress: Progress, changed: Callable[[Config], Config]
    ) -> App: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A bot, and the progress it reports to: ended before anybody is to type."""

    app: App
    progress: StepProgress


def config_option(function: Decorated) -> Decorated:
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_or_the_groups,
        help="Configuration file; default config/bot.yaml.",
    )(function)


def json_option(function: Decorated) -> Decorated:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON to standard output."
    )(function)


class Words(click.ParamType[str]):
    """Text from an argument; bytes that are no UTF-8 become replacement marks."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        raw = str(value).encode("utf-8", errors="surrogateescape")
        return raw.decode("utf-8", errors="replace")


@contextmanager
def opened(
    path: Path, changed: Callable[[Config], Config] = lambda config: config
) -> Iterator[Opened]:
    """Open the bot of `path` for the length of a command."""
    open_app: OpenApp = click.get_current_context().obj or open_file
    with StepProgress() as progress:
        app = open_app(path, progress, changed)
        try:
            yield Opened(app=app, progress=progress)
        finally:
            app.close()


def open_file(
    path: Path, progress: Progress, changed: Callable[[Config], Config]
) -> App:
    return App.from_config(changed(load(path)), progress, str(path))


def contributed_commands(
    ctx: click.Context, *, by_source: bool
) -> Sequence[click.Command]:
    """
    Return what enabled plugins add; nothing when the configuration is broken, which
    must not take `--help` or `check` away. `by_source` first looks whether any of the
    plugins' files defines commands, because loading them all takes seconds of torch.
    """
    path = _or_the_groups(ctx, None, None)
    if not path.exists():
        return []
    try:
        if by_source and not any(map(_defines_commands, load(path).plugins)):
            return []
        open_app: OpenApp = ctx.obj or open_file
        return open_app(path, StepProgress(), lambda config: config).plugins.commands
    except ConfigError:
        click.echo(
            f"{path} has problems, so commands of plugins are not available; "
            "`chorus check` shows them",
            err=True,
        )
        return []


def _defines_commands(use: Use) -> bool:
    points = importlib.metadata.entry_points(group=plugin_manager.GROUP, name=use.use)
    reference = next((point.value for point in points), use.use)
    try:
        module = importlib.util.find_spec(reference.partition(":")[0])
    except ImportError:  # of a package above it; loading says what is wrong
        return True
    source = module and module.origin and Path(module.origin)
    return not source or "commands" in source.read_text(encoding="utf-8")


def _or_the_groups(
    ctx: click.Context, _param: click.Parameter | None, value: Path | None
) -> Path:
    """The option may stand before the command as well as after it."""
    return value or ctx.find_root().params.get("config") or DEFAULT_CONFIG
