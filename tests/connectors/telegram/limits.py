"""
What Telegram takes in a message, and how it sees what people write.

Pure functions. Lengths and offsets are in UTF-16 units, as everywhere in the Bot API.
The refusals are Telegram's own sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from tests.connectors.telegram.wire import JSON, bad_request

LONGEST_TEXT = 4096
LONGEST_CALLBACK = 64  # bytes

ENTITY_TYPES = frozenset(
    {
        "mention",
        "hashtag",
        "cashtag",
        "bot_command",
        "url",
        "email",
        "phone_number",
        "bold",
        "italic",
        "underline",
        "strikethrough",
        "spoiler",
        "blockquote",
        "expandable_blockquote",
        "code",
        "pre",
        "text_link",
        "text_mention",
        "custom_emoji",
    }
)
ACTIONS = frozenset({"typing", "upload_photo", "upload_document", "choose_sticker"})

_COMMAND = re.compile(r"(?<![\w/@<>])/(?:\w{1,64})(?:@\w{3,32})?(?![\w/<>])", re.ASCII)
_MENTION = re.compile(r"(?<![\w@/])@[A-Za-z]\w{3,31}(?!\w)", re.ASCII)
_URL = re.compile(r"https?://[^\s<>]+")
_COMMAND_NAME = re.compile(r"[a-z0-9_]{1,32}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


def units(text: str) -> int:
    """Return the length of a text in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def cut(text: str, offset: int, length: int) -> str:
    """Return the part of a text that lies there in UTF-16 units."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    part = encoded[2 * offset : 2 * (offset + length)]
    return part.decode("utf-16-le", "surrogatepass")


def entities_in(text: str) -> list[JSON]:
    """Find what Telegram marks by itself in what somebody wrote."""
    found = [
        _entity(kind, text, match)
        for kind, pattern in (
            ("bot_command", _COMMAND),
            ("mention", _MENTION),
            ("url", _URL),
        )
        for match in pattern.finditer(text)
    ]
    return sorted(found, key=lambda entity: entity["offset"])


def text_mention(text: str, name: str, person: JSON) -> JSON:
    """Mark a name in the text as meaning that person, who needs no username."""
    before = text[: text.index(name)]
    return {
        "type": "text_mention",
        "offset": units(before),
        "length": units(name),
        "user": person,
    }


def _entity(kind: str, text: str, match: re.Match[str]) -> JSON:
    return {
        "type": kind,
        "offset": units(text[: match.start()]),
        "length": units(match.group()),
    }


def check_text(args: Mapping[str, Any], *, may_be_empty: bool = False) -> str:
    """Return a message's text, or refuse it or its entities."""
    text = args.get("text", "")
    assert isinstance(text, str), f"text is no text: {text!r}"
    # The stand-in knows no markup: the connector sends entities.
    assert "parse_mode" not in args, "parse_mode is not part of the stand-in"
    if not text.strip() and not may_be_empty:
        raise bad_request("message text is empty")
    if units(text) > LONGEST_TEXT:
        raise bad_request("message is too long")
    _check_entities(text, args.get("entities", ()))
    return text


def _check_entities(text: str, entities: Sequence[JSON]) -> None:
    borders = _borders(text)
    for entity in entities:
        start = entity["offset"]
        end = start + entity["length"]
        if entity["type"] not in ENTITY_TYPES:
            raise bad_request(
                f"can't parse entities: unsupported type {entity['type']}"
            )
        if start < 0 or end <= start:
            raise bad_request("can't parse entities: wrong offset or length")
        if start > units(text) or end > units(text):
            raise bad_request(
                f"entity beginning at UTF-16 offset {start} ends after the end of the "
                f"text at byte offset {len(text.encode())}"
            )
        # https://github.com/mymmrac/telego/issues/94
        if start not in borders:
            raise bad_request(
                f"entity begins in a middle of a UTF-16 symbol at byte offset {start}"
            )
        if end not in borders:
            raise bad_request(
                f"entity beginning at UTF-16 offset {start} ends in a middle of a "
                f"UTF-16 symbol at byte offset {end}"
            )
        if entity["type"] == "text_link" and "url" not in entity:
            raise bad_request("can't parse entities: a text_link has no url")


def _borders(text: str) -> set[int]:
    """Where a character begins or the text ends."""
    return {0, *accumulate(map(units, text))}


_PREVIEW_OPTIONS: Mapping[str, type] = {
    "is_disabled": bool,
    "prefer_large_media": bool,
    "prefer_small_media": bool,
    "show_above_text": bool,
    "url": str,
}


def check_preview(options: JSON | None) -> JSON | None:
    """
    Return which link is shown as a page or a picture, or refuse the address. Telegram
    itself forgives a field that it does not know; a connector has none to write.
    """
    if options is None:
        return None
    for name, value in options.items():
        assert name in _PREVIEW_OPTIONS, f"no such option: {name}"
        if not isinstance(value, _PREVIEW_OPTIONS[name]):
            raise bad_request(
                f'field "{name}" of link_preview_options has a wrong type'
            )
    if options.get("prefer_large_media") and options.get("prefer_small_media"):
        raise bad_request("can't prefer both small and large media")
    if "url" in options and not _URL.fullmatch(options["url"]):
        raise bad_request("WEBPAGE_URL_INVALID")
    return options


def check_keyboard(markup: JSON | None) -> JSON | None:
    """Return an inline keyboard that Telegram shows, or refuse it."""
    if markup is None:
        return None
    for button in buttons_of(markup):
        if not button.get("text"):
            raise bad_request("inline keyboard button text is empty")
        pressed = button.get("callback_data", "")
        if len(pressed.encode()) > LONGEST_CALLBACK:
            raise bad_request("BUTTON_DATA_INVALID")
        if not pressed and not button.get("url"):
            raise bad_request("text buttons are unallowed in the inline keyboard")
    return markup if any(markup["inline_keyboard"]) else None


def buttons_of(markup: JSON | None) -> Iterator[JSON]:
    for row in (markup or {}).get("inline_keyboard", ()):
        yield from row


def check_commands(commands: Sequence[JSON]) -> None:
    if len(commands) > 100:
        raise bad_request("too many commands")
    for command in commands:
        if not _COMMAND_NAME.fullmatch(command["command"]):
            raise bad_request("BOT_COMMAND_INVALID")
        if not 1 <= len(command["description"]) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")


def check_webhook(args: Mapping[str, Any]) -> None:
    url, secret = args.get("url", ""), args.get("secret_token")
    if url and not url.startswith("https://"):
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    if secret is not None and not _SECRET.fullmatch(secret):
        raise bad_request("secret token contains unallowed characters")
    if not 1 <= args.get("max_connections", 40) <= 100:
        raise bad_request("max_connections must be between 1 and 100")
