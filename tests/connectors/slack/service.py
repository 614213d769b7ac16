"""
A stand-in of Slack: its Web API, its events over HTTP and Socket Mode, on loopback.

    async with SlackService() as slack:
        client = AsyncWebClient(token=slack.token, base_url=slack.url)
        slack.events_url = "http://127.0.0.1:8080/slack/events"
        await slack.deliver(slack.customer.message("Hello"))       # over HTTP
        envelope = slack.push(slack.customer.message("Hello"))     # over a socket
        assert slack.shown("D1") == ["Good morning."]

Team T1 has the app: `token`, `bot_user`. Channels: D1 (the bot and U1), D2 (the bot and
U2), C1 (a channel with the bot), C2 (one without), G1 (a group with the bot).

It is strict where Slack is (see `state` for limits), remembers everything, and goes
wrong as it is told: `fail("chat.postMessage", Fine(), RateLimited(2))` lets one call
through and refuses the next. Nothing sleeps but `Slow`; a stream dies by `clock`. It
does not count calls: a test that wants the rate limits of Slack looks at `calls`.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import orjson
from aiohttp import web

from tests.connectors.slack.arguments import Arguments, content_of
from tests.connectors.slack.blocks import Json, SlackError
from tests.connectors.slack.customer import Customer
from tests.connectors.slack.faults import Fault
from tests.connectors.slack.grants import SCOPES, Grants
from tests.connectors.slack.http import (
    Faults,
    answer_with,
    arguments_of,
    client_of,
    token_of,
)
from tests.connectors.slack.links import Envelope, Links
from tests.connectors.slack.methods import Methods
from tests.connectors.slack.payloads import (
    SIGNING_SECRET,
    Payload,
    Retry,
    headers_of,
)
from tests.connectors.slack.state import (
    Channel,
    ChannelType,
    Message,
    State,
    Workspace,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the Web API that came in, whatever became of it."""

    method: str
    arguments: Json
    token: str | None = field(repr=False)
    team: str | None
    at: float


class Answer(NamedTuple):
    """What the app said to a delivery, and how long it took."""

    status: int
    body: bytes
    seconds: float


