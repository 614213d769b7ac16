"""
The Web API: one call, its pace, and what its outcome means.

slack_sdk writes the request and reads the answer. Its retry handlers are left out,
because the one for lost connections sends a message twice; waiting and trying again is
for who called. Outcomes: an answer; DeliveryError, where Slack certainly did nothing;
Unanswered, where nobody can tell. Knows no replies.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import DeliveryError
from bot.pacing import Budget, Pace
from connectors.slack.payloads import id_in, stamp_in
from connectors.slack.refusals import Refused, refusal
from connectors.slack.workspaces import Workspace

TIMEOUT_S = 20.0
PATIENCE_S = 5.0  # a longer wait is the outbox's, where it keeps nobody else waiting
AFTER_S = 1.0  # where Slack says "later" and not when

# Slack's tiers: so many a minute, of each method in each workspace. Slack publishes
# them as "50+": Retry-After has the last word.
# https://github.com/slack-ruby/slack-api-ref
_PER_MINUTE: Mapping[str, int] = {
    "chat.update": 50,
    "chat.delete": 50,
    "chat.startStream": 20,
    "chat.appendStream": 100,
    "chat.stopStream": 20,
    "conversations.replies": 50,
    "conversations.history": 50,
    "agents.sessions.setStatus": 50,
}
_OTHERWISE_PER_MINUTE = 100
_WINDOW_S = 15.0  # no more than a quarter of a minute's calls at once
_POSTS_PER_S = 1.0  # in each channel, chat.postMessage

# These read their arguments from the query alone.
_READS = frozenset({"conversations.replies", "conversations.history"})

# "Some aspect of the operation may have succeeded", says Slack's reference.
_UNCLEAR = frozenset({"internal_error", "fatal_error"})
_LATER = frozenset({"ratelimited", "rate_limited"})
_MALFORMED = 400
_TOO_MANY = 429
_SERVER_FAILED = 500
_FINE = 200

# The library writes messages and tokens into its debug lines and quotes Slack's answers
# in its errors; what matters of them is said elsewhere.
quiet = logging.getLogger("connectors.slack.sdk")
quiet.setLevel(logging.CRITICAL)

Answer = Mapping[str, Any]


class Unanswered(Exception):
    """The connection was lost, or Slack failed: it may have done what was asked."""


def stamp_of(answer: Answer) -> str:
    """Return by which stamp a message goes that was made."""
    stamp = stamp_in(answer, "ts")
    if stamp is None:
        raise Unanswered("a message without a stamp")
    return stamp


class WebApi:
    """Slack's Web API under one address, for all workspaces."""

    def __init__(self, url: str, pace: Pace) -> None:
        self.url = url
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep connections between calls; outside, each call has its own."""
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=limit) as self._session:
            yield

    async def call(self, workspace: Workspace, method: str, **args: Any) -> Answer:
        """Wait for the method's turn, then call it; a long wait is a DeliveryError."""
        budgets = _budgets(workspace.team, method, args.get("channel"))
        pause = self._pace.wait_s(*budgets)
        if pause > PATIENCE_S:
            raise DeliveryError(
                f"slack: {method} is at its limit in team {workspace.team}; it is "
                "tried again by itself",
                retryable=True,
                retry_after_s=pause,
            )
        await self._pace.wait(*budgets)
        return await self.call_now(workspace, method, **args)

    def has_room(
        self, team: str, method: str, channel: str | None = None, leave: float = 0
    ) -> bool:
        """Take room for one call if there is some, and `leave` more for others."""
        return self._pace.now(*_budgets(team, method, channel), leave=leave)

    async def call_now(self, workspace: Workspace, method: str, **args: Any) -> Answer:
        """Call a method without waiting: whoever calls took room for it."""
        try:
            answer, _ = await self.asked(workspace.token, method, args)
        except DeliveryError as error:
            if error.retry_after_s is not None:
                self._pace.close(_tier(workspace.team, method), error.retry_after_s)
            raise
        return answer

    async def post_to(self, url: str, message: Answer) -> None:
        """Post to an address that Slack gave; it is not led on to any other one."""
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, trust_env=True) as session,
                session.post(
                    url, json=dict(message), allow_redirects=False
                ) as response,
            ):
                status, headers = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unanswered("response_url") from error
        if status == _TOO_MANY:
            raise _too_often("response_url", headers)
        if status >= _SERVER_FAILED:
            raise Unanswered("response_url")
        if status != _FINE:
            raise Refused(
                f"slack: response_url: Slack refused the answer with HTTP {status}; "
                "invite the bot to the channel with /invite @its-name",
                code="invalid_payload" if status == _MALFORMED else "",
                retryable=False,
            )

    async def identify(self, token: str) -> Workspace:
        """Ask Slack whose token it is."""
        answer = await self.ask(token, "auth.test")
        team = id_in(answer, "team_id")
        bot_user, bot_id = id_in(answer, "user_id"), id_in(answer, "bot_id")
        if team is None or bot_user is None or bot_id is None:
            raise DeliveryError(
                "slack.bot_token: it is no bot's token; copy the Bot User OAuth Token "
                "from OAuth & Permissions, it begins with xoxb-",
                retryable=False,
            )
        return Workspace(team=team, token=token, bot_user=bot_user, bot_id=bot_id)

    async def ask(self, token: str, method: str) -> Answer:
        """Call a method without arguments; it changes nothing and may be repeated."""
        try:
            answer, _ = await self.asked(token, method, {})
        except Unanswered as error:
            raise DeliveryError(
                f"slack: {method} had no answer; it is tried again by itself",
                retryable=True,
            ) from error
        return answer

    async def asked(
        self, token: str, method: str, args: Mapping[str, Any]
    ) -> tuple[Answer, Mapping[str, str]]:
        """Call a method; return Slack's answer and the headers that came with it."""
        client = self.client(token)
        try:
            if method in _READS:
                response = await client.api_call(
                    method, http_verb="GET", params=dict(args)
                )
            else:
                response = await client.api_call(method, json=dict(args))
        except SlackApiError as error:
            raise _meaning(method, error) from error
        except aiohttp.ClientConnectorError as error:
            raise DeliveryError(
                f"slack: {self.url} cannot be reached; see to the network, it is tried "
                "again by itself",
                retryable=True,
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unanswered(method) from error
        answer = response.data if isinstance(response.data, dict) else {}
        return answer, response.headers

    def client(self, token: str | None) -> AsyncWebClient:
        return AsyncWebClient(
            token=token,
            base_url=self.url,
            timeout=round(TIMEOUT_S),
            session=self._session,
            retry_handlers=[],
            logger=quiet,
        )


def _budgets(team: str, method: str, channel: str | None) -> list[Budget]:
    if method != "chat.postMessage":
        return [_tier(team, method)]
    posts = Budget(name=f"{team} {channel} {method}", times=1, per_s=1 / _POSTS_PER_S)
    return [posts, _tier(team, method)]


def _tier(team: str, method: str) -> Budget:
    # The cap of a whole workspace on posts is not published: only Retry-After tells.
    per_minute = _PER_MINUTE.get(method, _OTHERWISE_PER_MINUTE)
    if method == "chat.postMessage":
        per_minute *= 10
    times = per_minute * _WINDOW_S / 60
    return Budget(name=f"{team} {method}", times=times, per_s=_WINDOW_S)


def _meaning(method: str, error: SlackApiError) -> Exception:
    """Say what a refused call means: later, no, or nobody knows."""
    # Where the answer was no JSON, it is aiohttp's response, which has another name
    # for its status.
    response: Any = error.response
    status: int = getattr(response, "status_code", None) or response.status
    answer = getattr(response, "data", None)
    code = answer.get("error") if isinstance(answer, dict) else None
    code = code if isinstance(code, str) else ""
    if status == _TOO_MANY or code in _LATER:
        return _too_often(method, response.headers)
    if status >= _SERVER_FAILED or code in _UNCLEAR or not code:
        return Unanswered(method)
    return refusal(method, code, answer if isinstance(answer, dict) else {})


def _too_often(method: str, headers: Mapping[str, str]) -> Refused:
    told = headers.get("Retry-After", "")
    return Refused(
        f"slack: {method} came too often; it is tried again by itself",
        code="ratelimited",
        retryable=True,
        retry_after_s=float(told) if told.isascii() and told.isdigit() else AFTER_S,
    )
