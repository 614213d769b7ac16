"""
Replies: everything an action said, as the one reply that is sent.

Responses are a stranger's: what has the wrong type, or no place in a reply, is left out
and is a problem, and the rest is shown. Problems name keys, types and templates, and
nothing that a customer may have written. An action's `text` is Markdown; titles are
shown as they are. Knows no connector, only what all of them can show.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions.responses import (
    DEEPEST,
    LONGEST_NAME,
    Rendered,
    Responses,
    UnknownResponse,
    in_address,
    literal,
)
from bot.model import Button, Reply
from bot.text import cleaned, on_one_line

MOST_BUTTONS = 25  # Slack's; Telegram shows more
LONGEST_TITLE = 75
LONGEST_PAYLOAD = 4_000
LONGEST_ADDRESS = 2_048
MOST_PROBLEMS = 20

_NAMES = ("response", "template")  # rasa-sdk fills both; the second is its old word
_WEB = ("https", "http")
_CAN_BE_EMPTY = (str, list, Mapping, int, float)
_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    Mapping: "an object",
}

Part = TypeVar("Part", bound=Hashable)
_Object = Mapping[str, object]  # a stranger's: JSON as far as we know


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """
    What an action said: `reply` is None when that was nothing. `reword`: one of its
    templates wants to be worded by the generator. `problems` say what was left out.
    """

    reply: Reply | None = None
    reword: bool = False
    problems: Sequence[str] = ()


def reply_of(
    responses: Sequence[JsonObject],
    *,
    templates: Responses,
    slots: Mapping[str, JsonValue],
    platform: str,
    seed: int,
) -> Said:
    """Return all responses as one reply, in their order; no value makes it raise."""
    reading = _Reading()
    reword = False
    for number, response in enumerate(responses, 1):
        reading.begin(f"response {number}")
        if not _is_object(response):
            reading.problem(f"is {_kind(response)}, not an object")
            continue
        rendered = _rendered(reading, response, templates, slots, (platform, seed))
        reading.read(_with_own_parts(rendered.response, response))
        reword |= rendered.reword
    return Said(reply=reading.reply, reword=reword, problems=reading.problems)


def joined(replies: Sequence[Reply]) -> Reply:
    """Return one reply that says what all of them say; what they repeat, once."""
    return Reply(
        text="\n\n".join(reply.text for reply in replies if reply.text),
        citations=_once(reply.citations for reply in replies),
        buttons=_once(reply.buttons for reply in replies),
        feedback=any(reply.feedback for reply in replies),
        images=_once(reply.images for reply in replies),
        custom=tuple(chain.from_iterable(reply.custom for reply in replies)),
    )


def _once(parts: Iterable[Iterable[Part]]) -> tuple[Part, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(parts)))


def _rendered(
    reading: _Reading,
    response: JsonObject,
    templates: Responses,
    slots: Mapping[str, JsonValue],
    drawn: tuple[str, int],
) -> Rendered:
    """Return the template that a response names; nothing where it names none."""
    named = (response.get(key) for key in _NAMES)
    name = next((name for name in named if not _is_absent(name)), None)
    if name is None:
        return Rendered(response={})
    if not isinstance(name, str):
        reading.problem(f"`response` is {_kind(name)}, not a response's name")
        return Rendered(response={})
    platform, seed = drawn
    values = {key: value for key, value in response.items() if key not in _NAMES}
    try:
        rendered = templates.render(
            name, values, platform=platform, slots=slots, seed=seed
        )
    except UnknownResponse as error:
        reading.problem(str(error))
        return Rendered(response={})
    for problem in rendered.problems:
        reading.problem(problem)
    return rendered


def _with_own_parts(template: JsonObject, response: JsonObject) -> JsonObject:
    """What the action gave itself wins; its buttons come behind the template's."""
    own = {
        key: value
        for key, value in response.items()
        if key not in _NAMES and not _is_absent(value)
    }
    first, more = template.get("buttons"), own.get("buttons")
    if isinstance(first, list) and isinstance(more, list):
        own["buttons"] = [*first, *more]
    return {**template, **own}


