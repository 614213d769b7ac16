"""The arguments of a call of the Web API, and the text that a message is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.connectors.slack.blocks import (
    MARKDOWN_LIMIT,
    Json,
    SlackError,
    checked_blocks,
)

TEXT_LIMIT = 40_000  # what is more is cut off


class Arguments:
    """What a call was given: JSON as it is, and a form whose values may be JSON."""

    def __init__(self, given: Json) -> None:
        self._given = given

    def text(self, name: str) -> str:
        value = self._given.get(name)
        return "" if value is None else str(value)

    def needed(self, name: str) -> str:
        if not self.text(name):
            raise SlackError(
                "invalid_arguments",
                response_metadata={"messages": [f"[ERROR] missing {name}"]},
            )
        return self.text(name)

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in {"1", "true"}

    def number(self, name: str, otherwise: int) -> int:
        return int(self.text(name) or otherwise)

    def tree(self, name: str) -> Any:
        """Return a list or an object; None when it was not given."""
        value = self._given.get(name)
        if isinstance(value, str) and value:
            try:
                return json.loads(value)
            except ValueError as error:
                raise SlackError("invalid_json") from error
        return value


def content_of(given: Arguments, kept: Sequence[Json] = ()) -> Json:
    """Return the text and the blocks of a message, and refuse one without any."""
    text, markdown = given.text("text"), given.text("markdown_text")
    blocks = given.tree("blocks")
    if markdown:
        if text or blocks:
            raise SlackError("markdown_text_conflict")
        if len(markdown) > MARKDOWN_LIMIT:
            raise SlackError("msg_too_long")
        blocks = [{"type": "markdown", "text": markdown}]
    if blocks is not None:
        blocks = checked_blocks(blocks)
    if not text and not blocks and not kept:
        raise SlackError("no_text")
    content: Json = {"text": text[:TEXT_LIMIT]}
    if blocks is not None:
        content["blocks"] = blocks
    return content


def chunk_of(given: Arguments) -> str:
    """Return the text that a stream grows by."""
    markdown, chunks = given.text("markdown_text"), given.tree("chunks") or []
    if markdown and chunks:
        raise SlackError("invalid_arguments")
    known = {"markdown_text", "task_update", "plan_update", "blocks"}
    if any(chunk.get("type") not in known for chunk in chunks):
        raise SlackError("invalid_chunks")
    text = markdown + "".join(
        chunk["text"] for chunk in chunks if chunk["type"] == "markdown_text"
    )
    if len(text) > MARKDOWN_LIMIT:
        raise SlackError("msg_too_long")
    return text
