"""
Sending: one reply on its way to Slack.

A draft that stands there becomes the reply; what is left is posted. Before a message is
posted that is noted down, so that after a crash, or an answer that was lost, Slack is
asked whether it is there. Edits of a known message are done again without asking. A
part whose pictures or blocks Slack does not take was not shown at all, so it is sent
once more, with words in place of them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bot.errors import DeliveryError
from bot.model import Address
from connectors.slack.answers import Answers
from connectors.slack.history import History
from connectors.slack.progress import Ledger, Progress
from connectors.slack.refusals import ABOUT_BLOCKS, Refused
from connectors.slack.rendering import NO_UNFURLING, Part, content_of, metadata_of
from connectors.slack.web_api import Unanswered, WebApi, stamp_of
from connectors.slack.workspaces import Workspace

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ELSEWHERE = frozenset({"not_in_channel", "channel_not_found"})
_STREAMS_STILL = "streaming_state_conflict"
_TRIES = 2  # at an edit that Slack refuses because the message is streamed still


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every sending works with."""

    api: WebApi
    ledger: Ledger
    history: History
    answers: Answers


@dataclass(slots=True, kw_only=True)
class Sending:
    """
    Brings `progress` to its end. `shown` is what the draft shows, where that is known.
    Raises Unanswered where a message may be there or not.
    """

    means: Means
    workspace: Workspace
    address: Address
    key: str
    parts: Sequence[Part]
    progress: Progress
    shown: str | None

    async def run(self) -> None:
        await self._find_out()
        if self.parts and await self._streamed_out():
            return
        if self.progress.streams:
            await self._end(self.progress.drafts[-1])
        for number in range(len(self.progress.done), len(self.parts)):
            stamp = await self._put(number)
            self.progress.done.append(stamp)
            self.progress.trying = False
            await self._note()
        await self._tidy()

    async def _find_out(self) -> None:
        """Ask Slack for what an earlier attempt may have left there."""
        progress = self.progress
        if progress.trying:
            there = await self._there()
            while (number := len(progress.done) + 1) in there:
                progress.done.append(there[number])
            progress.trying = False
        if progress.lost:
            progress.drafts += [
                stamp
                for stamp in await self._unfinished()
                if stamp not in progress.drafts
            ]
            # One that is streamed no more says so when it is stopped.
            progress.streams = bool(progress.drafts)
            progress.lost = False

    async def _there(self) -> dict[int, str]:
        try:
            there, _ = await self.means.history.parts_of(
                self.workspace, self.address, self.key, self.progress.since
            )
        except DeliveryError as error:
            if error.retryable:
                raise
            raise Unanswered(str(error)) from error
        return dict(there)

    async def _unfinished(self) -> list[str]:
        try:
            return await self.means.history.unfinished(
                self.workspace, self.address, self.progress.since
            )
        except DeliveryError as error:
            if error.retryable:
                raise
            # The reply matters more than a beginning of it that cannot be seen.
            return []

    async def _streamed_out(self) -> bool:
        """End a stream with the rest of the reply, where that makes it whole."""
        progress, part = self.progress, self.parts[0]
        if not progress.streams or progress.done or self.shown is None:
            return False
        if [len(self.parts), len(progress.drafts)] != [1, 1]:
            return False
        if not part.markdown.startswith(self.shown):
            return False
        try:
            await self._with_blocks_or_words(part, self._end_whole)
        except Unanswered:
            return False
        except DeliveryError as error:
            if error.retryable:
                raise
            return False
        progress.done.append(progress.drafts[0])
        return True

    async def _end_whole(self, part: Part) -> Any:
        rest = part.markdown[len(self.shown or "") :]
        return await self._call(
            "chat.stopStream",
            ts=self.progress.drafts[0],
            metadata=metadata_of(self.key, 1, 1),
            **({"markdown_text": rest} if rest else {}),
            **({"blocks": part.below} if part.below else {}),
        )

    async def _end(self, stamp: str) -> None:
        """End a stream, so that its message can be edited."""
        try:
            await self._call("chat.stopStream", ts=stamp)
        except Unanswered:
            pass  # the edit tells
        except DeliveryError as error:
            if error.retryable:
                raise
            # It was over already: its time, or somebody pressed Stop.
        self.progress.streams = False
        await self._note()

    async def _put(self, number: int) -> str:
        """Make a draft this part, or post it; return its stamp."""
        if number < len(self.progress.drafts):
            stamp = self.progress.drafts[number]
            if await self._edited(stamp, number):
                return stamp
        return await self._posted(number)

    async def _edited(self, stamp: str, number: int) -> bool:
        """Whether the message is the part now; not where it is gone, for one."""

        async def edit(part: Part) -> Any:
            return await self._call(
                "chat.update",
                ts=stamp,
                metadata=self._metadata(number),
                **content_of(part),
            )

        for _ in range(_TRIES):
            try:
                await self._with_blocks_or_words(self.parts[number], edit)
            except Unanswered as error:
                raise DeliveryError(
                    "slack: chat.update had no answer; it is tried again by itself",
                    retryable=True,
                ) from error
            except Refused as error:
                if error.retryable:
                    raise
                if error.code != _STREAMS_STILL:
                    return False
                await self._end(stamp)
            else:
                return True
        return False

    async def _posted(self, number: int) -> str:
        thread = self.address.thread

        async def post(part: Part) -> Any:
            return await self._call(
                "chat.postMessage",
                metadata=self._metadata(number),
                **NO_UNFURLING,
                **content_of(part),
                **({} if thread is None else {"thread_ts": thread}),
            )

        self.progress.trying = True
        await self.means.ledger.write(self.key, self.progress)
        try:
            answer = await self._with_blocks_or_words(self.parts[number], post)
        except DeliveryError as error:
            self.progress.trying = False
            await self._note()
            if isinstance(error, Refused) and error.code in _ELSEWHERE:
                return await self._answered(number, error)
            raise
        return stamp_of(answer)

    async def _answered(self, number: int, refused: Refused) -> str:
        """Answer a command where the bot is not, if Slack gave an address for it."""

        async def answer(part: Part) -> bool:
            message = {
                **content_of(part),
                "response_type": "ephemeral",
                "replace_original": False,
            }
            return await self.means.answers.answer(self.address, message)

        self.progress.trying = True
        await self.means.ledger.write(self.key, self.progress)
        try:
            if not await self._with_blocks_or_words(self.parts[number], answer):
                raise refused
        except DeliveryError:
            self.progress.trying = False
            await self._note()
            raise
        return f"answer-{self.key}-{number + 1}"

    async def _tidy(self) -> None:
        """Delete what is left of a draft that took more messages than the reply."""
        for stamp in self.progress.drafts:
            if stamp in self.progress.done:
                continue
            try:
                await self._call("chat.delete", ts=stamp)
            except Unanswered as error:
                raise DeliveryError(
                    "slack: chat.delete had no answer; it is tried again by itself",
                    retryable=True,
                ) from error
            except DeliveryError as error:
                if error.retryable:
                    raise

    async def _with_blocks_or_words(
        self, part: Part, show: Callable[[Part], Awaitable[T]]
    ) -> T:
        """Show a part; in words, where Slack takes its pictures and blocks not."""
        try:
            return await show(part)
        except Refused as error:
            said = part.in_words
            if said is None or error.code not in ABOUT_BLOCKS:
                raise
            logger.warning(
                "the reply of turn %s goes out without its pictures and blocks: %s",
                self.key,
                error,
            )
        return await show(said)

    def _metadata(self, number: int) -> Any:
        return metadata_of(self.key, number + 1, len(self.parts))

    async def _note(self) -> None:
        await self.means.ledger.note(self.key, self.progress)

    async def _call(self, method: str, **args: Any) -> Any:
        return await self.means.api.call(
            self.workspace, method, channel=self.address.chat, **args
        )
