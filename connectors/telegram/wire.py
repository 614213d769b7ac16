"""
What comes from outside, read with suspicion: each reader returns what it was asked for,
or nothing, and never raises.

Offsets and lengths are in UTF-16 units, as everywhere in the Bot API. Knows nothing
about what an update means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

JSON = Mapping[str, Any]

_NOTHING: JSON = {}


def an_object(value: object) -> JSON:
    return value if isinstance(value, dict) else _NOTHING


def objects(value: object) -> Sequence[JSON]:
    """Return the objects of a list; what is no object is left out."""
    if not isinstance(value, list):
        return ()
    return [each for each in value if isinstance(each, dict)]


def an_integer(value: object) -> int | None:
    # JSON's true is an int to Python.
    is_one = isinstance(value, int) and not isinstance(value, bool)
    return value if is_one else None  # type: ignore[return-value]  # it is an int


def an_id(value: object) -> str | None:
    number = an_integer(value)
    return None if number is None else str(number)


def a_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def clean(text: str) -> str:
    """Drop what is no text: half characters and NUL."""
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "")


def units(text: str) -> int:
    """Return a text's length in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def cut(text: str, offset: int, length: int) -> str:
    """Return a part of a text; a character that is cut in two becomes U+FFFD."""
    encoded = text.encode("utf-16-le", errors="replace")
    part = encoded[2 * offset : 2 * (offset + length)]
    return part.decode("utf-16-le", errors="replace")
