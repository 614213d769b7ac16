"""
Surfaces: what Slack shows around the conversation.

The Home tab, suggested prompts, a thread's title, and the line that says that the bot
is at work. None of it matters enough to be waited for or tried again. Knows no replies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from bot.errors import DeliveryError, StoreError
from bot.interfaces import Shelf
from bot.model import Address, Event
from connectors.slack.parsing import Opened
from connectors.slack.refusals import DENIED, Refused
from connectors.slack.web_api import Unanswered, WebApi
from connectors.slack.workspaces import Workspaces

logger = logging.getLogger(__name__)

MOST_ERRANDS = 200
# A status clears itself after two minutes.
REFRESH_S = 90.0
LONGEST_STATUS_S = 900.0
DENIED_S = 600.0
LONGEST_TITLE = 60
TITLED_S = 30 * 86_400.0

HELP = (
    "Write to me in *Messages*, mention me in a channel, or use `/chorus` anywhere.\n"
    "`/chorus why` explains my last answer, `/chorus forget` erases what I remember of "
    "the conversation, `/chorus stop` stops an answer, `/chorus help` lists more."
)

Prompts = Sequence[tuple[str, str]]  # title and message


class Surfaces:
    """Keeps them up to date beside everything else, a bounded number at once."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: WebApi,
        workspaces: Workspaces,
        shelf: Shelf,
        greeting: str,
        prompts: Prompts,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._workspaces = workspaces
        self._shelf = shelf
        self._greeting = greeting
        self._prompts = prompts
        self._sleep = sleep
        self._clock = clock
        self._errands: set[asyncio.Task[None]] = set()
        self._statuses: dict[str, asyncio.Task[None]] = {}
        self._denied: dict[tuple[str, str], float] = {}

    def opened(self, opened: Opened) -> None:
        if opened.home:
            self._run(self._publish_home(opened))
        elif opened.chat is not None and self._prompts:
            self._run(self._suggest(opened, opened.chat))

    def asked(self, event: Event) -> None:
        if event.address.thread is not None:
            self._run(self._entitle(event))

    def stopped(self, address: Address) -> None:
        """Without this Slack shows for ever that the bot is at work."""
        thread = {} if address.thread is None else {"thread_ts": address.thread}
        self._run(
            self._call(
                address.account,
                "agents.sessions.setStatus",
                channel_id=address.chat,
                status="active",
                **thread,
            )
        )

    async def status(self, address: Address, text: str) -> None:
        """Show what the bot does until it is told otherwise; no text ends it."""
        # Slack shows it in threads alone.
        if address.thread is None:
            return
        shown = self._statuses.pop(address.key, None)
        if shown is not None:
            shown.cancel()
        if shown is None and not text:
            return  # the reply has cleared it
        await self._set_status(address, text)
        if text and len(self._statuses) < MOST_ERRANDS:
            self._statuses[address.key] = self._run(self._refresh(address, text))

    def replying(self, address: Address) -> None:
        """Show the status no longer: the reply will clear it by itself."""
        shown = self._statuses.pop(address.key, None)
        if shown is not None:
            shown.cancel()

    async def settled(self) -> None:
        """Wait until everything is done, but for what lasts."""
        lasting = set(self._statuses.values())
        while errands := self._errands - lasting:
            await asyncio.wait(errands)

    async def close(self) -> None:
        for task in self._errands:
            task.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        self._statuses.clear()

    def _run(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def _publish_home(self, opened: Opened) -> None:
        blocks = [
            {"type": "section", "text": {"type": "mrkdwn", "text": text}}
            for text in (self._greeting, HELP)
        ]
        view = {"type": "home", "blocks": blocks}
        await self._call(
            opened.account, "views.publish", user_id=opened.user, view=view
        )

    async def _suggest(self, opened: Opened, chat: str) -> None:
        thread = {} if opened.thread is None else {"thread_ts": opened.thread}
        await self._call(
            opened.account,
            "assistant.threads.setSuggestedPrompts",
            channel_id=chat,
            title=self._greeting,
            prompts=[
                {"title": title, "message": message} for title, message in self._prompts
            ],
            **thread,
        )

    async def _entitle(self, event: Event) -> None:
        """Name a thread of the panel after its first question."""
        address, title = event.address, " ".join(event.text.split())[:LONGEST_TITLE]
        if not title:
            return
        try:
            first = await self._shelf.put(
                f"title {address.key}",
                event.id.encode(),
                ttl_s=TITLED_S,
                absent=True,
            )
        except StoreError:
            return
        if first:
            await self._call(
                address.account,
                "assistant.threads.setTitle",
                channel_id=address.chat,
                thread_ts=address.thread,
                title=title,
            )

    async def _set_status(self, address: Address, text: str) -> None:
        await self._call(
            address.account,
            "assistant.threads.setStatus",
            channel_id=address.chat,
            thread_ts=address.thread,
            status=text,
        )

    async def _refresh(self, address: Address, text: str) -> None:
        until = self._clock() + LONGEST_STATUS_S
        while self._clock() < until:
            await self._sleep(REFRESH_S)
            await self._set_status(address, text)

    async def _call(self, account: str, method: str, **args: Any) -> None:
        """Call a method if there is room, and if it was not denied lately."""
        if self._clock() < self._denied.get((account, method), 0.0):
            return
        if not self._api.has_room(account, method):
            return
        try:
            workspace = await self._workspaces.of(account)
            await self._api.call_now(workspace, method, **args)
        except Refused as error:
            logger.debug("%s", error)
            if error.code in DENIED:
                self._denied[account, method] = self._clock() + DENIED_S
        except (DeliveryError, StoreError, Unanswered) as error:
            logger.debug("%s: not done: %s", method, error)
