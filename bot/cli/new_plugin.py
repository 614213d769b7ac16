"""`chorus new-plugin`: a package that passes its own tests, to begin with."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path

import click

from bot.cli.screen import say, write
from bot.errors import ConfigError
from bot.scaffold import KINDS, class_name, package

# The form to which PEP 503 brings names, beginning with a letter, as a class must.
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LONGEST_NAME = 30  # so that lines with it keep to 88 characters


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), required=True, help="What it is."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of the package, new or empty; default chorus-NAME, here.",
)
def command(*, name: str, kind: str, folder: Path | None) -> None:
    """Write a package for a plugin that passes its own tests at once."""
    _check_name(name)
    files = package(name, kind)
    _check_class(name, files)
    to = folder or Path(f"chorus-{name}")
    _check_folder(to)
    _write(files, to)
    for path in files:
        write(str(to / path))
    say(f"next: cd {to}, pip install --editable ., pytest; README.md has the rest")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"new-plugin: the name {name[:80]!r} is none; write up to {_LONGEST_NAME} "
            "small letters, digits and single hyphens, a letter first: kind-words"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ConfigError(
            f"new-plugin: {name!r} is a word of Python's; choose another name"
        )
    # By name alone: to import every plugin would load torch.
    for point in entry_points(group="chorus.plugins"):
        if point.name == name:
            distribution = point.dist.name if point.dist else "another package"
            raise ConfigError(
                f"new-plugin: {name!r} is a plugin of {distribution} already; choose "
                "another name"
            )


def _check_class(name: str, files: Mapping[str, str]) -> None:
    """Refuse a class that would hide something which its own file needs."""
    cls = class_name(name)
    texts = [text for path, text in files.items() if path.endswith(".py")]
    if (
        # These come first: a file with class None cannot even be read.
        keyword.iskeyword(cls)
        or cls in {*dir(builtins), "Settings"}
        or any(cls in _imported(text) for text in texts)
    ):
        raise ConfigError(
            f"new-plugin: the class of {name!r} would be {cls}, which means something "
            "else already; choose another name"
        )


def _imported(text: str) -> Iterator[str]:
    """Name what a file imports, except from the plugin's own module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith(
            "chorus_"
        ):
            yield from (one.asname or one.name for one in node.names)


def _check_folder(folder: Path) -> None:
    """Refuse whatever a file of somebody's could be lost in."""
    try:
        if not folder.exists():
            if folder.parent.is_dir():
                return
            raise ConfigError(
                f"new-plugin: --folder: there is no folder {folder.parent}; make it, "
                "or name another"
            )
        if not folder.is_dir() or any(folder.iterdir()):
            what = "not empty" if folder.is_dir() else "a file"
            raise ConfigError(
                f"new-plugin: --folder: {folder} is {what}; name a new folder"
            )
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _write(files: Mapping[str, str], folder: Path) -> None:
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"new-plugin: --folder: {folder} cannot be written ({error.strerror}); name "
        "another"
    )
