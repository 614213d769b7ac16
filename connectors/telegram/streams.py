"""
Streams: a reply shown while it is being written.

A person sees a draft, which Telegram shows in place of the message to come and forgets
by itself. A group sees a message that grows, a few times a minute, for its edits count
as calls; the reply then takes the place of it. What cannot be shown is left out: the
reply comes anyway. Nothing here raises, except StoreError where it says so.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from telegram.error import TelegramError

from bot.errors import StoreError
from bot.model import Address
from bot.pacing import Pace
from connectors.telegram import calls
from connectors.telegram.bot_api import BotApi
from connectors.telegram.chats import LEFT_FOR_REPLIES, budget, draft_budget, is_group
from connectors.telegram.notes import STREAM_S, Notes
from connectors.telegram.outcomes import Failure, failure, is_unchanged
from connectors.telegram.parsing import business_of
from connectors.telegram.rendering import Part, preview

logger = logging.getLogger(__name__)

# The core waits three seconds for a frame.
FRAME_S = 2.5
DRAFT_FAILURES = 3
AT_ONCE = 1_000  # streams, at most, that are remembered

_DRAFT_IDS = 2**31 - 1


@dataclass(slots=True, kw_only=True)
class _Draft:
    id: int
    text: str = ""
    failures: int = 0


class Drafts:
    """What is shown to people."""

    def __init__(self, api: BotApi, pace: Pace) -> None:
        self._api = api
        self._pace = pace
        self._numbers = itertools.count()
        self._drafts: OrderedDict[str, _Draft] = OrderedDict()

    async def show(self, address: Address, part: Part) -> None:
        draft = self._draft(address)
        if part.text == draft.text or draft.failures == DRAFT_FAILURES:
            return
        budget = draft_budget(address.chat)
        if not self._pace.now(budget):
            return
        try:
            await self._api.call(
                "sendMessageDraft",
                within_s=FRAME_S,
                chat_id=address.chat,
                message_thread_id=address.thread,
                draft_id=draft.id,
                can_stop=True,
                **calls.draft(part),
            )
        except TelegramError as error:
            failed = failure(error)
            if failed.after_s is None:
                draft.failures += 1
            else:
                self._pace.close(budget, failed.after_s)
        else:
            draft.text, draft.failures = part.text, 0

    def end(self, address: Address) -> None:
        self._drafts.pop(address.key, None)

    def _draft(self, address: Address) -> _Draft:
        """Return the draft that grows there; each reply has its own."""
        if address.key not in self._drafts:
            named = f"{address.key} {next(self._numbers)}"
            number = zlib.crc32(named.encode()) % _DRAFT_IDS + 1
            self._drafts[address.key] = _Draft(id=number)
            if len(self._drafts) > AT_ONCE:
                self._drafts.popitem(last=False)
        return self._drafts[address.key]


@dataclass(slots=True, kw_only=True)
class _Growing:
    """
    A message that grows. `kept`: other processes know of it. `over`: it cannot grow, or
    nobody knows whether it is there.
    """

    message: int | None = None
    kept: bool = False
    text: str = ""
    at: float | None = None
    over: bool = False
    showing: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self.showing is not None and not self.showing.done()


class Growths:
    """What is shown to groups."""

    def __init__(
        self, api: BotApi, notes: Notes, pace: Pace, clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._notes = notes
        self._pace = pace
        self._clock = clock
        self._growing: OrderedDict[str, _Growing] = OrderedDict()

    async def show(self, address: Address, part: Part) -> None:
        growing = self._growth(address)
        if growing.over or growing.is_busy or part.text == growing.text:
            return
        if growing.kept and await self._notes.stream(address) != growing.message:
            # Another process has made a reply of it, and this is the next one.
            del self._growing[address.key]
            growing = self._growth(address)
        chat = await self._notes.chat_now(address.chat)
        # That makes it four seconds between two of them, and Vercel's Chat found that
        # less than three bring penalties.
        if not self._pace.now(budget(chat), leave=LEFT_FOR_REPLIES):
            return
        growing.at = self._clock()
        showing = self._show(address, chat, growing, part)
        # A reply waits for it, see `take`, but the next frame does not.
        growing.showing = asyncio.create_task(showing)
        await asyncio.wait({growing.showing}, timeout=FRAME_S)

    async def take(self, address: Address) -> int | None:
        """
        Return the message that shows what was written so far, if there is one: it is
        the caller's from now on. Raises StoreError.
        """
        growing = self._growing.pop(address.key, None)
        if growing is not None and growing.showing is not None:
            await asyncio.wait({growing.showing})
        # Before anything else: it must not become another reply's as well.
        kept = await self._notes.take_stream(address)
        if growing is None or growing.at is None:
            return kept
        is_old = self._clock() - growing.at > STREAM_S
        is_anothers = growing.kept and kept != growing.message
        return None if is_old or is_anothers else growing.message

    async def close(self) -> None:
        showing = [one.showing for one in self._growing.values() if one.showing]
        for task in showing:
            task.cancel()
        await asyncio.gather(*showing, return_exceptions=True)

    async def _show(
        self, address: Address, chat: str, growing: _Growing, part: Part
    ) -> None:
        try:
            if growing.message is None:
                growing.message = await self._begun(address, chat, part)
                # For whoever sends the reply after a crash of this process.
                await self._notes.keep_stream(address, growing.message)
                growing.kept = True
            else:
                await self._api.call(
                    "editMessageText",
                    **calls.in_chat(address, chat),
                    message_id=growing.message,
                    **calls.message(part),
                )
            growing.text = part.text
        except TelegramError as error:
            self._failed(chat, growing, failure(error))
        except StoreError as error:
            logger.info("a reply is not shown as it is written: %s", error)

    async def _begun(self, address: Address, chat: str, part: Part) -> int:
        question = await self._notes.question(address, chat)
        return await self._api.post(
            **calls.place(address, chat),
            **calls.message(part),
            **calls.answering(question),
        )

    def _failed(self, chat: str, growing: _Growing, failed: Failure) -> None:
        if failed.after_s is not None:
            self._pace.close(budget(chat), failed.after_s)
        elif not is_unchanged(failed):
            # Of a first one nobody knows; a later one may be tried again.
            growing.over = growing.message is None or failed.kind != "unknown"

    def _growth(self, address: Address) -> _Growing:
        growing = self._growing.setdefault(address.key, _Growing())
        self._growing.move_to_end(address.key)
        if len(self._growing) > AT_ONCE:
            self._growing.popitem(last=False)
        return growing


class Streams:
    """A reply so far, as its chat can be shown it."""

    def __init__(self, drafts: Drafts, growths: Growths) -> None:
        self._drafts = drafts
        self._growths = growths

    async def show(self, address: Address, text: str) -> None:
        # For somebody's own customers nothing is shown: drafts cannot be.
        part = None if business_of(address) else preview(text)
        if part is None:
            return
        if not is_group(address.chat):
            await self._drafts.show(address, part)
            return
        try:
            await self._growths.show(address, part)
        except StoreError as error:
            logger.info("a reply is not shown as it is written: %s", error)

    async def take(self, address: Address) -> int | None:
        """End what is shown there; return the message that the reply replaces."""
        self._drafts.end(address)
        return await self._growths.take(address) if is_group(address.chat) else None

    async def close(self) -> None:
        await self._growths.close()
