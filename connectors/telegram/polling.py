"""
Polling: asking Telegram for updates, and confirming what is durable.

An update is confirmed by asking for those after it, so that is done only when all up to
it were accepted. The chats of one answer go beside each other, a chat's updates in
order. Whatever fails is waited out; what an operator can put right is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from telegram.error import Conflict, InvalidToken, TelegramError, TimedOut

from bot.errors import StoreError
from connectors.telegram.bot_api import BotApi
from connectors.telegram.listening import Listener
from connectors.telegram.outcomes import failure
from connectors.telegram.parsing import Heard
from connectors.telegram.trouble import Trouble

logger = logging.getLogger(__name__)

# Telegram answers a poll after so long at the latest, whether anything came or not.
POLL_S = 30.0
# After that the connection is stuck: python-telegram-bot issues 4405 and 4523.
GRACE_S = 10.0
LONGEST_PAUSE_S = 30.0
# Redis is ours, and asking it costs nobody anything.
LONGEST_STORE_PAUSE_S = 5.0
# Fewer in a row are the weather.
FAILURES = 3

WEBHOOK_SET = (
    "telegram: a webhook is set, so polling hears nothing; set settings.mode to "
    "webhook or, if nobody needs it, delete it with the Bot API's deleteWebhook"
)
ANOTHER = (
    "telegram: another program asks for this bot's updates; stop it, or give each a "
    "bot of its own"
)
UNKNOWN_BOT = (
    "telegram: Telegram does not know the token any more; put the one that @BotFather "
    "shows into settings.token"
)
SILENT = (
    "telegram: a request for updates was not answered at all; a new connection is "
    "tried, look at the network if it does not help"
)
AWAY = "telegram: Telegram cannot be reached, or refuses; look at the network"


class Poller:
    def __init__(
        self,
        api: BotApi,
        trouble: Trouble,
        sleep: Callable[[float], Awaitable[None]],
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._api = api
        self._trouble = trouble
        self._sleep = sleep
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._failures = 0

    async def run(self, listener: Listener) -> None:
        offset: int | None = None
        while True:
            try:
                offset = await self._poll(listener, offset)
            except TelegramError as error:
                await self._failed(error)

    async def _poll(self, listener: Listener, offset: int | None) -> int | None:
        """Ask once; return from where to ask next."""
        # After a failure at once, to see that it is over.
        wait_s = 0.0 if self._failures else self._poll_s
        updates = await self._api.updates(offset, wait_s, self._grace_s)
        told = [one for one in map(listener.read, updates) if one is not None]
        if updates and not told:
            # Nothing of it can be confirmed, so the same would come at once.
            raise TelegramError("Invalid server response")
        self._trouble.over()
        kept = await self._taken(listener, told)
        if kept is None:
            self._failures = 0
            return max([offset or 0, *(one.update_id + 1 for one in told)]) or None
        await self._pause(None, LONGEST_STORE_PAUSE_S)
        return max(offset or 0, kept) or None

    async def _taken(self, listener: Listener, told: Sequence[Heard]) -> int | None:
        """Take all; return the first update that could not be kept, or None."""
        chats: dict[str | None, list[Heard]] = {}
        for one in sorted(told, key=lambda one: one.update_id):
            chats.setdefault(one.chat, []).append(one)
        missing: list[int] = []

        async def take(of_chat: Sequence[Heard]) -> None:
            for one in of_chat:
                try:
                    await listener.take(one)
                except StoreError as error:
                    if not missing and not self._failures:
                        logger.warning("telegram keeps what is said for now: %s", error)
                    missing.append(one.update_id)
                    return

        async with asyncio.TaskGroup() as tasks:
            for of_chat in chats.values():
                tasks.create_task(take(of_chat))
        return min(missing, default=None)

    async def _failed(self, error: TelegramError) -> None:
        sentence = self._sentence(error)
        if sentence is not None:
            self._trouble.say(sentence)
        # Whatever the line is stuck on stays behind with it.
        await self._api.reconnect_polls()
        await self._pause(failure(error).after_s)

    def _sentence(self, error: TelegramError) -> str | None:
        """Say what is wrong; None while it may be over in a moment."""
        match error:
            case Conflict():
                return WEBHOOK_SET if "webhook" in str(error).lower() else ANOTHER
            case InvalidToken():
                return UNKNOWN_BOT
            case TimedOut() if isinstance(error.__cause__, TimeoutError):
                return SILENT
        return AWAY if self._failures + 1 >= FAILURES else None

    async def _pause(
        self, after_s: float | None, longest_s: float = LONGEST_PAUSE_S
    ) -> None:
        self._failures += 1
        pause = min(2.0 ** min(self._failures - 1, 10), longest_s)
        await self._sleep(pause if after_s is None else max(pause, after_s))
