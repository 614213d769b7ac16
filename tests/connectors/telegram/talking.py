"""A connector that talks with the stand-in, and what the core would have of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Address, Event
from connectors.telegram import Telegram
from tests.connectors.telegram.service import TOKEN, TelegramService
from tests.connectors.telegram.shelf import DictShelf

TURN = "0123456789abcdef"
OTHER = "fedcba9876543210"


class FakeTime:
    """Time that passes only while somebody waits; `slept` says for how long."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class FastTime:
    """Time that passes twenty times as fast."""

    def __call__(self) -> float:
        return 20 * time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


class Core:
    """Takes events; fails to while `away`, or for texts that `away_for` names."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard: asyncio.Queue[Event] = asyncio.Queue()
        self.away = False
        self.away_for: set[str] = set()
        self.answer: Accepted = "accepted"
        self.gate = asyncio.Event()
        self.gate.set()

    async def accept(self, event: Event) -> Accepted:
        self.heard.put_nowait(event)
        await self.gate.wait()
        if self.away or event.text in self.away_for:
            raise StoreError("redis: cannot be reached; start it")
        self.events.append(event)
        return self.answer

    async def next(self) -> Event:
        async with asyncio.timeout(10):
            return await self.heard.get()


def a_telegram(
    service: TelegramService,
    *,
    shelf: DictShelf | None = None,
    clock: FakeTime | FastTime | None = None,
    **settings: Any,
) -> Telegram:
    given = {"token": TOKEN, "api_url": service.api_url, **settings}
    passing = {} if clock is None else {"clock": clock, "sleep": clock.sleep}
    made = Telegram(Telegram.Settings.model_validate(given), **passing)  # type: ignore[arg-type]  # a clock is both
    made.keep_on(shelf or DictShelf())
    return made


@asynccontextmanager
async def listening(
    telegram: Telegram, core: Core | None = None
) -> AsyncIterator[Core]:
    """Run a connector; what ends it before its time fails the test."""
    core = core or Core()
    running = asyncio.create_task(telegram.run(core.accept))
    try:
        yield core
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await telegram.bot_stopped()


def address(chat: int, user: int | None = None, thread: int | None = None) -> Address:
    return Address(
        platform="telegram",
        account="77",
        chat=str(chat),
        thread=None if thread is None else str(thread),
        user=None if user is None else str(user),
    )
