"""
Sending: a reply, part by part, each at most once.

Telegram has no way to ask whether a message has arrived, so every part is noted before
it is sent. One of which nobody knows is never sent again
(https://github.com/python-telegram-bot/python-telegram-bot/issues/1045 and many others:
up to nine copies); the parts after it are. A part that certainly did not arrive is sent
when the core calls again with the same key. Knows nothing about how a reply came about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from telegram.error import TelegramError

from bot.errors import DeliveryError, StoreError
from bot.model import Address, Reply, Sent
from bot.pacing import Pace
from connectors.telegram import calls
from connectors.telegram.additions import additions_of
from connectors.telegram.bot_api import BotApi
from connectors.telegram.chats import budget, is_group, wait_for_room
from connectors.telegram.notes import Notes, Progress
from connectors.telegram.outcomes import (
    AWAY_S,
    Failure,
    failure,
    is_about_format,
    is_about_preview,
    is_unchanged,
)
from connectors.telegram.rendering import Part, rendered
from connectors.telegram.streams import Streams

logger = logging.getLogger(__name__)

# The core waits a minute for a reply. Parts that are not begun by now are sent when it
# calls again: it must not give up while one is on its way.
ROUND_S = 25.0
# As text with entities, as plain text, with a picture or its address, in place of a
# message or not, where the group has moved to: no reply needs more tries than that.
TRIES = 5

_STORE_S = 1.0


@dataclass(slots=True, kw_only=True)
class _Delivery:
    """A reply that is being sent, and the chat as it is called by now."""

    address: Address
    turn: str
    chat: str
    progress: Progress
    question: int | None

    @property
    def edits(self) -> int | None:
        """The message whose place the part that is being sent takes."""
        return self.progress.edits if len(self.progress.ids) == 1 else None


class _NotDone(Exception):
    """A part did not arrive, or nobody knows whether it did."""

    def __init__(self, failed: Failure) -> None:
        super().__init__(failed.told)
        self.failed = failed


class Sender:
    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: BotApi,
        notes: Notes,
        pace: Pace,
        streams: Streams,
        clock: Callable[[], float],
        feedback: bool,
    ) -> None:
        self._api = api
        self._notes = notes
        self._pace = pace
        self._streams = streams
        self._clock = clock
        self._feedback = feedback

    async def send(self, address: Address, reply: Reply, turn: str) -> Sent:
        try:
            return await self._send(address, reply, turn)
        except StoreError as error:
            # What could not be noted was not sent.
            raise DeliveryError(
                "telegram: nothing can be noted about what is sent, so nothing was; "
                "it is tried again",
                retryable=True,
                retry_after_s=_STORE_S,
            ) from error

    async def find(self, turn: str) -> Sent | None:
        """
        Return what was sent of a turn's reply; None when sending it (again) is right,
        because nothing is sent twice. Raises DeliveryError when nobody will ever know.
        """
        progress = await self._progress(turn)
        if progress is None or len(progress.ids) < progress.parts:
            return None
        if 0 in progress.ids:
            raise DeliveryError(
                "telegram: no answer came, so nobody knows whether all of it arrived",
                retryable=False,
            )
        return _sent(progress)

    async def _send(self, address: Address, reply: Reply, turn: str) -> Sent:
        additions = additions_of(reply)
        if additions.left_out:
            logger.info(
                "of the reply of turn %s, %d pictures or custom parts cannot be shown",
                turn,
                additions.left_out,
            )
        asked = reply.feedback and self._feedback
        parts = rendered(reply, additions, turn, feedback=asked)
        delivery = await self._begun(address, turn, len(parts))
        begun = self._clock()
        for part in parts[len(delivery.progress.ids) :]:
            if self._clock() - begun > ROUND_S:
                raise DeliveryError(
                    "telegram: the reply has many parts; the rest follows",
                    retryable=True,
                    retry_after_s=0,
                )
            await self._send_part(delivery, part)
        return _sent(delivery.progress)

    async def _begun(self, address: Address, turn: str, parts: int) -> _Delivery:
        chat = await self._notes.chat_now(address.chat)
        if await self._notes.is_lost(chat):
            raise DeliveryError(
                "telegram: the bot was shut out of the chat; it may write again when "
                "it is let in or spoken to",
                retryable=False,
            )
        progress = await self._progress(turn)
        if progress is None:
            edits = await self._streams.take(address)
            progress = Progress(parts=parts, edits=edits)
            if edits is not None:
                await self._notes.keep_progress(turn, progress)
        question = None
        if is_group(chat):
            question = await self._notes.question(address, chat)
        return _Delivery(
            address=address, turn=turn, chat=chat, progress=progress, question=question
        )

    async def _progress(self, turn: str) -> Progress | None:
        progress = await self._notes.progress(turn)
        if progress is not None and progress.edits is not None:
            # It was being edited when its process died: an edit is made again.
            progress.ids = [] if progress.ids == [0] else progress.ids
        return progress

    async def _send_part(self, delivery: _Delivery, part: Part) -> None:
        await wait_for_room(self._pace, delivery.chat)
        ids = delivery.progress.ids
        ids.append(0)
        try:
            await self._notes.keep_progress(delivery.turn, delivery.progress)
            ids[-1] = await self._shown(delivery, part)
        except StoreError:
            ids.pop()
            raise
        except _NotDone as error:
            if error.failed.kind != "unknown":
                ids.pop()
                await self._note(delivery)
                raise await self._refusal(delivery, error.failed) from error
        await self._note(delivery)
        await self._note_shown(delivery)

    async def _shown(self, delivery: _Delivery, part: Part) -> int:
        """Show a part in any way that works; return its message."""
        failed = Failure(kind="later", told="it was not tried")
        for tries in range(TRIES):
            if tries:
                await self._pace.wait(budget(delivery.chat))
            try:
                return await self._show(delivery, part)
            except TelegramError as error:
                failed = failure(error)
            other = await self._other_way(delivery, part, failed)
            if other is None:
                break
            part = other
        if failed.kind == "unknown" and delivery.edits is not None:
            # To change a message twice is to change it once.
            failed = replace(failed, kind="later", after_s=AWAY_S)
        raise _NotDone(failed)

    async def _other_way(
        self, delivery: _Delivery, part: Part, failed: Failure
    ) -> Part | None:
        """Return the part as it may be shown after this failure; None is no more."""
        if is_about_format(failed) and part.entities:
            return replace(part, entities=())
        if is_about_preview(failed) and part.picture:
            return part.with_address
        if failed.moved_to not in (None, delivery.chat):
            delivery.chat = failed.moved_to or delivery.chat
            delivery.question = None  # there it is another message's number
            await self._notes.keep_move(delivery.address.chat, delivery.chat)
            return part
        if failed.kind == "refused" and delivery.edits is not None:
            # Somebody deleted it, or it is too old to be changed.
            delivery.progress.edits = None
            return part
        return None

    async def _show(self, delivery: _Delivery, part: Part) -> int:
        if delivery.edits is not None:
            return await self._edit(delivery, delivery.edits, part)
        is_first = len(delivery.progress.ids) == 1
        return await self._api.post(
            **calls.place(delivery.address, delivery.chat),
            **calls.message(part),
            **calls.answering(delivery.question if is_first else None),
        )

    async def _edit(self, delivery: _Delivery, message: int, part: Part) -> int:
        try:
            await self._api.call(
                "editMessageText",
                **calls.in_chat(delivery.address, delivery.chat),
                message_id=message,
                **calls.message(part),
            )
        except TelegramError as error:
            if not is_unchanged(failure(error)):
                raise
        return message

    async def _refusal(self, delivery: _Delivery, failed: Failure) -> DeliveryError:
        """Draw the conclusions from a failure, and say it to the core."""
        there = budget(delivery.chat)
        if failed.kind == "later":
            if failed.after_s is not None:
                self._pace.close(there, failed.after_s)
            return DeliveryError(
                f"telegram: the reply was not taken ({self._told(failed)}); it is "
                "tried again",
                retryable=True,
                retry_after_s=failed.after_s,
            )
        if failed.kind == "lost":
            with suppress(StoreError):
                await self._notes.keep_lost(delivery.chat)
        return DeliveryError(
            f"telegram: the reply was refused ({self._told(failed)}); it is not "
            "tried again",
            retryable=False,
        )

    def _told(self, failed: Failure) -> str:
        return self._api.hide_token(failed.told)

    async def _note(self, delivery: _Delivery) -> None:
        """Note what happened. Without the shelf it is remembered here, until then."""
        with suppress(StoreError):
            await self._notes.keep_progress(delivery.turn, delivery.progress)

    async def _note_shown(self, delivery: _Delivery) -> None:
        """Note whose message it is, for those who react to it."""
        message = delivery.progress.ids[-1]
        if message:
            with suppress(StoreError):
                await self._notes.keep_shown(
                    delivery.address, delivery.chat, message, delivery.turn
                )


def _sent(progress: Progress) -> Sent:
    return Sent(
        ids=tuple(str(message) for message in progress.ids if message),
        status="unknown" if 0 in progress.ids else "ok",
    )
