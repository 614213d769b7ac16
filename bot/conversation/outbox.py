"""
The outbox: committed replies on their way to the platforms.

Knows nothing about turns but their ids. The replies of one address go out in order,
addresses beside each other. A reply is marked before it is sent, and taken out once
its outcome is known: ok, rejected (never sent again), later (sent again after a pause)
or unknown. What is unknown is looked up where the connector can look; where it cannot,
the connector's `delivery` says whether it is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from bot import metrics
from bot.conversation.cleaning import cleaned_text
from bot.conversation.crew import Held
from bot.conversation.frames import FrameListener
from bot.conversation.patience import Patience
from bot.conversation.sends import Gate, Priority, Shown
from bot.conversation.state import Outgoing, Undelivered, Unreadable
from bot.conversation.store import Store
from bot.errors import DeliveryError, place_of
from bot.interfaces import Connector, Finds, ShowsFrames
from bot.model import Address, Record, Reply, Turn

logger = logging.getLogger(__name__)

GIVE_UP_S = 86_400.0  # by then nobody waits for it, and Redis is not for ever
LOOKS = 12  # about six minutes of looking whether a reply has arrived
IN_DOUBT = 3  # attempts, at most, at something of which nobody knows whether it arrived
LONGEST_PAUSE_S = 60.0
SEND_S = 60.0
STATUS_S = 10.0
FRAME_S = 3.0  # a reply waits for the frame that is just being shown

_UNKNOWN = "it is not known whether it arrived; it is not sent again"
_PRIORITIES = {"final": Priority.FINAL, "interactive": Priority.INTERACTIVE}


class Observers(Protocol):
    """Who is told that a reply went out, if anybody wants to hear of it."""

    def hear_of_replies(self, address: Address) -> bool: ...
    async def reply_sent(self, turn: Turn, reply: Reply) -> None: ...


class LeaseLost(Exception):
    """Somebody else delivers here by now."""


class NotHere(Exception):
    """This connector does not reach the address; another process's does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What became of one attempt; `told` says more, `after_s` when to try again,
    `elsewhere` that another process has to.
    """

    kind: Literal["ok", "rejected", "later", "unknown"]
    told: str = ""
    after_s: float | None = None
    elsewhere: bool = False


class Outbox:
    """Delivers what is committed, and shows what is going on."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        store: Store,
        connectors: Mapping[str, Connector],
        observers: Observers,
        patience: Patience,
        frames: FrameListener,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._observers = observers
        self._patience = patience
        self._frames = frames
        self._sleep = sleep
        self._gates = {name: Gate() for name in connectors}
        self._shown = {
            name: Shown(self._gates[name], self._show) for name in connectors
        }

    async def work(self, held: Held) -> None:
        """Deliver the replies of one address until there are none left."""
        token = held.token
        outgoing = await self._patience(lambda: self._store.open_outbox(token))
        try:
            while outgoing is not None:
                problem = await self._deliver(held, outgoing)
                outgoing = await self._take_out(held, outgoing.undelivered, problem)
        except LeaseLost:
            metrics.lease_lost("outbox")
            logger.warning("the lease on an outbox was lost; another one delivers it")
        except NotHere:
            await self._patience(lambda: self._store.hand_back(token, "out"))
        held.over = True

    def show(self, address: Address, text: str) -> None:
        """Show that the bot is working; an empty text ends it."""
        self._shown[address.platform].show(Priority.STATUS, address, text)

    def frame(self, address: Address, text: str) -> None:
        """Show the reply as far as it is written, if the platform has time."""
        self._shown[address.platform].show(Priority.FRAME, address, text)

    async def settled(self) -> None:
        for shown in self._shown.values():
            await shown.settled()

    async def close(self) -> None:
        for shown in self._shown.values():
            await shown.close()

    async def _take_out(
        self, held: Held, undelivered: Undelivered, problem: str | None
    ) -> Outgoing | None:
        """Take a reply out of the outbox, and note in its record what went wrong."""
        record = await self._record(undelivered, problem)
        if problem is not None:
            logger.warning(
                "the reply of turn %s was not delivered; chorus explain says why",
                undelivered.turn_id,
            )
        # Before the next message of the address can begin, and show that it does.
        self.show(undelivered.address, "")
        # With the last reply its token is gone, which is no loss.
        held.over = True
        outgoing = await self._patience(
            lambda: self._store.sent(
                held.token, undelivered.turn_id, _with_problem(record, problem)
            )
        )
        held.over = outgoing is None
        if problem is None and record is not None:
            await self._observers.reply_sent(record.turn, undelivered.reply)
        return outgoing

    async def _record(
        self, undelivered: Undelivered, problem: str | None
    ) -> Record | None:
        """Return the turn's record, if it is needed at all."""
        address, turn = undelivered.address, undelivered.turn_id
        if problem is None and not self._observers.hear_of_replies(address):
            return None
        try:
            return await self._patience(lambda: self._store.record_of(address, turn))
        except Unreadable as error:
            # The reply is out; it must not be sent again for the sake of its record.
            logger.warning("the record of turn %s: %s", turn, error)
            return None

    async def _deliver(self, held: Held, outgoing: Outgoing) -> str | None:
        """Send a reply; return why that cannot be called delivered, or None."""
        undelivered = outgoing.undelivered
        if undelivered.reply.is_empty:
            return None
        tries, doubts = outgoing.tries, 0
        give_up = time.monotonic() + GIVE_UP_S - outgoing.age_s
        outcome = Outcome(kind="unknown") if outgoing.doubtful else None
        while True:
            if outcome is None:
                outcome = await self._attempt(held, undelivered)
            if outcome.kind == "unknown":
                doubts += 1
                outcome = await self._resolved(undelivered, outcome, doubts)
            metrics.delivered(undelivered.address.platform, outcome.kind)
            if outcome.kind == "ok":
                return None
            tries += 1
            if outcome.kind != "later" or time.monotonic() >= give_up:
                return _problem(outcome, tries)
            await self._pause(held, outcome, tries)
            if outcome.elsewhere:
                raise NotHere
            outcome = None

    async def _pause(self, held: Held, outcome: Outcome, tries: int) -> None:
        await self._patience(lambda: self._store.later(held.token, tries))
        pause = pause_s(tries) if outcome.after_s is None else outcome.after_s
        held.pausing = True
        await self._sleep(pause)
        held.pausing = False

    async def _attempt(self, held: Held, undelivered: Undelivered) -> Outcome:
        connector = self._connectors[undelivered.address.platform]
        gate = self._gates[undelivered.address.platform]
        limit = asyncio.timeout(SEND_S)
        async with gate.admitted(_PRIORITIES[undelivered.urgency]):
            self._frames.over(undelivered.turn_id)
            await self._shown[connector.name].drop_frames(undelivered.address)
            await self._mark(held, undelivered)
            try:
                async with limit:
                    sent = await connector.send(
                        undelivered.address, undelivered.reply, undelivered.turn_id
                    )
            except DeliveryError as error:
                # What cannot be written as JSON could not go into the record.
                told = cleaned_text(str(error))
                kind: Literal["later", "rejected"] = (
                    "later" if error.retryable else "rejected"
                )
                return Outcome(
                    kind=kind,
                    told=told,
                    after_s=error.retry_after_s,
                    elsewhere=error.elsewhere,
                )
            # A connector is a stranger's code; one reply must not stop the others.
            except Exception as error:  # noqa: BLE001
                if limit.expired():
                    told = f", because it took longer than {SEND_S:g} s"
                    return Outcome(kind="unknown", told=told)
                logger.error(  # noqa: TRY400
                    "connector %r broke its contract: %s",
                    connector.name,
                    place_of(error),
                )
                told = cleaned_text(f": connector {connector.name!r} raised {error!r}")
                return Outcome(kind="unknown", told=told)
        return Outcome(kind="ok" if sent.status == "ok" else "unknown")

    async def _mark(self, held: Held, undelivered: Undelivered) -> None:
        """Mark the reply as being sent, and be sure that nobody else sends it now."""

        async def mark() -> tuple[float, bool]:
            asked = time.monotonic()
            return asked, await self._store.mark(held.token, undelivered.turn_id)

        while True:
            asked, marked = await self._patience(mark)
            if not marked:
                raise LeaseLost
            held.renewed = max(held.renewed, asked)
            if held.is_current():
                return

    async def _resolved(
        self, undelivered: Undelivered, outcome: Outcome, doubts: int
    ) -> Outcome:
        """
        Find out what became of a reply. Where nobody can tell, the connector's
        `delivery` says which risk is taken.
        """
        connector = self._connectors[undelivered.address.platform]
        if isinstance(connector, Finds):
            found = await self._find(connector, undelivered)
            if found is not None:
                # At once the first time; who never knows gets the usual pauses.
                return replace(found, after_s=0) if doubts == 1 else found
        if connector.delivery == "at_least_once" and doubts < IN_DOUBT:
            return replace(outcome, kind="later")
        return outcome

    async def _find(self, connector: Finds, undelivered: Undelivered) -> Outcome | None:
        """Look whether the reply is there; None when that cannot be found out."""
        for attempt in range(1, LOOKS):
            try:
                async with asyncio.timeout(SEND_S):
                    sent = await connector.find(
                        undelivered.address, undelivered.turn_id
                    )
            except DeliveryError as error:
                if not error.retryable:
                    return None
                await self._sleep(error.retry_after_s or pause_s(attempt))
            # A connector is a stranger's code; without its word there is the setting.
            except Exception as error:  # noqa: BLE001
                logger.error("a connector could not look: %s", place_of(error))  # noqa: TRY400
                return None
            else:
                missing = Outcome(kind="later", told="it did not arrive")
                return missing if sent is None else Outcome(kind="ok")
        return None

    async def _show(self, priority: Priority, address: Address, text: str) -> None:
        connector = self._connectors[address.platform]
        what, limit_s = "status", STATUS_S
        if priority is Priority.FRAME:
            what, limit_s = "frame", FRAME_S
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                if priority is Priority.FRAME and isinstance(connector, ShowsFrames):
                    await connector.frame(address, text)
                else:
                    await connector.status(address, text)
        except Exception as error:  # noqa: BLE001
            # It promised not to raise; an answer is worth more than its status.
            overdue = f"{what} took longer than {limit_s:g} s"
            logger.error(  # noqa: TRY400
                "connector %r broke its contract: %s",
                connector.name,
                overdue if limit.expired() else place_of(error),
            )


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures: 1, 2, 4 … 60 seconds."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)


def _problem(outcome: Outcome, tries: int) -> str:
    match outcome.kind:
        case "unknown":
            return f"{_UNKNOWN}{outcome.told}"
        case _:
            return f"not delivered after attempt {tries}: {outcome.told}"


def _with_problem(record: Record | None, problem: str | None) -> Record | None:
    if record is None or problem is None:
        return None
    return replace(record, problems=(*record.problems, f"delivery: {problem}"))
