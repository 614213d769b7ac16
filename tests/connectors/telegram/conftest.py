"""A stand-in for Telegram, and a bot of the real library that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import telegram

from tests.connectors.telegram.service import TOKEN, TelegramService


@pytest.fixture
async def service() -> AsyncIterator[TelegramService]:
    async with TelegramService() as started:
        yield started


@pytest.fixture
async def bot(service: TelegramService) -> AsyncIterator[telegram.Bot]:
    async with telegram.Bot(TOKEN, base_url=service.url) as started:
        yield started
