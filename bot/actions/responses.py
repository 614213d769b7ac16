"""
Response templates: one wording of a name, its blanks filled.

As Rasa's (rasa/core/nlg/response.py): wordings for the platform come before those for
all, one of several is drawn, `{name}` is what the action gave or a slot, and `{{` and
`}}` are braces. A blank is looked up by its name and nothing else: what stands between
braces is never evaluated. What is filled into a Markdown text is shown as it is, so
that no customer can write a link into the bot's own words; elsewhere nothing is
escaped. Knows no action and no connector.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions_config import ResponseConfig
from bot.config_file import did_you_mean
from bot.errors import ConfigError
from bot.text import cleaned

LONGEST_NAME = 100
LONGEST_VALUE = 20_000  # characters of one value; what is cut ends with "…"
DEEPEST = 32  # objects in objects

_BLANK = re.compile(r"\{\{|\}\}|\{(?P<name>[^\n{}]+)\}")
# How a text ends where a blank goes on with an address, in or outside a link.
_OPENS_ADDRESS = ("](", "://", "mailto:")
_ENDS_ADDRESS = re.compile(r"[\s)>]")
_LONGEST_ADDRESS = 500
_ADDRESS_MARKS = ":/?#@!$&'+,;=%"

# What would be markup, where it would be: `LB-10023`, `a_b@c.de` and `5 * 3` are none.
_MARKUP = re.compile(
    r"""
      [\[\]`|]                        # links, code, tables
    | \*(?!\s) | (?<!\s)\*            # emphasis
    | ~(?!\s) | (?<!\s)~
    | _(?![^\W_]) | (?<![^\W_])_      # but not within a word
    | <(?![\s\d=])                    # HTML, addresses, mentions
    | &(?=\#?\w{1,40};)               # `&lt;` is `<` in Markdown
    | \\(?=_|[^\w \t]|\Z)
    """,
    re.VERBOSE,
)
_BLOCK = re.compile(
    r"""
      ^([ \t]*)
      (?=   [-+*](?:[-\s]|$)          # lists, rules, underlined headings
          | =+[ \t]*$ | :-
          | \#{1,6}(?:\s|$) | >
      )
    | ^([ \t]*\d{1,9})(?=[.)](?:\s|$))
    """,
    re.VERBOSE | re.MULTILINE,
)


class UnknownResponse(ConfigError):
    """There is no response of this name, or none for this platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """
    A response as an action would have sent it, with the parts that it has: `text`,
    `buttons`, `image`, `attachment`, `custom`. `reword`: the operator wants its text
    worded by the generator.
    """

    response: JsonObject
    reword: bool = False
    problems: Sequence[str] = ()


class Responses:
    """The templates of `actions.responses`, by name."""

    def __init__(self, templates: Mapping[str, Sequence[ResponseConfig]]) -> None:
        self._templates = templates

    def has(self, name: str) -> bool:
        """Tell whether there is a response of this name, for whatever platform."""
        return bool(self._templates.get(name))

    def render(
        self,
        name: str,
        values: Mapping[str, JsonValue],
        *,
        platform: str,
        slots: Mapping[str, JsonValue],
        seed: int,
    ) -> Rendered:
        """
        Return one wording for the platform, the same one for the same seed. A blank
        that neither `values` nor `slots` know stays as it is written, and is a problem;
        raise UnknownResponse where there is no wording.
        """
        wordings = self._wordings(name, platform)
        wording = wordings[_draw(name, seed, len(wordings))]
        blanks = _Blanks(f"response {name!r}", ChainMap({**values}, {**slots}))
        response = _response(wording, blanks)
        return Rendered(
            response=response, reword=wording.reword, problems=blanks.problems
        )

    def _wordings(self, name: str, platform: str) -> Sequence[ResponseConfig]:
        written = self._templates.get(name, ())
        if not written:
            near = did_you_mean(name[:LONGEST_NAME], self._templates)
            raise UnknownResponse(
                f"`actions.responses` does not have {name[:LONGEST_NAME]!r}; {near}"
            )
        for channel in (platform, None):
            fitting = [wording for wording in written if wording.channel == channel]
            if fitting:
                return fitting
        raise UnknownResponse(
            f"`actions.responses.{name}` has no wording for {platform!r}; add one, "
            "or one without `channel`"
        )


def literal(text: str, following: str = "") -> str:
    """
    Return Markdown that shows this text as it is. It may stand anywhere in a Markdown
    text; `following` is what comes right behind it.
    """
    marked = _MARKUP.sub(r"\\\g<0>", cleaned(text))
    if marked.endswith("!") and following.startswith("["):
        marked = f"{marked[:-1]}\\!"
    return _BLOCK.sub(r"\g<1>\g<2>\\", marked)


def in_address(text: str) -> str:
    """
    Return the text as a part of an address, or as one: what has a meaning in addresses
    keeps it, what would end one within Markdown is percent-encoded.
    """
    return quote(cleaned(text), safe=_ADDRESS_MARKS)


def _draw(name: str, seed: int, among: int) -> int:
    """Draw by the seed, for each response anew; the same on every machine."""
    drawn = hashlib.sha256(f"{seed}:{name}".encode(errors="replace")).digest()
    return int.from_bytes(drawn[:8], "big") % among


def _response(wording: ResponseConfig, blanks: _Blanks) -> JsonObject:
    parts: dict[str, JsonValue] = {
        "text": blanks.markdown(wording.text),
        "buttons": [_button(button, blanks) for button in wording.buttons],
        "image": blanks.address(wording.image or ""),
        "attachment": blanks.address(wording.attachment or ""),
        "custom": blanks.nested(wording.custom, DEEPEST),
    }
    return {name: part for name, part in parts.items() if part}


def _button(button: Mapping[str, str], blanks: _Blanks) -> dict[str, JsonValue]:
    return {
        key: blanks.address(text) if key == "url" else blanks.plain(text)
        for key, text in button.items()
    }


class _Blanks:
    """Fills blanks of one response, and keeps what was wrong with them."""

    def __init__(self, where: str, values: Mapping[str, JsonValue]) -> None:
        self._where = where
        self._values = values
        self._problems: dict[str, None] = {}

    @property
    def problems(self) -> Sequence[str]:
        return tuple(self._problems)

    def markdown(self, text: str) -> str:
        return self._filled(text, _in_markdown)

    def address(self, text: str) -> str:
        return self._filled(text, lambda value, _before, _behind: in_address(value))

    def plain(self, text: str) -> str:
        return self._filled(text, lambda value, _before, _behind: cleaned(value))

    def nested(self, value: object, deeper: int) -> JsonValue:
        """Fill every string in it; what JSON does not have, as dates, is a string."""
        match value:
            case str():
                return self.plain(value)
            case None | bool() | int() | float():
                return value
            case Mapping() | list() | tuple() if not deeper:
                self._problem(
                    f"custom is nested more than {DEEPEST} deep; what is deeper is "
                    "left out"
                )
                return None
            case Mapping():
                return {
                    str(key): self.nested(one, deeper - 1) for key, one in value.items()
                }
            case list() | tuple():
                return [self.nested(one, deeper - 1) for one in value]
        return str(value)

    def _filled(self, text: str, shown: Callable[[str, str, str], str]) -> str:
        pieces: list[str] = []
        end = 0
        for blank in _BLANK.finditer(text):
            pieces.append(text[end : blank.start()])
            end, name = blank.end(), blank["name"]
            if name is None:
                pieces.append(blank.group()[0])
            elif name not in self._values:
                pieces.append(blank.group())
                self._problem(
                    f"{name[:LONGEST_NAME]!r} is neither a slot that is filled nor "
                    "given by the action, and stays as it is written; write {{ and }} "
                    "where braces are meant"
                )
            else:
                before = text[max(0, blank.start() - _LONGEST_ADDRESS) : blank.start()]
                pieces.append(shown(self._value(name), before, text[end : end + 1]))
        return "".join([*pieces, text[end:]])

    def _value(self, name: str) -> str:
        said = _said(self._values[name])
        if said is None:
            self._problem(f"what {name[:LONGEST_NAME]!r} holds cannot be written")
            return ""
        return said if len(said) <= LONGEST_VALUE else f"{said[:LONGEST_VALUE]}…"

    def _problem(self, problem: str) -> None:
        self._problems[f"{self._where}: {problem}"] = None


def _is_within_address(before: str) -> bool:
    starts = [before.rfind(mark) for mark in _OPENS_ADDRESS]
    return max(starts) >= 0 and not _ENDS_ADDRESS.search(before, max(starts))


def _in_markdown(value: str, before: str, behind: str) -> str:
    if _is_within_address(before):
        return in_address(value)
    return literal(value, behind)


def _said(value: object) -> str | None:
    """Return a value as people read it; None where it cannot be written."""
    match value:
        case str():
            return value
        case None:
            return ""
        case list() if not any(isinstance(one, list | dict) for one in value):
            said = [_said(one) for one in value]
            return None if None in said else ", ".join(filter(None, said))
        case bool() | int() | float():
            return _written(str, value)
        case list() | dict():
            return _written(_as_json, value)
    return None


def _written(write: Callable[[object], str], value: object) -> str | None:
    try:
        return write(value)
    # A number of too many digits, or a stranger's object in an object without end.
    except (ValueError, TypeError, RecursionError):
        return None


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
