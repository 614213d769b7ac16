"""
The intake: what Slack tells, by HTTP or by a socket, on its way to the core.

Takes one payload at a time and returns when everything in it is durable or of no
concern; whoever called acknowledges after that. Raises StoreError or a retryable
DeliveryError where Slack has to tell it again. Knows neither HTTP nor sockets, and
leaves to `Surfaces` what is done for looks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Literal, Protocol

from bot.errors import DeliveryError
from bot.interfaces import Accepted
from bot.model import Address, Event
from connectors.slack import parsing
from connectors.slack.answers import Answers
from connectors.slack.parsing import (
    Heard,
    Opened,
    Reaction,
    Removed,
    Stopped,
    Told,
    removal_in,
)
from connectors.slack.payloads import Payload, account_of, text_in
from connectors.slack.people import People
from connectors.slack.threads import Threads
from connectors.slack.workspaces import Workspace, Workspaces

logger = logging.getLogger(__name__)

Kind = Literal["events_api", "interactive", "slash_commands"]
Accept = Callable[[Event], Awaitable[Accepted]]


class FindsTurns(Protocol):
    """Knows which turn a message of the bot answers, and where."""

    async def turn_of(
        self, workspace: Workspace, chat: str, stamp: str
    ) -> tuple[str, str | None] | None:
        """Return the turn and its thread; None where it is no reply."""
        ...


class Shows(Protocol):
    """What is done in Slack for looks, after an event was taken. Never waits."""

    def opened(self, opened: Opened) -> None: ...
    def asked(self, event: Event) -> None: ...
    def stopped(self, address: Address) -> None: ...


class Intake:
    """Hands in what is told; `accept` is the core's."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        accept: Accept,
        workspaces: Workspaces,
        bots: Collection[str],
        threads: Threads,
        answers: Answers,
        people: People,
        turns: FindsTurns,
        shows: Shows,
        clock: Callable[[], datetime],
    ) -> None:
        self._accept = accept
        self._workspaces = workspaces
        self._bots = bots
        self._threads = threads
        self._answers = answers
        self._people = people
        self._turns = turns
        self._shows = shows
        self._clock = clock

    async def take(self, kind: Kind, payload: Payload) -> None:
        """Take all that a payload tells."""
        account = account_of(payload)
        if account is None:
            return
        removed = removal_in(payload)
        if removed is not None:
            await self._removed(removed)
            return
        if text_in(payload, "type") == "app_rate_limited":
            logger.warning("Slack tells too many events at once, and left some out")
            return
        workspace = await self._workspace(account)
        if workspace is None:
            return
        for told in self._told(kind, payload, workspace):
            await self._take(told, workspace)

    async def _workspace(self, account: str) -> Workspace | None:
        try:
            return await self._workspaces.of(account)
        except DeliveryError as error:
            if error.retryable:
                raise
            logger.warning("an event of a team without the app was left: %s", error)
            return None

    def _told(self, kind: Kind, payload: Payload, me: Workspace) -> list[Told]:
        now = self._clock()
        match kind:
            case "events_api":
                return parsing.told_by_event(payload, me, self._bots, now)
            case "interactive":
                return parsing.told_by_interaction(payload, me, now)
            case "slash_commands":
                return parsing.told_by_command(payload, me, now)

    async def _take(self, told: Told, workspace: Workspace) -> None:
        match told:
            case Heard():
                await self._heard(told)
            case Reaction():
                await self._reaction(told, workspace)
            case Stopped():
                await self._accept(told.event)
                self._shows.stopped(told.event.address)
            case Opened():
                self._shows.opened(told)
            case Removed():
                await self._removed(told)

    async def _heard(self, heard: Heard) -> None:
        address = heard.event.address
        if not heard.addressed and not await self._threads.has(address):
            return
        if address.user is not None and heard.team is not None:
            self._people.remember(address.account, address.user, heard.team)
        # Kept first: an event that is acknowledged is not told again.
        if heard.addressed and not heard.direct:
            await self._threads.join(address)
        if heard.answer_at is not None:
            await self._answers.keep(address, heard.answer_at)
        await self._accept(heard.event)
        if heard.direct and heard.event.kind == "message":
            self._shows.asked(heard.event)

    async def _reaction(self, reaction: Reaction, workspace: Workspace) -> None:
        found = await self._turns.turn_of(workspace, reaction.chat, reaction.stamp)
        if found is None:
            return
        turn, thread = found
        address = Address(
            platform=parsing.PLATFORM,
            account=reaction.account,
            chat=reaction.chat,
            thread=thread,
            user=reaction.user,
        )
        await self._accept(
            Event(
                id=reaction.id,
                kind="feedback",
                address=address,
                time=reaction.time,
                data={"turn": turn, "rating": reaction.rating},
            )
        )

    async def _removed(self, removed: Removed) -> None:
        logger.info("team %s took the app away", removed.account)
        await self._workspaces.forget(removed.account)
