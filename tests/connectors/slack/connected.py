"""
A Slack connector on the stand-in whose time passes as its test wants.

`Time` stands still until somebody sleeps or `pass_` is called, so that nothing waits
for a limit of Slack's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Address, Event
from connectors.slack import Slack
from tests.connectors.slack.bot_on_slack import MemoryShelf
from tests.connectors.slack.payloads import Payload, request_of
from tests.connectors.slack.service import SlackService

KEY = "0123456789abcdef"


class Time:
    """Counts seconds; `slept` are all pauses that were made."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Hurried(Time):
    """A clock on which each look is ten seconds after the one before."""

    def __call__(self) -> float:
        self.now += 10
        return self.now


class Core:
    """The program's side of `accept`, which may be away or slow."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.answer: Accepted = "accepted"
        self.away = False
        self.gate: asyncio.Event | None = None
        self.came = asyncio.Event()

    async def accept(self, event: Event) -> Accepted:
        self.came.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreError("redis: away; start it")
        self.events.append(event)
        return self.answer

    @property
    def texts(self) -> Sequence[str]:
        return [event.text for event in self.events]


class FailingShelf(MemoryShelf):
    """A shelf whose store may be away."""

    away = False

    async def get(self, name: str) -> bytes | None:
        self._look()
        return await super().get(name)

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        self._look()
        return await super().put(name, value, ttl_s=ttl_s, absent=absent)

    def _look(self) -> None:
        if self.away:
            raise StoreError("redis: away; start it")


@dataclass(slots=True, kw_only=True)
class Connected:
    """A connector that runs, and everything around it."""

    slack: SlackService
    connector: Slack
    shelf: MemoryShelf
    core: Core
    time: Time

    async def tell(self, *payloads: Payload) -> list[int]:
        """Let Slack tell these by HTTP; return the answers' status."""
        return [
            (await self.connector.respond(request_of(payload))).status
            for payload in payloads
        ]

    async def errands(self) -> None:
        """Wait for what is done beside the answers to Slack."""
        await self.connector._parts.surfaces.settled()


def made(slack: SlackService, time: Time, **settings: Any) -> Slack:
    given: dict[str, Any] = {
        "mode": "http",
        "bot_token": slack.token,
        "api_url": slack.url,
        **settings,
    }
    if given["mode"] == "http":
        given.setdefault("signing_secret", slack.signing_secret)
    else:
        given.setdefault("app_token", slack.app_token)
    checked = Slack.Settings.model_validate(given)
    return Slack(checked, clock=time, sleep=time.sleep)


@asynccontextmanager
async def connected(
    slack: SlackService, shelf: MemoryShelf | None = None, **settings: Any
) -> AsyncIterator[Connected]:
    time, core = Time(), Core()
    shelf = shelf or MemoryShelf()
    connector = made(slack, time, **settings)
    connector.keep_on(shelf)
    running = asyncio.create_task(connector.run(core.accept))
    await asyncio.sleep(0)
    try:
        yield Connected(
            slack=slack, connector=connector, shelf=shelf, core=core, time=time
        )
    finally:
        connector.close()
        await running


def thread(chat: str, stamp: str | None, user: str | None = "U1") -> Address:
    return Address(platform="slack", account="T1", chat=chat, thread=stamp, user=user)
