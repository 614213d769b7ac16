"""
A whole bot on the stand-in: the real connector, store, manager and turn.

Only Telegram and the model are made up. `a_bot` runs one in the test's process; two of
them on one Redis are two processes as far as Telegram and Redis can tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bot import explain
from bot.channels import ChannelPlugins
from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.conversation.worker import Answerer
from bot.model import Turn
from bot.plugin_manager import Plugins
from bot.testing.fakes import ScriptedLanguageModel
from connectors.telegram import Telegram
from tests.connectors.telegram.service import TOKEN, TelegramService
from tests.faults.bot_process import an_answerer

CONFIG = Config.model_validate(
    {
        "knowledge": {"model": "none"},
        "generation": {"model": "none", "max_new_tokens": 4000},
        "conversation": {"messages_per_minute": 10_000},
        "workers": {"shutdown_s": 0, "lease_s": 1},
    }
)


def says(answer: Callable[[str], str] = "answer to {}".format) -> Answerer:
    """Make the real turn with a model that answers each question so."""

    def scripted(turn: Turn) -> str:
        return answer(turn.question)

    return an_answerer(CONFIG, ScriptedLanguageModel(scripted, context_tokens=10_000))


def a_connector(
    service: TelegramService,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    **settings: Any,
) -> Telegram:
    given = {"token": TOKEN, "api_url": service.api_url, "feedback": False, **settings}
    made = Telegram.Settings.model_validate(given)
    return Telegram(made, clock=clock, sleep=sleep)


@asynccontextmanager
async def a_bot(
    url: str,
    connector: Telegram,
    answerer: Answerer | None = None,
    *,
    sleep: Callable[[float], Any] = asyncio.sleep,
) -> AsyncIterator[ConversationManager]:
    """Run the bot until the block ends; what fails inside fails the test."""
    plugins = ChannelPlugins(everywhere=Plugins())
    async with Store(url=url, settings=CONFIG.conversation) as store:
        connector.keep_on(store.shelf(connector.name))
        async with ConversationManager(
            store=store,
            answerer=answerer or says(),
            connectors={connector.name: connector},
            observers=plugins,
            config=CONFIG,
            explain=explain.text,
            clock=lambda: datetime.now(UTC),
            seeds=lambda: 1,
            sleep=sleep,
        ) as manager:
            until = asyncio.Event()
            running = asyncio.create_task(manager.run(until))
            try:
                yield manager
            finally:
                until.set()
                await running
                await connector.bot_stopped()
