"""
Splitting: a formatted text into pieces that fit into a message.

Cuts where it hurts least: between two blocks, else at the end of a line, else between
two words, and never inside a character. What is cut in two keeps its format on both
sides, so a code block is closed and opened again. Lengths and offsets are in UTF-16
units. Knows no Markdown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from connectors.telegram.wire import units

LONGEST_TEXT = 4096  # https://core.telegram.org/bots/api#sendmessage
# A cut that leaves less than this part of a message full is not worth its nicety.
_FULL = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A format, and the part of a text that has it."""

    type: str
    offset: int
    length: int
    url: str | None = None
    language: str | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def wire(self) -> Mapping[str, Any]:
        told = {"type": self.type, "offset": self.offset, "length": self.length}
        more = {"url": self.url, "language": self.language}
        return told | {name: value for name, value in more.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formatted:
    text: str
    entities: Sequence[Entity] = ()


def split(whole: Formatted, limit: int = LONGEST_TEXT) -> list[Formatted]:
    """Return the pieces, none of them blank."""
    return [
        _piece(whole, start, end)
        for start, end in _Cutting(whole, limit).spans()
        if whole.text[start:end].strip()
    ]


class _Cutting:
    """Where to cut one text; positions are those of Python's characters."""

    def __init__(self, whole: Formatted, limit: int) -> None:
        self._text = whole.text
        self._limit = limit
        # How many units there are before each character.
        self._units = [0, *accumulate(map(units, whole.text))]
        self._code = [
            (self._position(one.offset), self._position(one.end))
            for one in whole.entities
            if one.type == "pre"
        ]

    def spans(self) -> Iterator[tuple[int, int]]:
        start = 0
        while start < len(self._text):
            end = self._position(self._units[start] + self._limit)
            if end < len(self._text):
                end = self._nice(start, end)
            yield start, end
            start = end

    def _position(self, at: int) -> int:
        """Return the last character's place that begins at or before so many units."""
        return bisect_right(self._units, at) - 1

    def _nice(self, start: int, end: int) -> int:
        """Return the best place to cut, at `end` or before it."""
        least = start + int((end - start) * _FULL)
        place = self._text.rfind("\n\n", least, end)
        while place >= 0 and self._is_in_code(place):
            place = self._text.rfind("\n\n", least, place)
        if place < 0:
            place = self._text.rfind("\n", least, end)
        if place < 0:
            place = self._text.rfind(" ", least, end)
        return end if place < 0 else place + 1

    def _is_in_code(self, place: int) -> bool:
        return any(start <= place < end for start, end in self._code)


def _piece(whole: Formatted, start: int, end: int) -> Formatted:
    """Return the part between two places, without blank lines round it."""
    text = whole.text[start:end].rstrip()
    bare = text.lstrip("\n")
    start += len(text) - len(bare)
    first = units(whole.text[:start])
    last = first + units(bare)
    inside = [
        replace(one, offset=max(one.offset, first), length=length)
        for one in whole.entities
        if (length := min(one.end, last) - max(one.offset, first)) > 0
    ]
    return Formatted(
        text=bare, entities=[replace(one, offset=one.offset - first) for one in inside]
    )
