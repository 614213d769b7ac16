"""
The outbox: committed replies on their way to the platforms.

Knows nothing about turns but their ids. A reply is sent again only when the connector
said that it did not arrive and may be sent again. After a crash between sending and
marking, a reply goes out again with the same key, by which `send` is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

from bot.conversation.cleaning import cleaned_text
from bot.conversation.state import Undelivered
from bot.conversation.store import Store
from bot.errors import DeliveryError
from bot.interfaces import Connector
from bot.model import Address, Record, Reply, Turn

logger = logging.getLogger(__name__)

ATTEMPTS = 12  # about six minutes
LONGEST_PAUSE_S = 60.0
SEND_S = 60.0
STATUS_S = 10.0

_UNKNOWN = "it is not known whether it arrived; it is not sent again"


class Observers(Protocol):
    """Who is told that a reply went out."""

    async def reply_sent(self, turn: Turn, reply: Reply) -> None: ...


class Outbox:
    """Delivers replies, one conversation's in order, as its lane asks for it."""

    def __init__(
        self,
        *,
        store: Store,
        connectors: Mapping[str, Connector],
        observers: Observers,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._observers = observers
        self._sleep = sleep
        # What became of replies that are not marked yet, because the store is gone:
        # sending them again would repeat them.
        self._unmarked: dict[str, str | None] = {}

    async def deliver(self, undelivered: Undelivered, record: Record | None) -> None:
        """
        Send a reply and take it out of the outbox. One that the platform will not
        have is given up, and the turn's record says so.
        """
        turn = undelivered.turn_id
        if turn not in self._unmarked:
            self._unmarked[turn] = await self._sent(undelivered, ATTEMPTS)
        problem = self._unmarked[turn]
        if record is None or record.turn.id != turn:
            record = await self._store.record(turn)
        if problem is None:
            await self._store.delivered(undelivered)
        else:
            logger.warning("the reply of turn %s: %s", turn, problem)
            await self._store.delivered(undelivered, _with_problem(record, problem))
        del self._unmarked[turn]
        if problem is None and record is not None:
            await self._observers.reply_sent(record.turn, undelivered.reply)

    async def send_past_the_store(self, undelivered: Undelivered) -> None:
        """Send, once, what cannot be kept because the store is gone."""
        problem = await self._sent(undelivered, attempts=1)
        if problem is not None:
            logger.warning("%s: %s", undelivered.turn_id, problem)

    async def show(self, address: Address, text: str) -> None:
        """Show that the bot is working; an empty text ends it."""
        connector = self._connectors[address.platform]
        limit = asyncio.timeout(STATUS_S)
        try:
            async with limit:
                await connector.status(address, text)
        except Exception:
            # It promised not to raise; an answer is worth more than its status.
            overdue = f": status took longer than {STATUS_S:g} s"
            logger.exception(
                "connector %r broke its contract%s",
                connector.name,
                overdue if limit.expired() else "",
            )

    async def _sent(self, undelivered: Undelivered, attempts: int) -> str | None:
        """Send a reply; return why that cannot be called delivered, or None."""
        connector = self._connectors[undelivered.address.platform]
        attempt = 1
        while True:
            limit = asyncio.timeout(SEND_S)
            try:
                async with limit:
                    sent = await connector.send(
                        undelivered.address, undelivered.reply, undelivered.turn_id
                    )
            except DeliveryError as error:
                if not error.retryable or attempt >= attempts:
                    # What cannot be written as JSON could not go into the record.
                    told = cleaned_text(str(error))
                    return f"not delivered after attempt {attempt}: {told}"
            # A connector is a stranger's code; one reply must not stop the others.
            except Exception as error:
                if limit.expired():
                    return f"{_UNKNOWN}, because it took longer than {SEND_S:g} s"
                logger.exception("connector %r broke its contract", connector.name)
                told = cleaned_text(repr(error))
                return f"not delivered, connector {connector.name!r} raised {told}"
            else:
                if sent.status == "unknown":
                    return _UNKNOWN
                return None
            await self._sleep(pause_s(attempt))
            attempt += 1


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures: 1, 2, 4 … 60 seconds."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)


def _with_problem(record: Record | None, problem: str) -> Record | None:
    if record is None:
        return None
    return replace(record, problems=(*record.problems, f"delivery: {problem}"))
