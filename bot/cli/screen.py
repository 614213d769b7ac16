"""
What commands print: data to standard output, talk to standard error.

Knows nothing about bots. Text from documents, models and people is cleaned before it
reaches a terminal, which would obey control characters in it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence

import click
from pydantic import JsonValue
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

# A pipe has no width; wrapping there would only break words that are searched for.
_PIPE_WIDTH = 1000

_DAY_S = 86_400
# Name, seconds, and how many of it are still said in it.
_UNITS = (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48))


def clean(text: str) -> str:
    """Replace what no UTF-8 stream can hold and drop what a terminal would obey."""
    printable = text.encode("utf-8", errors="replace").decode("utf-8")
    return "".join(
        character
        for character in printable
        if character in "\n\t" or unicodedata.category(character) != "Cc"
    )


def say(text: str) -> None:
    """Print talk: what is not the command's result."""
    click.echo(clean(text), err=True)


def write(text: str) -> None:
    """Print data."""
    click.echo(clean(text))


def ago(seconds: float) -> str:
    """Return a time span as people say it: `12 s`, `3 min`, `5 h`, `2 d`."""
    for unit, length, most in _UNITS:
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / _DAY_S:.0f} d"


def write_json(value: JsonValue, *, indent: int | None = 2) -> None:
    click.echo(clean(json.dumps(value, ensure_ascii=False, indent=indent)))


def write_markdown(text: str) -> None:
    """Render on a terminal; elsewhere Markdown is data as it is."""
    if sys.stdout.isatty():
        # Links are shown, not hidden: their text may come from a document.
        Console().print(Markdown(clean(text), hyperlinks=False))
    else:
        write(text)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(file=sys.stdout, width=width)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())
