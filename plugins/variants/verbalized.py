# ruff: noqa: RUF001 - typographic marks are meant
"""
Has the model list several replies with their probabilities, and takes the list apart.

    "Write n different replies, each with its probability"  ->  n candidates of one text

Verbalized sampling (Zhang et al. 2025, arXiv:2510.01171): a list of replies is drawn
from a wider distribution than one reply, which tuning by preference has narrowed; they
report 1.6 to 2.1 times the diversity in creative writing, more with abler models. That
is why it is unfit for a model of 135 million parameters, which cannot keep to a list
and gives numbers without meaning: use it with a model server. Stated probabilities only
order the replies. Tokens and log-probabilities belong to the list and go to none.

One text holds n replies: it takes n times the tokens and the time of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import PromptVariant
from bot.model import Candidate, Turn
from bot.text import cleaned

# "1.", "2)", "(3)", "-", "•", "Reply 4:", each with Markdown emphasis or without.
_ITEM = re.compile(
    r"""^[ \t>]*[*_#]{0,3}[ ]?
    (?: \(?\d{1,2}[.):][ \t*_]
      | [-*+•–][ \t]
      | (?:reply|answer|response|option|candidate)[ ]\#?\d{1,2}[^\w\n"]
    )[*_]{0,2}[:.]?[*_]{0,2}[ \t]*""",
    re.VERBOSE | re.IGNORECASE,
)
_JSON_MARK = re.compile(r'\\.|"', re.DOTALL)
_JSON_KEYS = frozenset({"text", "reply", "response", "answer", "content"})
_JSON_COLON = re.compile(r"(?<!\s)\s*+:\s*")
_JSON_PROBABILITY = re.compile(
    r'(?<!\s)\s*+,\s*"(?:probability|prob|p)"\s*:\s*"?(?P<probability>[\d.]{1,8}%?)',
    re.IGNORECASE,
)

_NUMBER = r"(?:0?\.\d{1,6}|[01](?:\.\d{1,6})?|\d{1,3}(?:\.\d{1,3})?[ ]?%)"
# With the word it is a probability, wherever it stands in the item.
_NAMED = re.compile(
    rf"[-–—|,;:*_(\[]{{0,4}}[ ]?\b(?:with[ ])?(?:a[ ])?(?:prob(?:ability)?|p)\b"
    rf"[.*_]{{0,3}}[ ]?(?:of|is|=|:|≈|~)?[*_]{{0,2}}[ ]?(?P<probability>{_NUMBER})"
    rf"[*_]{{0,2}}[)\]]?",
    re.IGNORECASE,
)
# Without it, only at an end of the item, and only where every item has one.
_AT_THE_END = re.compile(
    rf"(?:[ ]?[(\[][ ]?(?P<within>{_NUMBER})[ ]?[)\]]"
    rf"|[ ][-–—|:][ ]?(?P<after>{_NUMBER}))[.*_]{{0,3}}$"
)
_AT_THE_START = re.compile(
    rf"^(?:[(\[](?P<within>{_NUMBER})[)\]]"
    rf"|(?P<before>{_NUMBER})[ ]?[-–—|:][ ])[: ]{{0,2}}"
)
_QUOTES = {'"': '"', "“": "”", "«": "»", "「": "」", "'": "'", "‘": "’"}


class Verbalized:
    """One variant, whose text is a list of replies."""

    name = "verbalized"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        replies: int = Field(
            5, ge=2, le=20, description="replies that one text is asked to hold"
        )

    def __init__(self, settings: Settings) -> None:
        self.replies = settings.replies

    @hookimpl
    def prompt_variants(self) -> list[PromptVariant]:
        return [self]

    def instruction(self, turn: Turn) -> str:
        return (
            f"Write {self.replies} different replies to the question as a numbered "
            "list, one reply on each line. After each reply write the probability of "
            "that reply as a number from 0 to 1 in round brackets. Write nothing else."
        )

    def read(self, turn: Turn, written: Candidate) -> Sequence[Candidate]:
        items = listed(written.text, cut=written.finish == "length")
        if not items:
            # The model kept to no list: what it wrote is one reply, if it is any.
            return [written] if written.text.strip() else []
        return [
            replace(
                written,
                text=item.text,
                tokens=(),
                log_probs=(),
                certainties=(),
                finish="stop",
            )
            for item in items[: self.replies]
        ]


@dataclass(frozen=True, slots=True)
class Item:
    """A reply of the list; `probability` is what the model said of it, if anything."""

    text: str
    probability: float | None = None


def listed(text: str, *, cut: bool = False) -> list[Item]:
    """
    Return the different replies of a list, likeliest first where all say how likely
    they are; none when the text is no list. JSON, tags, numbers and bullets are lists.
    The last reply of a `cut` text is left out, unless its probability followed it.
    """
    items = _of_json(text) or _of_tags(text) or _of_lines(text, cut=cut)
    different = {item.text: item for item in reversed(items) if item.text}
    kept = [item for item in items if different.get(item.text) is item]
    if all(item.probability is not None for item in kept):
        kept.sort(key=lambda item: -(item.probability or 0.0))
    return kept


def _of_json(text: str) -> list[Item]:
    """A cut reply has no closing quote and is none."""
    literals = list(_json_strings(text))
    found: list[Item] = []
    for (start, stop), (first, last) in pairwise(literals):
        colon = _JSON_COLON.match(text, stop)
        is_key = text[start + 1 : stop - 1].lower() in _JSON_KEYS
        if is_key and colon and colon.end() == first:
            stated = _JSON_PROBABILITY.match(text, last)
            probability = _probability(stated["probability"] if stated else None)
            found.append(Item(_unescaped(text[first:last]), probability))
    list_start = text.find("[")
    if found or list_start < 0 or not literals:
        return found
    if text[list_start + 1 : literals[0][0]].strip():
        return []  # a bracket, then words
    return [Item(_unescaped(text[first:last])) for first, last in literals]


def _json_strings(text: str) -> Iterator[tuple[int, int]]:
    """Where the quoted strings start and end. One pass, however the quotes stand."""
    start: int | None = None
    for mark in _JSON_MARK.finditer(text):
        if mark.group() != '"':
            continue
        if start is None:
            start = mark.start()
        else:
            yield start, mark.end()
            start = None


def _unescaped(literal: str) -> str:
    try:
        # An escape can spell what is no text: half a character, a null.
        return cleaned(json.loads(literal, strict=False)).strip()
    except ValueError:  # "\d" and the like
        return literal[1:-1].strip()


def _of_tags(text: str) -> list[Item]:
    """`<text>…</text> <probability>…</probability>`, the form of the paper."""
    found: list[Item] = []
    for piece in text.split("<text>")[1:]:
        inner, closed, rest = piece.partition("</text>")
        if closed:
            stated = rest.partition("<probability>")[2][:12].partition("<")[0]
            found.append(Item(inner.strip(), _probability(stated)))
    return found


def _of_lines(text: str, *, cut: bool) -> list[Item]:
    raw = list(_raw_items(text))
    named = [_without_named(item) for item in raw]
    stated = [probability is not None for _, probability in named]
    if not any(stated):
        named = _without_bare(raw)
        stated = [probability is not None for _, probability in named]
    items = [Item(_unquoted(told), probability) for told, probability in named]
    if cut and items and not (stated[-1] and any(stated[:-1])):
        items.pop()
    return [item for item in items if any(map(str.isalnum, item.text))]


def _raw_items(text: str) -> Iterator[str]:
    """The items of a list of two or more; lines that follow belong to the item."""
    items: list[list[str]] = []
    for line in text.splitlines():
        mark = _ITEM.match(line)
        if mark:
            items.append([line[mark.end() :].strip()])
        elif items and line.strip():
            items[-1].append(line.strip())
    if len(items) > 1:
        yield from (" ".join(filter(None, lines)) for lines in items)


def _without_named(item: str) -> tuple[str, float | None]:
    found = _NAMED.search(item)
    if found is None:
        return item, None
    rest = f"{item[: found.start()]} {item[found.end() :]}"
    return _tidy(rest), _probability(found["probability"])


def _without_bare(items: Sequence[str]) -> list[tuple[str, float | None]]:
    """Take numbers off the ends, where every item but a cut last one has one."""
    for pattern in (_AT_THE_END, _AT_THE_START):
        matches = [pattern.search(item) for item in items]
        if len(items) > 1 and all(matches[:-1]):
            return [
                (_tidy(item[: match.start()] + item[match.end() :]), _stated(match))
                if match
                else (item, None)
                for item, match in zip(items, matches, strict=True)
            ]
    return [(item, None) for item in items]


def _stated(match: re.Match[str]) -> float | None:
    return next((_probability(each) for each in match.groups() if each), None)


def _tidy(text: str) -> str:
    return text.strip().strip("|–—").removesuffix(" -").strip()


def _unquoted(text: str) -> str:
    bare = text.strip().removeprefix("**").removesuffix("**").strip()
    if len(bare) > 1 and _QUOTES.get(bare[0]) == bare[-1] and bare[0] not in bare[1:-1]:
        return bare[1:-1].strip()
    return bare


def _probability(stated: str | None) -> float | None:
    try:
        number = float((stated or "").replace(" ", "").rstrip("%"))
    except ValueError:
        return None
    return number / 100 if "%" in (stated or "") else number
