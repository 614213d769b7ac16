"""
Presence: "typing …" in a chat while the bot is at work.

It lasts five seconds, so people are told again every four. In a group each time counts
as a call: it is told more rarely, and only while there is room for a reply besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from telegram.error import TelegramError

from bot.errors import StoreError
from bot.model import Address
from bot.pacing import Pace
from connectors.telegram import calls
from connectors.telegram.bot_api import BotApi
from connectors.telegram.chats import LEFT_FOR_REPLIES, budget, is_group
from connectors.telegram.notes import Notes
from connectors.telegram.outcomes import failure

AGAIN_S = 4.0
# As often as to people, it would take all the room that what is being written needs.
GROUP_AGAIN_S = 12.0
ACTION_S = 5.0
# An end that is never told must not keep it up for ever.
LONGEST_S = 600.0


class Presence:
    def __init__(
        self,
        api: BotApi,
        notes: Notes,
        pace: Pace,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api = api
        self._notes = notes
        self._pace = pace
        self._sleep = sleep
        self._typing: dict[str, asyncio.Task[None]] = {}

    async def show(self, address: Address) -> None:
        """Begin, or go on: a second message changes nothing that people see."""
        typing = self._typing.get(address.key)
        if typing is not None and not typing.done():
            return
        await self._type(address)
        self._typing[address.key] = asyncio.create_task(self._go_on(address))

    async def end(self, address: Address) -> None:
        typing = self._typing.pop(address.key, None)
        if typing is not None:
            typing.cancel()
            await asyncio.wait({typing})

    async def close(self) -> None:
        typing, self._typing = list(self._typing.values()), {}
        for task in typing:
            task.cancel()
        await asyncio.gather(*typing, return_exceptions=True)

    async def _go_on(self, address: Address) -> None:
        again_s = GROUP_AGAIN_S if is_group(address.chat) else AGAIN_S
        for _ in range(int(LONGEST_S / again_s)):
            await self._sleep(again_s)
            await self._type(address)

    async def _type(self, address: Address) -> None:
        try:
            chat = await self._notes.chat_now(address.chat)
            if self._has_room(chat):
                await self._api.call(
                    "sendChatAction",
                    within_s=ACTION_S,
                    **calls.place(address, chat),
                    action="typing",
                )
        except TelegramError as error:
            failed = failure(error)
            if failed.after_s is not None:
                self._pace.close(budget(address.chat), failed.after_s)
        except StoreError:
            # Somebody who waits needs the reply; this is worth no word in a log.
            return

    def _has_room(self, chat: str) -> bool:
        if is_group(chat):
            return self._pace.now(budget(chat), leave=LEFT_FOR_REPLIES)
        return self._pace.wait_s(budget(chat)) == 0
