"""
Streams: showing a reply grow, on the best rung of the ladder that there is room for.

In a thread Slack streams: begun, appended to, and begun anew before a stream dies,
which it does five minutes after it began. Where it cannot, one message is edited now
and then. Where there is no room, nothing is shown until the reply is whole. Every frame
is the whole text, so a frame may be left out. Knows no replies; they finish the draft.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bot.errors import DeliveryError, StoreError
from bot.model import Address
from connectors.slack.drafts import Draft, Drafts
from connectors.slack.lines import Lines
from connectors.slack.markdown import harmless
from connectors.slack.people import People
from connectors.slack.refusals import DENIED, Refused
from connectors.slack.rendering import (
    LONGEST,
    NO_UNFURLING,
    Part,
    content_of,
    draft_metadata,
)
from connectors.slack.web_api import Unanswered, WebApi, stamp_of
from connectors.slack.workspaces import Workspace, Workspaces

logger = logging.getLogger(__name__)

APPEND_S = 1.0
EDIT_S = 3.0  # an edit a second would use up the whole workspace's budget
# A stream dies about 300 s after it began, however often it is appended to.
# https://github.com/slackapi/python-slack-sdk/issues/1859
ROTATE_S = 240.0
DENIED_S = 600.0  # for so long nobody tries again what the workspace does not allow
# Room that frames leave to replies: theirs matter more.
LEAVE = 5.0

STOPPED = "stopped_by_user"

Stopped = Callable[[Address, str], Awaitable[None]]


class Streams:
    """Shows frames; `stopped` is told where somebody pressed Stop."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: WebApi,
        workspaces: Workspaces,
        people: People,
        drafts: Drafts,
        lines: Lines,
        stopped: Stopped,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._workspaces = workspaces
        self._people = people
        self._drafts = drafts
        self._lines = lines
        self._stopped = stopped
        self._clock = clock
        self._denied: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def show(self, address: Address, text: str) -> None:
        """Show all of the text so far, if there is room."""
        # Somebody writes there: the reply, or a frame that takes its time.
        if self._lines.is_held(address.key) or not text.strip():
            return
        if self._drafts.grew_lately(address, APPEND_S):
            return
        # Whoever waits may give up, but what Slack has begun must be noted down.
        task = asyncio.create_task(self._show(address, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def settled(self) -> None:
        """Wait until nothing is on its way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _show(self, address: Address, text: str) -> None:
        try:
            async with self._lines.hold(address.key):
                await self._grow(address, harmless(text))
        except (DeliveryError, StoreError, Unanswered) as error:
            logger.debug("a frame was not shown: %s", error)

    async def _grow(self, address: Address, text: str) -> None:
        draft = await self._drafts.open(address)
        workspace = await self._workspaces.of(address.account)
        if draft is None:
            await self._begin(workspace, address, text)
        elif draft.frozen:
            return
        elif not draft.streams:
            await self._edit(workspace, address, draft, text)
        elif self._clock() - draft.began > ROTATE_S:
            await self._rotate(workspace, address, draft, text)
        else:
            await self._append(workspace, address, draft, text)

    async def _begin(self, workspace: Workspace, address: Address, text: str) -> None:
        draft = Draft(streams=self._can_stream(address))
        method = "chat.startStream" if draft.streams else "chat.postMessage"
        if self._api.has_room(workspace.team, method, address.chat):
            await self._start(workspace, address, draft, text)

    async def _start(
        self, workspace: Workspace, address: Address, draft: Draft, text: str
    ) -> None:
        """Begin a message, room for which was taken, with the text from `before` on."""
        draft.lost = True
        draft.began = draft.grew = self._clock()
        text = text[: draft.before + LONGEST]
        await self._drafts.keep(address, draft)
        try:
            if draft.streams:
                stamp = await self._start_stream(
                    workspace, address, text[draft.before :]
                )
            else:
                stamp = await self._post(workspace, address, text)
        except Unanswered:
            draft.frozen = True
            draft.streams = False
            await self._drafts.keep(address, draft)
            raise
        except DeliveryError as error:
            await self._not_begun(address, draft, error)
            raise
        draft.lost = False
        draft.stamps.append(stamp)
        draft.shown = text
        await self._drafts.keep(address, draft)

    async def _not_begun(
        self, address: Address, draft: Draft, error: DeliveryError
    ) -> None:
        draft.lost = False
        code = error.code if isinstance(error, Refused) else ""
        if draft.streams and code in DENIED:
            self._denied[address.account] = self._clock() + DENIED_S
        elif not error.retryable:
            draft.frozen = True
        if draft.stamps or draft.frozen:
            draft.streams = False
            await self._drafts.keep(address, draft)
        else:
            await self._drafts.drop(address)

    def _can_stream(self, address: Address) -> bool:
        denied = self._clock() < self._denied.get(address.account, 0.0)
        known = address.user is not None or address.chat.startswith("D")
        return address.thread is not None and known and not denied

    async def _start_stream(
        self, workspace: Workspace, address: Address, text: str
    ) -> str:
        recipient = {}
        if address.user is not None:
            team = self._people.team_of(address.account, address.user)
            recipient = {
                "recipient_user_id": address.user,
                "recipient_team_id": team,
            }
        answer = await self._api.call_now(
            workspace,
            "chat.startStream",
            channel=address.chat,
            thread_ts=address.thread,
            markdown_text=text,
            **recipient,
        )
        return stamp_of(answer)

    async def _post(self, workspace: Workspace, address: Address, text: str) -> str:
        thread = {} if address.thread is None else {"thread_ts": address.thread}
        answer = await self._api.call_now(
            workspace,
            "chat.postMessage",
            channel=address.chat,
            metadata=draft_metadata(),
            **NO_UNFURLING,
            **content_of(Part(markdown=text[:LONGEST])),
            **thread,
        )
        return stamp_of(answer)

    async def _append(
        self, workspace: Workspace, address: Address, draft: Draft, text: str
    ) -> None:
        shown = draft.shown or ""
        grown = text[len(shown) :]
        now = self._clock()
        # What does not go on from there is put right when the reply is whole.
        if not grown or not text.startswith(shown) or now - draft.grew < APPEND_S:
            return
        if len(text) - draft.before > LONGEST:
            return
        if not self._api.has_room(workspace.team, "chat.appendStream", leave=LEAVE):
            return
        draft.grew = now
        try:
            await self._api.call_now(
                workspace,
                "chat.appendStream",
                channel=address.chat,
                ts=draft.stamps[-1],
                markdown_text=grown,
            )
        except Unanswered:
            draft.shown, draft.frozen = None, True
            raise
        except DeliveryError as error:
            await self._cut_short(address, draft, error)
            raise
        draft.shown = text

    async def _rotate(
        self, workspace: Workspace, address: Address, draft: Draft, text: str
    ) -> None:
        """Go on in a new stream, which the reply makes one with the old one."""
        shown = draft.shown or ""
        if not text[len(shown) :].strip() or not text.startswith(shown):
            return
        room = self._api.has_room
        if not room(workspace.team, "chat.startStream") or not room(
            workspace.team, "chat.stopStream", leave=LEAVE
        ):
            return
        try:
            await self._api.call_now(
                workspace,
                "chat.stopStream",
                channel=address.chat,
                ts=draft.stamps[-1],
            )
        except Unanswered:
            draft.frozen = True
            raise
        except DeliveryError as error:
            await self._cut_short(address, draft, error)
            raise
        draft.before = len(shown)
        await self._start(workspace, address, draft, text)

    async def _cut_short(
        self, address: Address, draft: Draft, error: DeliveryError
    ) -> None:
        """A stream that Slack has ended; only the whole reply is shown after that."""
        if error.retryable:
            return
        draft.frozen, draft.streams = True, False
        await self._drafts.keep(address, draft)
        if isinstance(error, Refused) and error.code == STOPPED:
            await self._stopped(address, draft.stamps[-1])

    async def _edit(
        self, workspace: Workspace, address: Address, draft: Draft, text: str
    ) -> None:
        now = self._clock()
        if text == draft.shown or now - draft.grew < EDIT_S or len(text) > LONGEST:
            return
        if not self._api.has_room(workspace.team, "chat.update", leave=LEAVE):
            return
        draft.grew = now
        try:
            await self._api.call_now(
                workspace,
                "chat.update",
                channel=address.chat,
                ts=draft.stamps[-1],
                **content_of(Part(markdown=text[:LONGEST])),
            )
        except DeliveryError as error:
            draft.frozen = not error.retryable
            raise
        draft.shown = text
