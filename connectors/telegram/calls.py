"""
Calls: how a message, an edit or an action is written for the Bot API.

Pure functions; each returns arguments. Knows nothing about when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.model import Address
from connectors.telegram.parsing import business_of
from connectors.telegram.rendering import Part

# A preview of whatever a reply links to would be larger than the reply.
_NO_PREVIEW: Mapping[str, Any] = {"is_disabled": True}


def place(address: Address, chat: str) -> dict[str, Any]:
    """Where in the chat, which may be called otherwise than the conversation is."""
    return {
        **in_chat(address, chat),
        "message_thread_id": address.thread,
    }


def in_chat(address: Address, chat: str) -> dict[str, Any]:
    return {"chat_id": chat, "business_connection_id": business_of(address)}


def message(part: Part) -> dict[str, Any]:
    keyboard = {"inline_keyboard": part.keyboard} if part.keyboard else None
    return {
        **draft(part),
        "link_preview_options": _preview_of(part),
        "reply_markup": keyboard,
    }


def _preview_of(part: Part) -> Mapping[str, Any]:
    if not part.picture:
        return _NO_PREVIEW
    return {
        "url": part.picture,
        "prefer_large_media": True,
        "show_above_text": False,
    }


def draft(part: Part) -> dict[str, Any]:
    entities = [entity.wire for entity in part.entities]
    return {"text": part.text, "entities": entities or None}


def answering(question: int | None) -> dict[str, Any]:
    """Quote the question; it may have been deleted meanwhile."""
    if question is None:
        return {}
    quoted = {"message_id": question, "allow_sending_without_reply": True}
    return {"reply_parameters": quoted}
