"""
Words: a message's text and what Telegram marks in it.

Finds the command it opens with and the places where it calls the bot. Marks that lie
outside the text, or make no sense, are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from connectors.telegram.wire import (
    JSON,
    a_text,
    an_id,
    an_integer,
    an_object,
    cut,
    objects,
    units,
)

_PUNCTUATION = ",.:;!?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command, the bot that it names (folded; empty: none), and the whole of it."""

    name: str
    to: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A marked part of a text, in UTF-16 units, and whom it means."""

    kind: str
    offset: int
    length: int
    words: str
    user: str | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    text: str
    marks: Sequence[Mark]

    @classmethod
    def of(cls, text: object, entities: object) -> Self:
        words = a_text(text)
        return cls(text=words, marks=list(_marks(words, objects(entities))))

    def command(self) -> Command | None:
        """Return the command that the text opens with."""
        for mark in self.marks:
            opens = mark.kind == "bot_command" and mark.offset == 0
            if opens and mark.words.startswith("/"):
                name, _, to = mark.words[1:].partition("@")
                arguments = self._part(mark.end, units(self.text)).strip()
                whole = f"{name.lower()} {arguments}".strip()
                return Command(name=name.lower(), to=to.casefold(), text=whole)
        return None

    def calls(self, bot: str, username: str) -> list[Mark]:
        """Return where the text calls the bot, by its username or by a link to it."""
        called = f"@{username.casefold()}"
        return [
            mark
            for mark in self.marks
            if (mark.kind == "mention" and mark.words.casefold() == called)
            or (mark.kind == "text_mention" and mark.user == bot)
        ]

    def without(self, marks: Sequence[Mark]) -> str:
        """Return the text as if these were not there."""
        if not marks:
            return self.text
        left, at = "", 0
        for mark in sorted(marks, key=lambda mark: mark.offset):
            left = _joined(left, self._part(at, mark.offset))
            at = max(at, mark.end)
        whole = _joined(left, self._part(at, units(self.text)))
        return whole.strip().lstrip(",:").strip()

    def _part(self, start: int, end: int) -> str:
        return cut(self.text, start, max(0, end - start))


def _marks(text: str, entities: Sequence[JSON]) -> Iterator[Mark]:
    end = units(text)
    for entity in entities:
        offset, length = (an_integer(entity.get(one)) for one in ("offset", "length"))
        if offset is None or length is None:
            continue
        if offset >= 0 and length > 0 and offset + length <= end:
            yield Mark(
                kind=a_text(entity.get("type")),
                offset=offset,
                length=length,
                words=cut(text, offset, length),
                user=an_id(an_object(entity.get("user")).get("id")),
            )


def _joined(left: str, right: str) -> str:
    left, right = left.rstrip(" "), right.lstrip(" ")
    close = not left or not right or right[0] in _PUNCTUATION
    return f"{left}{right}" if close else f"{left} {right}"
