"""
The assembly: all parts of the connector, put together.

The only place that knows them all. It is imported where the connector is used, because
it loads Slack's libraries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from bot.interfaces import Accepted, Shelf, WebRequest, WebResponse
from bot.model import Address, Event, Reply, Sent
from bot.pacing import Pace
from connectors.slack.answers import Answers
from connectors.slack.drafts import Drafts
from connectors.slack.history import History
from connectors.slack.intake import Intake
from connectors.slack.lines import Lines
from connectors.slack.oauth import OAuth
from connectors.slack.parsing import stop_event
from connectors.slack.people import People
from connectors.slack.progress import Ledger
from connectors.slack.replies import Replies
from connectors.slack.requests import Requests
from connectors.slack.sending import Means
from connectors.slack.settings import SlackSettings
from connectors.slack.sockets import Sockets
from connectors.slack.streams import Streams
from connectors.slack.surfaces import Surfaces
from connectors.slack.threads import Threads
from connectors.slack.web_api import WebApi
from connectors.slack.workspaces import OneWorkspace, Workspaces

Accept = Callable[[Event], Awaitable[Accepted]]


class Assembly:
    """One app's parts, on one shelf."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        settings: SlackSettings,
        shelf: Shelf,
        oauth: OAuth | None,
        pace: Pace,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._now = now
        self._accept: Accept | None = None
        self._listening = False
        self._api = api = WebApi(settings.api_url, pace)
        workspaces = _workspaces(settings, oauth, api)
        threads, people, lines = Threads(shelf), People(), Lines(shelf)
        drafts = Drafts(shelf, clock)
        history = History(api)
        answers = Answers(shelf, api.post_to, settings.api_url)
        ledger = Ledger(shelf, lambda: now().timestamp())
        self.surfaces = Surfaces(
            api=api,
            workspaces=workspaces,
            shelf=shelf,
            greeting=settings.greeting,
            prompts=[(one.title, one.message) for one in settings.prompts],
            sleep=sleep,
            clock=clock,
        )
        self.streams = Streams(
            api=api,
            workspaces=workspaces,
            people=people,
            drafts=drafts,
            lines=lines,
            stopped=self._stopped,
            clock=clock,
        )
        self.replies = Replies(
            workspaces=workspaces,
            drafts=drafts,
            lines=lines,
            ledger=ledger,
            history=history,
            threads=threads,
            means=Means(api=api, ledger=ledger, history=history, answers=answers),
            feedback=settings.feedback,
        )
        self._intake = Intake(
            accept=self._accepted,
            workspaces=workspaces,
            bots=settings.bots,
            threads=threads,
            answers=answers,
            people=people,
            turns=history,
            shows=self.surfaces,
            clock=now,
        )
        self._requests: Requests | None = None
        if settings.mode == "http" and settings.signing_secret is not None:
            secret = settings.signing_secret.get_secret_value()
            self._requests = Requests(secret, self._intake, lambda: now().timestamp())
        self._sockets: Sockets | None = None
        if settings.mode == "socket" and settings.app_token is not None:
            self._sockets = Sockets(
                api=api,
                app_token=settings.app_token.get_secret_value(),
                takes=self._intake,
                clock=clock,
                sleep=sleep,
            )

    async def run(self, accept: Accept, until: asyncio.Event) -> None:
        self._accept, self._listening = accept, True
        try:
            async with self._api.connected():
                await self._listen(until)
        finally:
            self._listening = False
            await self.streams.settled()
            await self.surfaces.close()

    async def respond(self, request: WebRequest) -> WebResponse:
        if self._requests is None:
            return WebResponse(status=404)
        if not self._listening:
            # Not yet, or not any more: Slack comes again.
            return WebResponse(status=503, headers={"Retry-After": "1"})
        return await self._requests.respond(request)

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.surfaces.replying(address)
        return await self.replies.send(address, reply, key)

    def trouble(self) -> str | None:
        return None if self._sockets is None else self._sockets.trouble()

    async def _listen(self, until: asyncio.Event) -> None:
        if self._sockets is None:
            await until.wait()
            return
        listening = asyncio.create_task(self._sockets.run())
        closing = asyncio.create_task(until.wait())
        try:
            await asyncio.wait(
                {listening, closing}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (listening, closing):
                task.cancel()
            await asyncio.gather(listening, closing, return_exceptions=True)
        if not listening.cancelled():
            listening.result()

    async def _accepted(self, event: Event) -> Accepted:
        assert self._accept is not None  # noqa: S101 (nothing is taken outside of run)
        return await self._accept(event)

    async def _stopped(self, address: Address, stamp: str) -> None:
        """Somebody pressed Stop, and a stream was the first to notice."""
        if self._accept is not None:
            await self._accept(stop_event(address, stamp, self._now()))
        self.surfaces.stopped(address)


def _workspaces(
    settings: SlackSettings, oauth: OAuth | None, api: WebApi
) -> Workspaces:
    if oauth is not None:
        return oauth.workspaces
    assert settings.bot_token is not None  # noqa: S101 (checked with the settings)
    return OneWorkspace(settings.bot_token.get_secret_value(), api.identify)
