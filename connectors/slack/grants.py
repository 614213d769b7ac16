"""
Grants: the tokens that Slack gives, for a code the first time and then for the token
that renews them.

Speaks to two methods, `oauth.v2.access` and `auth.test`, through slack_sdk's client.
Knows neither where tokens are kept nor when one is due. Nothing that Slack answered is
ever shown, logged or chained to an error, because all of it may hold a token: only
Slack's word for what is wrong leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from connectors.slack.workspaces import Workspace

if TYPE_CHECKING:
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web.async_client import AsyncWebClient

Answer = TypeVar("Answer", bound=BaseModel)

LIMIT_S = 10  # for one call, from opening a connection to the last byte
LONGEST_WAIT_S = 600  # whatever Retry-After says

# No later attempt with the same token will do better.
FINAL = frozenset({"invalid_refresh_token", "token_revoked", "account_inactive"})

# A logger without a level of its own makes the client format what it sends and gets,
# tokens and all, for its debug lines.
_silent = logging.getLogger(f"{__name__}.client")
_silent.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """
    The app in one team, or in all of an organisation: `account` is the id of that team
    or organisation. `ends_at` is in Unix time, None for a token that does not end.
    """

    account: str
    bot_user: str
    bot_id: str
    token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    ends_at: float | None = None

    @property
    def workspace(self) -> Workspace:
        return Workspace(
            team=self.account,
            token=self.token,
            bot_user=self.bot_user,
            bot_id=self.bot_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A new installation, and what the person who made it is shown of it."""

    installation: Installation
    app: str
    name: str
    organisation: bool


class NoGrant(Exception):
    """Slack gave no token, for this `reason`: a word of Slack's, or one of ours."""

    def __init__(
        self, reason: str, *, final: bool = False, retry_after_s: float | None = None
    ) -> None:
        self.reason = reason
        self.final = final
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class Grants:
    """Asks Slack for tokens, each time once: a code or token that was sent is spent."""

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        api_url: str,
        clock: Callable[[], float],
    ) -> None:
        self._credentials = {"client_id": client_id, "client_secret": client_secret}
        self._redirect_uri = redirect_uri
        self._api_url = api_url
        self._clock = clock

    async def first(self, code: str) -> Granted:
        """Exchange the code of a person who agreed. Raises NoGrant."""
        asked = self._clock()
        answer = await self._access(code=code, redirect_uri=self._redirect_uri)
        organisation = bool(answer.is_enterprise_install)
        place = answer.enterprise if organisation else answer.team
        if place is None:
            raise NoGrant("answer_not_understood")
        bot = await self._identity(answer.access_token)
        installation = Installation(
            account=place.id,
            bot_user=bot.user_id,
            bot_id=bot.bot_id,
            token=answer.access_token,
            refresh_token=answer.refresh_token or "",
            ends_at=answer.ends_at(asked),
        )
        return Granted(
            installation=installation,
            app=answer.app_id or "",
            name=place.name or place.id,
            organisation=organisation,
        )

    async def next(self, installation: Installation) -> Installation:
        """Exchange the refresh token, which is spent by it. Raises NoGrant."""
        asked = self._clock()
        answer = await self._access(
            grant_type="refresh_token", refresh_token=installation.refresh_token
        )
        return replace(
            installation,
            token=answer.access_token,
            refresh_token=answer.refresh_token or "",
            ends_at=answer.ends_at(asked),
        )

    async def _access(self, **what: str) -> _Access:
        # Not the client's oauth_v2_access, whose BasicAuth aiohttp 3.14 deprecates and
        # 4.0 will not have; Slack takes the credentials in the form as well.
        form = {**self._credentials, **what}
        answer = await self._ask(
            lambda client: client.api_call("oauth.v2.access", data=form)
        )
        return _read(_Access, answer)

    async def _identity(self, token: str) -> _Identity:
        """`oauth.v2.access` does not tell the bot's id, by which it knows itself."""
        answer = await self._ask(lambda client: client.auth_test(token=token))
        return _read(_Identity, answer)

    async def _ask(self, call: Callable[[AsyncWebClient], Awaitable[Any]]) -> Any:
        import aiohttp  # noqa: PLC0415 (loads with the connector)
        from slack_sdk.errors import SlackApiError, SlackClientError  # noqa: PLC0415
        from slack_sdk.web.async_client import AsyncWebClient  # noqa: PLC0415

        client = AsyncWebClient(
            base_url=self._api_url,
            timeout=LIMIT_S,
            logger=_silent,
            # The default one sends again after a lost connection; Slack may have taken
            # the code or the refresh token, and refuses it the second time.
            retry_handlers=[],
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                answer = await call(client)
        except SlackApiError as error:
            raise _refused(error) from None
        except (
            aiohttp.ClientError,
            SlackClientError,
            OSError,
            TimeoutError,
            # The client's own on a body that is plain text or not UTF-8.
            AttributeError,
            ValueError,
        ) as error:
            raise NoGrant(type(error).__name__) from None
        return answer.data


class _Named(BaseModel):
    id: str = Field(min_length=1)
    name: str | None = None


class _Access(BaseModel):
    """What `oauth.v2.access` answers, as far as it is needed."""

    access_token: str = Field(min_length=1)
    token_type: Literal["bot"]
    refresh_token: str | None = None
    expires_in: float | None = None
    app_id: str | None = None
    team: _Named | None = None
    enterprise: _Named | None = None
    is_enterprise_install: bool | None = None

    def ends_at(self, asked: float) -> float | None:
        return None if self.expires_in is None else asked + self.expires_in


class _Identity(BaseModel):
    """What `auth.test` answers to a bot token, as far as it is needed."""

    user_id: str = Field(min_length=1)
    bot_id: str = Field(min_length=1)


def _read(kind: type[Answer], answer: Any) -> Answer:
    try:
        return kind.model_validate(answer)
    except ValidationError:
        raise NoGrant("answer_not_understood") from None


def _refused(error: SlackApiError) -> NoGrant:
    response: Any = error.response
    # An answer that is not JSON is in the error as it came.
    answer = getattr(response, "data", None)
    said = answer.get("error") if isinstance(answer, dict) else None
    if not (isinstance(said, str) and said.isascii() and said.isidentifier()):
        said = f"HTTP {getattr(response, 'status_code', '?')}"
    return NoGrant(said, final=said in FINAL, retry_after_s=_wait_s(response))


def _wait_s(response: Any) -> float | None:
    headers = getattr(response, "headers", None) or {}
    try:
        return min(max(0, int(headers["Retry-After"])), LONGEST_WAIT_S)
    except (KeyError, ValueError):
        return None
