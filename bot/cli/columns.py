"""
A table of any number of columns, on a terminal of any width.

Columns that find no place beside each other come below: the table is written in parts,
each beginning with the rows' names. Knows nothing of what stands in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console

from bot.cli.screen import write, write_table

_BETWEEN = 2  # spaces between two columns


def write_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Write the table, whose first column names the rows. Of a part that begins below,
    rows that have nothing in it are left out. A pipe has room for everything.
    """
    room = Console(file=sys.stdout).width if sys.stdout.isatty() else None
    for number, places in enumerate(parts(columns, rows, room)):
        if number:
            write("")
        told = [[row[place] for place in (0, *places)] for row in rows]
        write_table(
            [columns[place] for place in (0, *places)],
            [row for row in told if room is None or any(row[1:])],
        )


def parts(
    columns: Sequence[str], rows: Sequence[Sequence[str]], room: int | None
) -> Iterator[list[int]]:
    """Yield the places of the columns of each part; at least one, however narrow."""
    widths = [
        max(map(cell_len, (name, *(row[place] for row in rows))))
        for place, name in enumerate(columns)
    ]
    part: list[int] = []
    taken = widths[0]
    for place, width in enumerate(widths[1:], 1):
        if part and room is not None and taken + _BETWEEN + width > room:
            yield part
            part, taken = [], widths[0]
        part.append(place)
        taken += _BETWEEN + width
    if part:
        yield part