class _Reading:
    """A reply as far as it was read, and what was wrong with what was said."""

    def __init__(self) -> None:
        self._where = ""
        self._paragraphs: list[str] = []
        self._buttons: list[Button] = []
        self._images: list[str] = []
        self._custom: list[JsonObject] = []
        self._problems: list[str] = []

    @property
    def reply(self) -> Reply | None:
        """What was said so far; None is nothing."""
        # No platform shows buttons under nothing.
        titles = " · ".join(literal(button.text) for button in self._buttons)
        text = "\n\n".join(self._paragraphs)
        reply = Reply(
            text=text or ("" if self._images else titles),
            buttons=tuple(self._buttons),
            images=tuple(self._images),
            custom=tuple(self._custom),
        )
        return None if reply.is_empty else reply

    @property
    def problems(self) -> Sequence[str]:
        more = len(self._problems) - MOST_PROBLEMS
        rest = [f"and {more} more of what was said is left out"] if more > 0 else []
        return (*self._problems[:MOST_PROBLEMS], *rest)

    def begin(self, where: str) -> None:
        self._where = where

    def problem(self, problem: str) -> None:
        self._problems.append(f"{self._where}: {problem}")

    def read(self, response: _Object) -> None:
        before = self._count()
        self._read_text(response.get("text"))
        self._read_elements(response.get("elements"))
        self._read_attachment(response.get("attachment"))
        self._read_buttons(response.get("buttons"), "")
        self._read_image(response.get("image"), "`image`")
        self._read_custom(response.get("custom"))
        if self._count() == before:
            self.problem(
                "shows nothing; give a text, buttons, elements, an image, an "
                "attachment, custom, or a response's name"
            )

    def _count(self) -> int:
        found = len(self._paragraphs) + len(self._buttons) + len(self._images)
        return found + len(self._custom) + len(self._problems)

    def _read_text(self, text: object) -> None:
        self._add(self._text(text, "`text`"))

    def _read_elements(self, elements: object) -> None:
        for number, element in enumerate(self._list(elements, "`elements`"), 1):
            where = f"element {number}"
            card = self._object(element, where)
            self._add(self._card(card, where))
            self._read_image(card.get("image_url"), f"{where}'s `image_url`")
            self._read_buttons(card.get("buttons"), f"{where}'s ")

    def _card(self, element: _Object, where: str) -> str:
        """Return an element's title, which leads where the element does, and more."""
        title = self._title(element.get("title"), f"{where}'s `title`")
        subtitle = self._title(element.get("subtitle"), f"{where}'s `subtitle`")
        name = f"**{literal(title)}**" if title else ""
        led = f"{where}'s `default_action`"
        action = self._object(element.get("default_action"), led)
        address = self._address(action.get("url"), led)
        if address and name:
            name = _link(name, address)
        # Two spaces: a line ends here.
        return "  \n".join(filter(None, (name, literal(subtitle))))

    def _read_attachment(self, attachment: object) -> None:
        given: _Object = attachment if _is_object(attachment) else {"url": attachment}
        if all(_is_absent(part) for part in given.values()):
            return
        payload = given.get("payload")
        at = [*_values(payload, "src", "url"), *_values(given, "url", "src")]
        if not at:
            self.problem("`attachment` has no address; give a `url` or `payload.src`")
            return
        address = self._address(at[0], "`attachment`")
        if address:
            named = _values(given, "name", "title")
            name = self._title(named[0], "`attachment`'s name") if named else ""
            self._add(_link(literal(name or _file_name(address)), address))

    def _read_buttons(self, buttons: object, of: str) -> None:
        for number, button in enumerate(self._list(buttons, f"{of}`buttons`"), 1):
            where = f"{of}button {number}"
            if pressed := self._object(button, where):
                self._read_button(pressed, where)

    def _read_button(self, button: _Object, where: str) -> None:
        title = self._title(button.get("title"), f"{where}'s `title`")
        if not title:
            self.problem(f"{where} has no title and is left out")
        elif not _is_absent(button.get("url")) or button.get("type") == "web_url":
            address = self._address(button.get("url"), f"{where}'s `url`")
            self._add(_link(literal(title), address) if address else "")
        else:
            self._add_button(title, button.get("payload"), where)

    def _add_button(self, title: str, payload: object, where: str) -> None:
        said = self._text(payload, f"{where}'s `payload`")
        if not _is_absent(payload) and not said:
            return
        if len(said) > LONGEST_PAYLOAD:
            self.problem(
                f"{where}'s `payload` has more than {LONGEST_PAYLOAD} characters; the "
                "button is left out"
            )
        elif len(self._buttons) == MOST_BUTTONS:
            self.problem(
                f"{where} is left out: a reply shows {MOST_BUTTONS} buttons at most"
            )
        else:
            self._buttons.append(Button(text=title, payload=said or title))

    def _read_image(self, image: object, what: str) -> None:
        address = self._address(image, what)
        if address:
            self._images.append(address)

    def _read_custom(self, custom: object) -> None:
        given = self._object(custom, "`custom`")
        if given:
            self._custom.append(
                {_key(key): self._json(value, DEEPEST) for key, value in given.items()}
            )

    def _json(self, value: object, deeper: int) -> JsonValue:
        """Return the value as JSON that can be kept: half characters cannot."""
        match value:
            case str():
                return cleaned(value)
            case float() if not math.isfinite(value):
                self.problem("`custom` has a number that JSON has not; it is null")
            case None | bool() | int() | float():
                return value
            case Mapping() | list() if not deeper:
                self.problem(f"`custom` is deeper than {DEEPEST}; the rest is null")
            case Mapping():
                return {
                    _key(key): self._json(one, deeper - 1) for key, one in value.items()
                }
            case list():
                return [self._json(one, deeper - 1) for one in value]
            case _:
                self.problem(f"`custom` has {_kind(value)}, which is no JSON")
        return None

    def _add(self, paragraph: str) -> None:
        if paragraph:
            self._paragraphs.append(paragraph)

    def _text(self, text: object, what: str) -> str:
        if isinstance(text, str):
            return cleaned(text).strip()
        if not _is_absent(text):
            self.problem(f"{what} is {_kind(text)}, not a text")
        return ""

    def _title(self, title: object, what: str) -> str:
        text = on_one_line(self._text(title, what))
        return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…"

    def _list(self, parts: object, what: str) -> Sequence[object]:
        if isinstance(parts, list):
            return parts
        if not _is_absent(parts):
            self.problem(f"{what} is {_kind(parts)}, not a list")
        return ()

    def _object(self, value: object, what: str) -> _Object:
        if _is_object(value):
            return value
        if not _is_absent(value):
            self.problem(f"{what} is {_kind(value)}, not an object")
        return {}

    def _address(self, address: object, what: str) -> str:
        text = self._text(address, what)
        if not text or _is_web(text):
            return text
        self.problem(
            f"{what} is no address that begins with https:// or http:// and has "
            f"{LONGEST_ADDRESS} characters at most"
        )
        return ""


