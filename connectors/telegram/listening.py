"""
Listening: from an update to the core, and what follows from it.

The same for polling and for webhooks. `take` returns once an update is durable or
means nothing, so whoever brought it may confirm it; it raises StoreError when it may
not. What is polite but not needed, such as ending a button's spinner, comes after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from telegram.error import TelegramError

from bot.interfaces import Accepted
from bot.model import Event
from bot.pacing import Pace
from connectors.telegram import calls
from connectors.telegram.bot_api import BotApi
from connectors.telegram.buttons import with_choice
from connectors.telegram.chats import LEFT_FOR_REPLIES, budget, is_group
from connectors.telegram.notes import Notes
from connectors.telegram.parsing import (
    Heard,
    Me,
    Moved,
    Pressed,
    Reach,
    Reacted,
    Said,
    Stopped,
    heard,
)

Accept = Callable[[Event], Awaitable[Accepted]]


class Listener:
    """Takes updates while `tasks` is open."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: BotApi,
        notes: Notes,
        pace: Pace,
        me: Me,
        accept: Accept,
        now: Callable[[], datetime],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._api = api
        self._notes = notes
        self._pace = pace
        self._me = me
        self._accept = accept
        self._now = now
        self._tasks = tasks

    def read(self, update: object) -> Heard | None:
        return heard(update, self._me, self._now())

    async def take(self, told: Heard) -> None:
        match told.fact:
            case Said() as said:
                await self._said(said)
            case Pressed() as pressed:
                await self._pressed(pressed)
            case Reacted() as reacted:
                await self._reacted(reacted)
            case Stopped(event=event):
                await self._accept(event)
            case Moved(old=old, new=new):
                await self._notes.keep_move(old, new)
            case Reach(there=there) if told.chat is not None:
                await self._reach(told.chat, there=there)

    async def _said(self, said: Said) -> None:
        event = await self._in_conversation(said.event)
        await self._notes.keep_found(said.event.address.chat)
        if is_group(event.address.chat):
            # Before it is accepted: its answer may be quick.
            there = said.event.address.chat
            await self._notes.keep_question(event.address, there, said.message)
        await self._accept(event)

    async def _pressed(self, pressed: Pressed) -> None:
        if pressed.event is not None:
            await self._accept(await self._in_conversation(pressed.event))
        self._tasks.create_task(self._answer(pressed))

    async def _reacted(self, reacted: Reacted) -> None:
        there = reacted.event.address
        shown = await self._notes.shown(there.chat, reacted.message)
        if shown is None:
            return  # not one of ours, or too old to be judged
        turn, address = shown
        event = replace(
            reacted.event,
            address=replace(address, user=there.user),
            data={**reacted.event.data, "turn": turn},
        )
        await self._accept(event)

    async def _reach(self, chat: str, *, there: bool) -> None:
        if there:
            await self._notes.keep_found(chat)
        else:
            await self._notes.keep_lost(chat)

    async def _in_conversation(self, event: Event) -> Event:
        """Name the conversation as before its group moved."""
        chat = await self._notes.chat_before(event.address.chat)
        return replace(event, address=replace(event.address, chat=chat))

    async def _answer(self, pressed: Pressed) -> None:
        # A query that is too old cannot be answered, and need not be.
        await self._try("answerCallbackQuery", callback_query_id=pressed.query)
        event, keyboard = pressed.event, pressed.keyboard
        if event is None or event.kind != "feedback" or keyboard is None:
            return
        marked = with_choice(keyboard, int(str(event.data["rating"])))
        if marked is not None and self._has_room(event.address.chat):
            await self._try(
                "editMessageReplyMarkup",
                **calls.in_chat(event.address, event.address.chat),
                message_id=pressed.message,
                reply_markup=marked,
            )

    def _has_room(self, chat: str) -> bool:
        leave = LEFT_FOR_REPLIES if is_group(chat) else 1
        return self._pace.now(budget(chat), leave=leave)

    async def _try(self, method: str, **arguments: Any) -> None:
        try:
            await self._api.call(method, **arguments)
        except TelegramError:
            return
