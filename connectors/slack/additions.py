"""
Additions: what an action adds to the text of a reply, as Slack takes it.

Pictures become image blocks. Of an action's own JSON its `blocks` are shown, else its
`text`, as Rasa's Slack channel reads them. All of it comes from strangers: it is copied
within bounds, and what Slack could not take, or would tell us of as a button of ours,
is left out. Pure functions; knows neither the reply's own text nor how it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from bot.model import Reply
from connectors.slack.markdown import harmless
from connectors.slack.parsing import is_ours

Block = Mapping[str, Any]

# Of fifty in a message; its text, sources, buttons and feedback take eight.
MOST_BLOCKS = 40
# Of all additions of a reply together; the rest of the message is for its text.
LONGEST = 6_000
LONGEST_URL = 3_000
LONGEST_NAME = 200
LONGEST_TEXT = 3_000
# A table of lists of rich text, the deepest that Slack knows, has about ten.
DEEPEST = 20
MOST_VALUES = 2_000
LARGEST_NUMBER = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """
    `words` are said in any case. `blocks` are shown under the text, or else `instead`
    is said; as long as `size`, at most, is either. `left_out` are so many that Slack
    cannot show.
    """

    words: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    instead: str = ""
    size: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addition:
    """One of them; without blocks it is its text alone."""

    blocks: Sequence[Block] = ()
    text: str = ""
    characters: int = 0

    @property
    def size(self) -> int:
        return max(self.characters, len(self.text)) + 2  # and an empty line


def additions_of(reply: Reply) -> Additions:
    """Return the pictures of a reply, then what is its actions' own, as they fit."""
    words: list[str] = []
    blocks: list[Block] = []
    instead: list[str] = []
    size = left_out = 0
    for one in _all(reply):
        if one is None:
            left_out += 1
        elif not one.blocks:
            words.append(one.text)
        elif len(blocks) + len(one.blocks) > MOST_BLOCKS or size + one.size > LONGEST:
            # Half a card says something else than the whole.
            left_out += 1
        else:
            blocks += one.blocks
            instead.append(one.text)
            size += one.size
    several = (reply.images, reply.custom)
    return Additions(
        words=words,
        blocks=blocks,
        instead="\n\n".join(filter(None, instead)),
        size=size,
        left_out=left_out + sum(max(0, len(one) - MOST_BLOCKS) for one in several),
    )


def _all(reply: Reply) -> Iterator[_Addition | None]:
    """Yield each addition, None for one that cannot be shown."""
    yield from map(_picture, reply.images[:MOST_BLOCKS])
    yield from map(_custom, reply.custom[:MOST_BLOCKS])


def _picture(image: str) -> _Addition | None:
    url = _web_address(image)
    if url is None:
        return None
    block = {"type": "image", "image_url": url, "alt_text": _name_of(url)}
    # In angle brackets nothing in an address is read as Markdown.
    return _Addition(blocks=[block], text=harmless(f"<{url}>"))


def _custom(custom: Mapping[str, Any]) -> _Addition | None:
    copying = _Copying()
    blocks = copying.blocks(custom.get("blocks"))
    text = custom.get("text")
    text = harmless(_clean(text[:LONGEST_TEXT])) if isinstance(text, str) else ""
    if not blocks and not text.strip():
        return None
    return _Addition(blocks=blocks, text=text, characters=copying.characters)


def _web_address(text: str) -> str | None:
    """Return an address as Slack takes one; None where it is none."""
    if len(text) > LONGEST_URL:
        return None
    url = _clean(text).strip().replace(" ", "%20")
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        return None
    is_whole = url.isprintable() and not any(mark in url for mark in '<>"')
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    return url if is_whole and is_web and len(url) <= LONGEST_URL else None


def _name_of(url: str) -> str:
    """Return what a picture is called, for whoever does not see it."""
    parts = urlsplit(url)
    name = unquote(parts.path.rpartition("/")[2], errors="replace")
    name = " ".join(name.split())[:LONGEST_NAME]
    return name if name.isprintable() and name else str(parts.hostname)


def _clean(text: str) -> str:
    """Drop what is no text: half characters and NUL."""
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "")


class _Unfit(Exception):
    """A value that is in no block of Slack's, or not for us to show."""


class _Copying:
    """Copies blocks within bounds; `characters` are those of all their strings."""

    def __init__(self) -> None:
        self.characters = 0
        self._values = 0

    def blocks(self, given: object) -> list[Block]:
        """Return all of an action's blocks, or none of them."""
        if not isinstance(given, list) or len(given) > MOST_BLOCKS:
            return []
        try:
            return [self._block(one) for one in given]
        except _Unfit:
            self.characters = 0
            return []

    def _block(self, given: object) -> Block:
        copied = self._value(given, 0)
        if not isinstance(copied, dict) or not isinstance(copied.get("type"), str):
            raise _Unfit
        return copied

    def _value(self, given: object, depth: int) -> Any:
        self._values += 1
        if depth > DEEPEST or self._values > MOST_VALUES:
            raise _Unfit
        match given:
            case str():
                return self._text(given)
            case Mapping():
                return self._object(given, depth)
            case list():
                return [self._value(one, depth + 1) for one in given]
        return _number(given)

    def _object(self, given: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        name = given.get("action_id")
        # Who presses it would be taken to have pressed what we have shown.
        if isinstance(name, str) and is_ours(name):
            raise _Unfit
        return {
            self._name(key): self._value(inner, depth + 1)
            for key, inner in given.items()
        }

    def _name(self, key: object) -> str:
        if not isinstance(key, str) or len(key) > LONGEST_NAME:
            raise _Unfit
        return _clean(key)

    def _text(self, given: str) -> str:
        self.characters += len(given)
        if self.characters > LONGEST:
            raise _Unfit
        return _clean(given)


def _number(given: object) -> Any:
    """Return a number or one of JSON's three words."""
    if given is None:
        return None
    # What is no number compares as false.
    if isinstance(given, int | float) and abs(given) <= LARGEST_NUMBER:
        return given
    raise _Unfit
