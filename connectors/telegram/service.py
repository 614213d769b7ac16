"""
The service: everything that talks to Telegram, put together.

The only module that the plugin's class loads, and not before it is needed: the client
library comes with it. Knows no settings and no plugin machinery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from telegram.error import InvalidToken, TelegramError

from bot.errors import ConfigError
from bot.interfaces import Shelf, WebRequest, WebResponse
from bot.model import Address, Reply, Sent
from bot.pacing import Pace
from connectors.telegram.bot_api import BotApi
from connectors.telegram.listening import Accept, Listener
from connectors.telegram.notes import Notes
from connectors.telegram.outcomes import failure
from connectors.telegram.parsing import Me
from connectors.telegram.polling import AWAY, FAILURES, Poller
from connectors.telegram.presence import Presence
from connectors.telegram.sending import Sender
from connectors.telegram.streams import Drafts, Growths, Streams
from connectors.telegram.trouble import Trouble
from connectors.telegram.webhook import Webhook
from connectors.telegram.wire import a_text, an_object

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0

# What Telegram offers when somebody types a slash; every bot knows start by itself.
COMMANDS = {
    "help": "What I can do",
    "why": "Explain the last answer",
    "stop": "Stop the answer that is being written",
    "forget": "Erase what I remember of this conversation",
    "human": "Ask for a person",
    "bot": "Talk to me again, after a person did",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where Telegram is to bring updates, and the secret by which it is known."""

    url: str
    path: str
    secret: str


class Service:
    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        token: str,
        api_url: str,
        hook: Hook | None,
        feedback: bool,
        shelf: Shelf,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._bot = token.partition(":")[0]
        self._sleep = sleep
        self._pace = Pace(clock, sleep)
        self._trouble = Trouble(clock)
        self._api = BotApi(token=token, api_url=api_url)
        self._notes = Notes(shelf, self._bot)
        drafts = Drafts(self._api, self._pace)
        growths = Growths(self._api, self._notes, self._pace, clock)
        self._streams = Streams(drafts, growths)
        self._presence = Presence(self._api, self._notes, self._pace, sleep)
        self._sender = Sender(
            api=self._api,
            notes=self._notes,
            pace=self._pace,
            streams=self._streams,
            clock=clock,
            feedback=feedback,
        )
        self._webhook = None if hook is None else self._a_webhook(hook)

    async def run(self, accept: Accept) -> None:
        try:
            me = await self._introduced()
            await self._offer_commands()
            async with asyncio.TaskGroup() as tasks:
                listener = Listener(
                    api=self._api,
                    notes=self._notes,
                    pace=self._pace,
                    me=me,
                    accept=accept,
                    now=lambda: datetime.now(UTC),
                    tasks=tasks,
                )
                await self._listen(listener)
        finally:
            # A reply that is on its way keeps its connection.
            await self._api.let_go()

    async def respond(self, request: WebRequest) -> WebResponse:
        assert self._webhook is not None  # noqa: S101 (else there are no paths)
        return await self._webhook.respond(request)

    async def send(self, address: Address, reply: Reply, turn: str) -> Sent:
        await self._presence.end(address)
        return await self._sender.send(address, reply, turn)

    async def find(self, turn: str) -> Sent | None:
        return await self._sender.find(turn)

    async def status(self, address: Address, text: str) -> None:
        if text:
            await self._presence.show(address)
        else:
            await self._presence.end(address)

    async def frame(self, address: Address, text: str) -> None:
        # Words that appear say more than "typing …", and an action counts in a group.
        await self._presence.end(address)
        await self._streams.show(address, text)

    def trouble(self) -> str | None:
        return self._trouble.now

    async def close(self) -> None:
        await self._presence.close()
        await self._streams.close()
        await self._api.let_go()

    async def _listen(self, listener: Listener) -> None:
        if self._webhook is not None:
            await self._webhook.run(listener)
        else:
            await Poller(self._api, self._trouble, self._sleep).run(listener)

    async def _introduced(self) -> Me:
        """Ask who the bot is, until Telegram answers."""
        failures = 0
        while True:
            try:
                told = an_object(await self._api.call("getMe"))
            except InvalidToken as error:
                raise ConfigError(
                    "plugin 'telegram': settings.token: Telegram does not know it; "
                    "put the one that @BotFather shows there"
                ) from error
            except TelegramError as error:
                failures += 1
                if failures >= FAILURES:
                    self._trouble.say(AWAY)
                pause = min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)
                await self._sleep(max(pause, failure(error).after_s or 0))
            else:
                self._trouble.over()
                return Me(id=self._bot, username=a_text(told.get("username")))

    async def _offer_commands(self) -> None:
        offered = [
            {"command": name, "description": told} for name, told in COMMANDS.items()
        ]
        try:
            await self._api.call("setMyCommands", commands=offered)
        except TelegramError:
            # They work without being offered.
            logger.info("telegram: the commands could not be put into the menu")

    def _a_webhook(self, hook: Hook) -> Webhook:
        return Webhook(
            api=self._api,
            trouble=self._trouble,
            sleep=self._sleep,
            url=hook.url,
            path=hook.path,
            secret=hook.secret,
        )
