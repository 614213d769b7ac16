"""
Slack: conversations in direct messages, channels and the assistant's panel.

Slack tells what people do by HTTP or down a socket, and is told by its Web API. What is
here is light: the parts that need Slack's libraries are put together in `assembly`,
once the connector is given its shelf. Knows nothing about how replies come about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bot import hookimpl
from bot.errors import ConfigError
from bot.interfaces import (
    Accepted,
    Connector,
    Delivery,
    Finding,
    Shelf,
    WebRequest,
    WebResponse,
)
from bot.model import Address, Event, Reply, Sent
from bot.pacing import Pace
from connectors.slack.oauth import OAuth
from connectors.slack.scopes import SCOPES
from connectors.slack.settings import SlackSettings, problems_of

if TYPE_CHECKING:
    from connectors.slack.assembly import Assembly

Accept = Callable[[Event], Awaitable[Accepted]]


class Slack:
    """One Slack app, in one workspace or in many."""

    name = "slack"
    # A lost answer is looked up, in the history. Where the bot may not read that,
    # nobody can tell, and everyone in a channel would read a doubled answer.
    delivery: Delivery = "at_most_once"

    Settings = SlackSettings

    def __init__(
        self,
        settings: SlackSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        problems = list(problems_of(settings))
        if problems:
            raise ConfigError(problems)
        self._settings = settings
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._oauth: OAuth | None = None
        if settings.oauth is not None:
            self._oauth = OAuth(
                settings.oauth, api_url=settings.api_url, scopes=tuple(SCOPES)
            )
        self._assembled: Assembly | None = None
        self._closing = asyncio.Event()

    @hookimpl
    def connectors(self) -> list[Connector]:
        return [self]

    @property
    def paths(self) -> Sequence[str]:
        events = [self._settings.path] if self._settings.mode == "http" else []
        return [*events, *(self._oauth.paths if self._oauth is not None else ())]

    def keep_on(self, shelf: Shelf) -> None:
        from connectors.slack.assembly import Assembly  # noqa: PLC0415 (loads with the connector)

        if self._oauth is not None:
            self._oauth.keep_on(shelf)
        self._assembled = Assembly(
            settings=self._settings,
            shelf=shelf,
            oauth=self._oauth,
            pace=Pace(self._clock, self._sleep),
            clock=self._clock,
            now=self._now,
            sleep=self._sleep,
        )

    async def run(self, accept: Accept) -> None:
        """Hand in what Slack tells until `close`, or until cancelled."""
        await self._parts.run(accept, until=self._closing)

    def close(self) -> None:
        self._closing.set()

    async def respond(self, request: WebRequest) -> WebResponse:
        if self._oauth is not None and request.path in self._oauth.paths:
            return await self._oauth.respond(request)
        return await self._parts.respond(request)

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        return await self._parts.send(address, reply, key)

    async def find(self, address: Address, key: str) -> Sent | None:
        return await self._parts.replies.find(address, key)

    async def frame(self, address: Address, text: str) -> None:
        await self._parts.streams.show(address, text)

    async def status(self, address: Address, text: str) -> None:
        await self._parts.surfaces.status(address, text)

    async def inspect(self) -> Sequence[Finding]:
        from connectors.slack import checks  # noqa: PLC0415 (loads with the connector)

        return await checks.of(self._settings)

    def trouble(self) -> str | None:
        return None if self._assembled is None else self._assembled.trouble()

    @property
    def _parts(self) -> Assembly:
        assert self._assembled is not None, "keep_on comes first"  # noqa: S101 (the core's promise)
        return self._assembled