def _link(label: str, address: str) -> str:
    return f"[{label}]({in_address(address)})"


def _file_name(address: str) -> str:
    parts = urlsplit(address)
    name = on_one_line(cleaned(unquote(parts.path.rstrip("/").rpartition("/")[2])))
    return (name or parts.netloc)[-LONGEST_TITLE:]


def _is_web(address: str) -> bool:
    if len(address) > LONGEST_ADDRESS or not address.isprintable() or " " in address:
        return False
    try:
        parts = urlsplit(address)
    except ValueError:  # half an IPv6 address
        return False
    return parts.scheme in _WEB and bool(parts.hostname)


def _values(given: object, *keys: str) -> list[object]:
    """Return what is there under these keys, in their order."""
    if not _is_object(given):
        return []
    return [given[key] for key in keys if not _is_absent(given.get(key))]


def _key(key: object) -> str:
    return cleaned(str(key))


def _is_object(value: object) -> TypeGuard[_Object]:
    return isinstance(value, Mapping)


def _is_absent(value: object) -> bool:
    """Tell whether a part is not there: rasa-sdk fills in nulls and empty ones."""
    return value is None or (isinstance(value, _CAN_BE_EMPTY) and not value)


def _kind(value: object) -> str:
    for kind, words in _KINDS.items():
        if isinstance(value, kind):
            return words
    return f"of the type {type(value).__name__[:LONGEST_NAME]!r}"
