"""
The history: which of a reply's messages are in Slack already.

A message of the bot names its turn in its metadata. Asked only where an answer of Slack
was lost: reading has a tight limit of its own, and needs a scope. Knows no replies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from bot.errors import DeliveryError
from bot.model import Address
from connectors.slack.payloads import (
    Payload,
    items,
    part,
    stamp_in,
    text_in,
)
from connectors.slack.refusals import Refused
from connectors.slack.rendering import DRAFT_TYPE, EVENT_TYPE
from connectors.slack.web_api import Unanswered, WebApi
from connectors.slack.workspaces import Workspace

PAGE = 200
MOST_PAGES = 10
_GONE = frozenset({"thread_not_found", "message_not_found"})


class History:
    """Looks for messages of the bot."""

    def __init__(self, api: WebApi) -> None:
        self._api = api

    async def parts_of(
        self, workspace: Workspace, address: Address, key: str, since: str
    ) -> tuple[Mapping[int, str], int]:
        """
        Return the stamp of each part that is there, by its number from 1 on, and how
        many there ought to be. Raises DeliveryError where that cannot be seen.
        """
        stamps: dict[int, str] = {}
        parts = 0
        async for message in self._messages(workspace, address, since):
            told = part(message, "metadata")
            payload = part(told, "event_payload")
            stamp, number = stamp_in(message, "ts"), payload.get("part")
            ours = (
                text_in(told, "event_type") == EVENT_TYPE and payload.get("key") == key
            )
            if ours and stamp and isinstance(number, int):
                # Of two with one number, nobody knows why, the first is the reply's.
                stamps[number] = min(stamp, stamps.get(number, stamp))
                parts = int(payload.get("parts") or 0)
        return stamps, parts

    async def unfinished(
        self, workspace: Workspace, address: Address, since: str
    ) -> list[str]:
        """Return the stamps of messages that were begun and are no reply yet."""
        found = []
        async for message in self._messages(workspace, address, since):
            kind = text_in(part(message, "metadata"), "event_type")
            streams = message.get("streaming_state") == "in_progress" and not kind
            stamp = stamp_in(message, "ts")
            if stamp and (streams or kind == DRAFT_TYPE):
                found.append(stamp)
        return sorted(found)

    async def turn_of(
        self, workspace: Workspace, chat: str, stamp: str
    ) -> tuple[str, str | None] | None:
        """Return the turn that a message answers and its thread; None: no reply."""
        try:
            page = await self._read(
                workspace, "conversations.replies", chat, ts=stamp, limit=1
            )
        except Refused as error:
            if error.retryable:
                raise
            return None
        for message in items(page, "messages"):
            told = part(message, "metadata")
            key = text_in(part(told, "event_payload"), "key")
            ours = _is_ours(message, workspace) and stamp_in(message, "ts") == stamp
            if ours and key and text_in(told, "event_type") == EVENT_TYPE:
                thread = stamp_in(message, "thread_ts")
                return key, None if thread == stamp else thread
        return None

    async def _messages(
        self, workspace: Workspace, address: Address, since: str
    ) -> AsyncIterator[Payload]:
        """Yield the bot's messages in a conversation."""
        method, args = "conversations.history", {}
        if address.thread is not None:
            method, args = "conversations.replies", {"ts": address.thread}
        cursor = ""
        for _ in range(MOST_PAGES):
            more = {"cursor": cursor} if cursor else {}
            try:
                page = await self._read(
                    workspace,
                    method,
                    address.chat,
                    oldest=since,
                    limit=PAGE,
                    **args,
                    **more,
                )
            except Refused as error:
                if error.code in _GONE:
                    return
                raise
            for message in items(page, "messages"):
                if _is_ours(message, workspace):
                    yield message
            cursor = text_in(part(page, "response_metadata"), "next_cursor")
            if not cursor:
                return
        raise DeliveryError(
            f"slack: {method}: more than {PAGE * MOST_PAGES} messages were written "
            "since; look in the channel whether the reply is there",
            retryable=False,
        )

    async def _read(
        self, workspace: Workspace, method: str, chat: str, **args: Any
    ) -> Payload:
        try:
            return await self._api.call(
                workspace, method, channel=chat, include_all_metadata=True, **args
            )
        except Unanswered as error:
            raise DeliveryError(
                f"slack: {method} had no answer; it is tried again by itself",
                retryable=True,
            ) from error


def _is_ours(message: Payload, workspace: Workspace) -> bool:
    return workspace.bot_id == message.get("bot_id") or (
        workspace.bot_user == message.get("user")
    )
