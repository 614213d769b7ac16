"""
What a message may be made of: Slack's blocks and metadata, refused where Slack does.

All blocks of a message together hold 13,200 characters, which Slack's reference does
not say: slackapi/bolt-js#2509. A message with a picture that Slack cannot fetch is
refused as a whole (slackapi/java-slack-sdk#1396); to the stand-in these are the ones
whose host ends in `.invalid`. Knows nothing about messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

MARKDOWN_LIMIT = 12_000
BLOCKS_LIMIT = 13_200
MOST_BLOCKS = 50

Json = dict[str, Any]


class SlackError(Exception):
    """What Slack answers in place of `"ok": true`, with more keys of that answer."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.more = more


def text_of(block: Mapping[str, Any]) -> str | None:
    """Return the words of a block that is text, None for any other."""
    match block["type"]:
        case "markdown":
            return str(block["text"])
        case "section" | "header" if "text" in block:
            return str(block["text"]["text"])
    return None


_BLOCK_TYPES = frozenset(
    {
        "actions",
        "context",
        "context_actions",
        "divider",
        "header",
        "image",
        "markdown",
        "rich_text",
        "section",
        "table",
    }
)
_MOST_ELEMENTS = {"actions": 25, "context": 10, "context_actions": 5}
_OWN_KEYS = {
    "divider": frozenset(),
    "image": frozenset({"alt_text", "image_url", "slack_file", "title"}),
    "section": frozenset({"accessory", "expand", "fields", "text"}),
}
# What may stand in `actions` besides buttons; none of it is looked at any closer.
_MENUS = frozenset({"checkboxes", "datepicker", "overflow", "static_select"})


def checked_blocks(blocks: Any) -> list[Json]:
    """Refuse the blocks that Slack refuses."""
    if not isinstance(blocks, list):
        raise SlackError("invalid_blocks_format")
    if len(blocks) > MOST_BLOCKS:
        raise _invalid(f"no more than {MOST_BLOCKS} items allowed")
    for number, block in enumerate(blocks):
        _check_block(block, f"/blocks/{number}")
    if sum(len(told) for told in _all_texts(blocks)) > BLOCKS_LIMIT:
        raise SlackError("msg_blocks_too_long")
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    if len(ids) != len(set(ids)):
        raise _invalid("block_id already exists")
    return blocks


def _check_block(block: Any, at: str) -> None:
    if not isinstance(block, dict) or block.get("type") not in _BLOCK_TYPES:
        raise _invalid(f"unsupported type: {_type_of(block)}", f"{at}/type")
    others = block.keys() - {"type", "block_id"}
    unknown = others - _OWN_KEYS.get(block["type"], others)
    if unknown:
        raise _invalid(f"invalid additional property: {min(unknown)}", at)
    if len(block.get("block_id", "")) > 255:
        raise _invalid("must be less than 256 characters", f"{at}/block_id")
    match block["type"]:
        case "markdown":
            _check_markdown(block)
        case "header":
            _check_text(block.get("text"), 150)
        case "section":
            _check_section(block)
        case "image":
            _check_image(block, at)
        case kind if kind in _MOST_ELEMENTS:
            _check_elements(block, at)


def _check_markdown(block: Mapping[str, Any]) -> None:
    if not block.get("text"):
        raise _invalid("must have a text")
    if len(block["text"]) > MARKDOWN_LIMIT:
        raise SlackError("msg_blocks_too_long")


def _check_section(block: Mapping[str, Any]) -> None:
    if "fields" not in block or "text" in block:
        _check_text(block.get("text"), 3_000)
    for field in block.get("fields", ()):
        _check_text(field, 2_000)


def _check_elements(block: Mapping[str, Any], at: str) -> None:
    kind, elements = block["type"], block.get("elements")
    if not elements or len(elements) > _MOST_ELEMENTS[kind]:
        raise _invalid(f"{kind} must have 1 to {_MOST_ELEMENTS[kind]} elements")
    for element in elements:
        _check_element(kind, element)
    ids = [one["action_id"] for one in elements if "action_id" in one]
    if len(ids) != len(set(ids)):
        raise _invalid("action_id already exists", at)


def _type_of(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None


def _check_image(image: Mapping[str, Any], at: str) -> None:
    url, told = image.get("image_url"), image.get("alt_text")
    if not isinstance(url, str):
        raise _invalid("missing required field: image_url", at)
    if not isinstance(told, str) or not 0 < len(told) <= 2_000:
        raise _invalid("must be 1 to 2000 characters", f"{at}/alt_text")
    parts = urlsplit(url)
    if len(url) > 3_000 or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _invalid("invalid_url", f"{at}/image_url")
    if parts.hostname.endswith(".invalid"):
        raise _invalid("downloading image failed", f"{at}/image_url")


def _check_element(kind: str, element: Mapping[str, Any]) -> None:
    match kind, element.get("type"):
        case "actions", "button":
            _check_button(element)
        case "context", "mrkdwn" | "plain_text":
            _check_text(element, 3_000)
        case "context_actions", "feedback_buttons":
            _check_button(element["positive_button"])
            _check_button(element["negative_button"])
        case "context", "image":
            pass
        case "context_actions", "icon_button":
            pass
        case "actions", str(menu) if menu in _MENUS:
            pass
        case _:
            raise _invalid(f"{element.get('type')} does not belong in {kind}")


def _check_button(button: Mapping[str, Any]) -> None:
    if button["text"].get("type") != "plain_text":
        raise _invalid("a button's text must be plain_text")
    _check_text(button["text"], 75)
    if len(button.get("value", "")) > 2_000:
        raise _invalid("value must be less than 2001 characters")
    if len(button.get("action_id", "")) > 255:
        raise _invalid("action_id must be less than 256 characters")


def _check_text(text: Any, limit: int) -> None:
    if not isinstance(text, dict) or text.get("type") not in {"mrkdwn", "plain_text"}:
        raise _invalid("a text object is missing")
    if not 0 < len(text["text"]) <= limit:
        raise _invalid(f"must be 1 to {limit} characters")


def _invalid(why: str, at: str = "/blocks") -> SlackError:
    told = f"{why} [json-pointer:{at}]"
    return SlackError(
        "invalid_blocks",
        errors=[told],
        response_metadata={"messages": [f"[ERROR] {told}"]},
    )


def _all_texts(value: Any) -> Iterator[str]:
    """Yield every string called text, however deep."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "text" and isinstance(inner, str):
                yield inner
            else:
                yield from _all_texts(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _all_texts(inner)


def checked_metadata(metadata: Any) -> Json:
    if not metadata:
        return {}
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    whole = isinstance(metadata, dict) and isinstance(
        metadata.get("event_payload"), dict
    )
    if not whole or not metadata.get("event_type"):
        raise SlackError("invalid_metadata_format")
    return dict(metadata)
