"""
The inbox: what comes from connectors, before anything answers it.

An event is durable, or was refused, when `accept` returns; the connector acknowledges
after that. What nobody could answer is turned away here, with a reply that says so. A
pressed button becomes what it says. Knows nothing about how turns are answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from bot import metrics
from bot.config import Config
from bot.conversation.cleaning import cleaned, is_readable
from bot.conversation.state import Unreadable, Unwritable
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Address, Button, Event, EventKind, Record, Reply

logger = logging.getLogger(__name__)

FROM_CONNECTORS = frozenset({"message", "command", "button", "cancel", "feedback"})
RATINGS = (1, -1, 0)
STOP = "stop"  # as a button says it; connectors bring an event of the kind "cancel"


class Observers(Protocol):
    """Who is told of feedback. Fails for nobody."""

    async def feedback_received(self, event: Event, record: Record | None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """
    Accepts events for the connectors of `platforms`. `queued` is told of each message
    and command that waits for its answer from now on.
    """

    store: Store
    platforms: Collection[str]
    observers: Observers
    config: Config
    queued: Callable[[Event], None]

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
            case "button":
                return await self._press(event)
            case "feedback":
                return await self._feedback(event)
            case _:
                return await self._take(event)

    async def _take(self, event: Event) -> Accepted:
        if event.kind == "cancel":
            return await self.store.stop(event)
        notice = self._notice(event)
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
            busy = Reply(text=self.config.replies_for(event.address).busy)
            return await self._turn_away(event, busy, once=True)
        if accepted == "accepted":
            self.queued(event)
        return accepted

    def _notice(self, event: Event) -> Reply | None:
        text, limit = event.text, self.config.conversation
        replies = self.config.replies_for(event.address)
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

    # Buttons

    async def _press(self, event: Event) -> Accepted:
        """Take what the button says, as if the customer had written it."""
        button = await self._button(event)
        if button is None:
            expired = Reply(text=self.config.replies_for(event.address).expired)
            return await self._turn_away(event, expired)
        return await self._take(cleaned(_said(event, button)))

    async def _button(self, event: Event) -> Button | None:
        turn, place = event.data.get("turn"), event.data.get("button")
        # True counts as 1 everywhere in Python; a button's place is a number.
        if not isinstance(turn, str) or type(place) is not int or place < 0:
            return None
        record = await self._record(event.address, turn)
        if record is None or _is_foreign(record, event.address):
            return None  # nobody presses, or learns about, another one's buttons
        buttons = record.reply.buttons
        return buttons[place] if place < len(buttons) else None

    # Feedback

    async def _feedback(self, event: Event) -> Accepted:
        rating, named = event.data.get("rating"), event.data.get("turn")
        wrong = type(rating) is not int or rating not in RATINGS
        if wrong or not isinstance(named, str | None):
            logger.warning("feedback was refused: it has no rating, or no turn's name")
            return "refused"
        if len(event.text) > self.config.conversation.max_message_characters:
            return "refused"
        if named is None:
            record = await self._last_record(event.address)
        else:
            record = await self._record(event.address, named)
        if record is not None and _is_foreign(record, event.address):
            return "refused"  # nobody judges, or learns about, another one's turn
        event = _about(event, record)
        accepted = await self.store.judge(event, record)
        if accepted == "accepted":
            await self.observers.feedback_received(event, record)
        return accepted

    async def _last_record(self, address: Address) -> Record | None:
        try:
            return await self.store.last_record(address)
        except Unreadable as error:
            logger.warning("the last turn of %s: %s", address.digest, error)
            return None

    async def _record(self, address: Address, turn: str) -> Record | None:
        try:
            return await self.store.record_of(address, turn)
        except Unreadable as error:
            # It will not become readable by being asked for again.
            logger.warning("the record of a turn of %s: %s", address.digest, error)
            return None


def _is_foreign(record: Record, address: Address) -> bool:
    return record.turn.message.address.key != address.key


def _said(event: Event, button: Button) -> Event:
    """Return what a button says, from whoever pressed it."""
    said = replace(
        event,
        kind="message",
        text=button.payload,
        data={**event.data, "pressed": button.text},
    )
    name, _, _ = button.payload.partition(" ")
    if not name.startswith("/"):
        return said
    kind: EventKind = "cancel" if name == f"/{STOP}" else "command"
    return replace(said, kind=kind, text=button.payload.removeprefix("/"))


def _about(event: Event, record: Record | None) -> Event:
    """Return the feedback with what is known of the turn that it judges."""
    if record is None:
        return replace(event, data={**event.data, "candidate": None})
    about = {"turn": record.turn.id, "candidate": record.chosen}
    return replace(event, data={**event.data, **about})


def _check_names(event: Event) -> None:
    """pydantic writes half a character in a name as another one; orjson refuses it."""
    try:
        orjson.dumps(dict(event.data))
    except TypeError as error:
        raise Unwritable("its data cannot be written as JSON") from error
