"""
What a document is made of once its format is gone: blocks under headings.

Knows neither files nor formats. An `Outline` is filled in reading order by the
readers in `formats` and becomes the blocks of one document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bot.text import cleaned, on_one_line

_HEADING_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A paragraph, list item, table row or listing, with its heading path."""

    text: str
    headings: Sequence[str] = ()
    page: int | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A readable document; `source` is its name everywhere."""

    source: str
    title: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    blocks: Sequence[Block] = ()


@dataclass(slots=True)
class _Heading:
    level: int
    text: str
    line: int | None
    has_body: bool = False


class Outline:
    """Collects headings and texts in reading order."""

    def __init__(self) -> None:
        self._path: list[_Heading] = []
        self._blocks: list[Block] = []
        self.first_heading = ""

    def heading(self, level: int, text: str, *, line: int | None = None) -> None:
        """Open a section; sections of this level and below end here."""
        self._leave(level)
        text = on_one_line(cleaned(text))[:_HEADING_CHARACTERS]
        if text:
            self.first_heading = self.first_heading or text
            self._path.append(_Heading(level, text, line))

    def add(
        self, text: str, *, line: int | None = None, page: int | None = None
    ) -> None:
        """Add text under the open headings; nothing is added for blank text."""
        text = cleaned(text).strip()
        if not text:
            return
        for heading in self._path:
            heading.has_body = True
        path = tuple(heading.text for heading in self._path)
        self._blocks.append(Block(text=text, headings=path, page=page, line=line))

    def finish(self) -> tuple[Block, ...]:
        self._leave(0)
        return tuple(self._blocks)

    def _leave(self, level: int) -> None:
        while self._path and self._path[-1].level >= level:
            closed = self._path.pop()
            # A heading over nothing may be all there is to say: it becomes text.
            if not closed.has_body:
                self.add(closed.text, line=closed.line)


def row_text(columns: Sequence[str], cells: Sequence[str]) -> str:
    """Return a table's row as text that stands alone: `column: value; …`"""
    named = list(columns) + [""] * (len(cells) - len(columns))
    return "; ".join(
        f"{column}: {cell}" if column else cell
        for column, cell in zip(named, cells, strict=False)
        if cell
    )