class SlackService:
    """A context manager: inside it Slack answers at `url`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = State(clock)
        self.grants = Grants(self.state)
        self.links = Links(self.grants.app_id)
        self.signing_secret = SIGNING_SECRET
        self.events_url = ""
        self.calls: list[Call] = []
        self.responses: list[tuple[str, Json]] = []
        self.token = "xoxb-T1-token"  # noqa: S105 (of a stand-in)
        self._methods = Methods(self.state, self.grants)
        self._faults = Faults()
        self._called = asyncio.Condition()
        self._clock = clock
        self._site: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._base = ""
        self._furnish()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/api/{method}", self._answer)
        app.router.add_post("/response/{team}/{number}", self._respond)
        app.router.add_get("/link/", self.links.answer)
        self._site = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._site.setup()
        site = web.TCPSite(self._site, "127.0.0.1", 0)
        await site.start()
        host, port = self._site.addresses[0][:2]
        self._base = f"http://{host}:{port}"
        self.customer.url = self._base
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        assert self._site is not None
        await self.links.close()
        await self._session.close()
        await self._site.cleanup()

    # What the app is given

    @property
    def url(self) -> str:
        """The address of the Web API, with its slash at the end."""
        return f"{self._base}/api/"

    @property
    def app_token(self) -> str:
        return self.grants.app_token

    @property
    def bot_user(self) -> str:
        return self.state.workspaces["T1"].bot_user

    def authorize(self, team: str = "T2", **more: object) -> str:
        """Press Allow, and return the code; see `Grants.authorize`."""
        return self.grants.authorize(team, **more)  # type: ignore[arg-type]

    def install(
        self, team: str, token: str, *, scopes: tuple[str, ...] = SCOPES
    ) -> Workspace:
        """Give another team the app; give it channels with `channel`."""
        return self.grants.install(team, token, scopes=scopes)

    def uninstall(self, team: str = "T1") -> Payload:
        """Throw the app out, and return what Slack tells about it."""
        self.grants.uninstall(team)
        return self.customer.uninstalled(team)

    def channel(
        self,
        name: str,
        kind: ChannelType = "channel",
        *,
        team: str = "T1",
        has_bot: bool = True,
        archived: bool = False,
    ) -> Channel:
        """Make a channel, or a new one in place of an old one."""
        made = Channel(
            id=name, type=kind, team=team, has_bot=has_bot, archived=archived
        )
        self.state.channels[name] = made
        return made

    # What a customer sees

    def shown(self, channel: str, thread: str | None = None) -> list[str]:
        """Return what the bot's messages say now, oldest first."""
        return [message.shown for message in self.said(channel, thread)]

    def said(self, channel: str, thread: str | None = None) -> list[Message]:
        """Return the bot's messages in a channel, or in one thread of it."""
        return [
            message
            for message in self.state.all(channel)
            if message.by_bot and thread in {None, message.thread}
        ]

    def message(self, ts: str) -> Message:
        return self.state.message(ts)

    # What the app is told

    async def deliver(
        self,
        payload: Payload,
        *,
        retry: Retry | None = None,
        sign: bool | str = True,
        timestamp: str | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """
        Post to `events_url`. `sign` may be another secret; `raw` goes out in place of
        the payload's own bytes, signed as they are.
        """
        assert self._session is not None
        assert self.events_url, "tell the service where the app is: events_url"
        body = payload.body if raw is None else raw
        ours = self.signing_secret if sign else None
        secret = sign if isinstance(sign, str) else ours
        headers = headers_of(
            payload, body, secret=secret, timestamp=timestamp, retry=retry
        )
        began = time.monotonic()
        sent = io.BytesIO(body)
        posting = self._session.post(self.events_url, data=sent, headers=headers)
        async with posting as answer:
            told = await answer.read()
        return Answer(answer.status, told, time.monotonic() - began)

    async def deliver_all(self, payloads: Sequence[Payload]) -> list[Answer]:
        """Deliver one after the other, such as the two of a mention."""
        return [await self.deliver(payload) for payload in payloads]

    def push(self, payload: Payload) -> Envelope:
        """Send down a socket; see `Links` for `connected`, `drop`, `ack_s` and more."""
        return self.links.push(payload)

    # What goes wrong

    def fail(self, method: str, *faults: Fault) -> None:
        """
        Let the next calls of a method go wrong, one each, in order. Answers to slash
        commands and buttons go by the name of `response_url`.
        """
        self._faults.add(method, *faults)

    def expire(self, ts: str) -> None:
        """Let a stream die now."""
        self.message(ts).streaming = "expired"

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    async def called(self, method: str, times: int = 1) -> list[Call]:
        """Wait until a method was called so often, and return these calls."""
        async with self._called:
            await self._called.wait_for(lambda: len(self.calls_of(method)) >= times)
        return self.calls_of(method)

    def _furnish(self) -> None:
        self.grants.install("T1", self.token)
        self.customer = Customer(
            state=self.state, app_id=self.grants.app_id, url=self._base
        )
        self.state.names |= {"U1": "Ada", "U2": "Grace"}
        self.channel("D1", "im")
        self.channel("D2", "im")
        self.channel("C1")
        self.channel("C2", has_bot=False)
        self.channel("G1", "mpim")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments = await arguments_of(request)
        token = token_of(request, arguments)
        await self._record(method, arguments, token)

        def done() -> web.Response:
            answer, headers = self._done(method, arguments, token, request)
            return answer_with(answer, headers=headers)

        return await self._faults.answered(method, request, done)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        """Take an answer to a slash command or a button."""
        told = orjson.loads(await request.read())

        def done() -> web.Response:
            try:
                content_of(Arguments(told))
            except SlackError as error:
                # As incoming webhooks do: a word and no JSON.
                return web.Response(status=400, text=error.code)
            self.responses.append((request.path, told))
            return answer_with({"ok": True})

        return await self._faults.answered("response_url", request, done)

    def _done(
        self, method: str, arguments: Json, token: str | None, request: web.Request
    ) -> tuple[Json, dict[str, str]]:
        try:
            match method:
                case "oauth.v2.access":
                    answer = self.grants.access(
                        arguments, client_of(request, arguments)
                    )
                case "apps.connections.open":
                    answer = self._open_connection(token)
                case _:
                    answer = self._methods.call(method, arguments, token)
        except SlackError as error:
            answer = {"ok": False, "error": error.code, **error.more}
        workspace = self._workspace(token)
        headers = {"x-oauth-scopes": ",".join(workspace.scopes)} if workspace else {}
        return {"ok": True, **answer}, headers

    def _open_connection(self, token: str | None) -> Json:
        if token != self.app_token:
            self.grants.workspace(token)
            raise SlackError("not_allowed_token_type")
        where = self._base.replace("http://", "ws://", 1)
        ticket = self.links.ticket()
        return {"url": f"{where}/link/?ticket={ticket}&app_id={self.grants.app_id}"}

    async def _record(self, method: str, arguments: Json, token: str | None) -> None:
        workspace = self._workspace(token)
        call = Call(
            method=method,
            arguments=arguments,
            token=token,
            team=workspace.team if workspace else None,
            at=self._clock(),
        )
        async with self._called:
            self.calls.append(call)
            self._called.notify_all()

    def _workspace(self, token: str | None) -> Workspace | None:
        try:
            return self.grants.workspace(token)
        except SlackError:
            return None
