"""
The inbox: what comes from connectors, before anything answers it.

An event is durable, or was refused, when `accept` returns; the connector acknowledges
after that. What nobody could answer is turned away here, with a reply that says so.
Knows nothing about turns.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import orjson

from bot import metrics
from bot.config import Config
from bot.conversation.cleaning import cleaned, is_readable
from bot.conversation.state import Unwritable
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Event, Record, Reply

logger = logging.getLogger(__name__)

FROM_CONNECTORS = frozenset({"message", "command", "cancel", "feedback"})


class Observers(Protocol):
    """Who is told of feedback. Fails for nobody."""

    async def feedback_received(self, event: Event, record: Record | None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """Accepts events for the connectors of `platforms`."""

    store: Store
    platforms: Collection[str]
    observers: Observers
    config: Config

    async def accept(self, event: Event) -> Accepted:
        """
        Take an event from a connector. It is durable when this returns, and the
        connector may acknowledge it to its service then, whatever the answer was.
        Raises StoreError when it could not be kept: nothing may be acknowledged.
        """
        try:
            _check_names(event)
            accepted = await self._accept(cleaned(event))
        except Unwritable as error:
            logger.warning("an event was refused: %s", error)
            accepted = "refused"
        except StoreError as error:
            metrics.store_failed()
            logger.error("an event was not taken, nor acknowledged: %s", error)  # noqa: TRY400
            raise
        if event.address.platform in self.platforms:
            metrics.accepted(event.address.platform, accepted)
        return accepted

    async def _accept(self, event: Event) -> Accepted:
        if event.kind not in FROM_CONNECTORS:
            logger.warning("an event was refused: connectors bring no %r", event.kind)
            return "refused"
        if event.address.platform not in self.platforms:
            logger.warning(
                "an event was refused: no connector %r", event.address.platform
            )
            return "refused"
        match event.kind:
            case "cancel":
                return await self.store.stop(event)
            case "feedback":
                return await self._feedback(event)
        notice = self._notice(event.text)
        if notice is not None:
            return await self._turn_away(event, notice)
        return await self._queue(event)

    async def _queue(self, event: Event) -> Accepted:
        interrupts = (
            event.kind == "message"
            and self.config.during_turn(event.address) == "interrupt"
        )
        accepted = await self.store.accept(event, interrupts=interrupts)
        if accepted == "refused":
            logger.info(
                "a message was refused: too many wait in %s, or came in a minute",
                event.address.digest,
            )
            busy = Reply(text=self.config.replies.busy)
            return await self._turn_away(event, busy, once=True)
        return accepted

    def _notice(self, text: str) -> Reply | None:
        replies, limit = self.config.replies, self.config.conversation
        if len(text) > limit.max_message_characters:
            # Not str.format: a brace in the operator's text must not break it.
            told = replies.too_long.replace("{characters}", str(len(text)))
            told = told.replace("{limit}", str(limit.max_message_characters))
            return Reply(text=told)
        return None if is_readable(text) else Reply(text=replies.empty)

    async def _turn_away(
        self, event: Event, notice: Reply, *, once: bool = False
    ) -> Accepted:
        accepted = await self.store.turn_away(event, notice, once=once)
        return "refused" if accepted == "accepted" else accepted

    async def _feedback(self, event: Event) -> Accepted:
        if len(event.text) > self.config.conversation.max_message_characters:
            return "refused"
        accepted = await self.store.note(event)
        if accepted == "accepted":
            try:
                record = await self._judged(event)
            except StoreError as error:
                # It is kept; the service would only be told that it came twice.
                logger.warning("feedback is told without its turn: %s", error)
                record = None
            await self.observers.feedback_received(event, record)
        return accepted

    async def _judged(self, event: Event) -> Record | None:
        """Find the turn that `data["turn"]` names, or else the last one."""
        named = event.data.get("turn")
        if not isinstance(named, str):
            return await self.store.last_record(event.address)
        record = await self.store.record_of(event.address, named)
        if record is None or record.turn.message.address.key != event.address.key:
            return None  # nobody judges, or learns about, another conversation's turn
        return record


def _check_names(event: Event) -> None:
    """pydantic writes half a character in a name as another one; orjson refuses it."""
    try:
        orjson.dumps(dict(event.data))
    except TypeError as error:
        raise Unwritable("its data cannot be written as JSON") from error
