"""
OAuth: how a team gets the app, two pages and the exchange between them.

The first page sends a person to Slack with a state; Slack sends them back to the second
with the state and a code, which is exchanged for the team's token. A state belongs to
the browser that asked for it, so nobody can be made to finish what another began.
Knows nothing about messages.

Of slack_sdk only the client is used, in `connectors.slack.grants`. What else there is
was read, and left:

- Bolt's AsyncOAuthFlow checks the state against a cookie, but the cookie *is* the
  state, which Slack and every log of addresses see; it is compared with `==`, is
  without SameSite, and is Secure on loopback too. A failed exchange logs the code, a
  connection that breaks is not caught, and the tokens of the person who installs and
  of incoming webhooks are kept though nothing needs them.
- AuthorizeUrlGenerator encodes nothing of what it puts into the address.
- OpenID Connect is for signing people in: nobody signs in here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from bot.errors import place_of
from bot.interfaces import Shelf, WebRequest, WebResponse
from bot.pacing import Budget, Pace
from connectors.slack import oauth_pages
from connectors.slack.cipher import Cipher, keys_in
from connectors.slack.grants import Granted, Grants, NoGrant
from connectors.slack.installations import Installations
from connectors.slack.oauth_states import States
from connectors.slack.workspaces import Workspaces

logger = logging.getLogger(__name__)

LONGEST_CODE = 512

# The kind of problem of which the core does not show what was found.
HIDDEN: Final = "api_key"

# Anybody may ask for the page, and each time a state is kept for ten minutes.
OFFERS = Budget(name="offers", times=120, per_s=60)

# For an exchange, before the page is due: the core gives an answer 2.5 seconds.
PATIENCE_S = 2.0

# Slack's words for a person who pressed Cancel.
DENIED = "access_denied"


def _keys(secret: SecretStr) -> SecretStr:
    try:
        keys = keys_in(secret.get_secret_value())
    except ValueError as error:
        raise PydanticCustomError(HIDDEN, "{why}", {"why": str(error)}) from None
    return SecretStr(",".join(keys))


def _stripped(secret: SecretStr) -> SecretStr:
    stripped = secret.get_secret_value().strip()  # files leave a line's end
    if not stripped:
        raise PydanticCustomError(HIDDEN, "empty; copy the Client Secret of the app")
    return SecretStr(stripped)


def _public(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("not the address of a site; write https://bot.example.com")
    if parts.scheme != "https" and not _is_loopback(url):
        raise ValueError("not https, and Slack sends nobody back to less than that")
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _path(path: str) -> str:
    plain = path.replace("/", "").replace("-", "").replace("_", "")
    if not (path.startswith("/") and plain.isascii() and plain.isalnum()):
        raise ValueError("not a plain path; write one such as /slack/install")
    return path


class OAuthSettings(BaseModel):
    """What an app needs that many teams install."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_id: str = Field(
        min_length=1,
        description="Client ID of the app (Basic Information > App Credentials)",
    )
    client_secret: Annotated[SecretStr, AfterValidator(_stripped)] = Field(
        description="Client Secret of the app, from the same place"
    )
    encryption_key: Annotated[SecretStr, AfterValidator(_keys)] = Field(
        description="Fernet key for the tokens that are kept; several, separated by "
        "commas: the first encrypts, each of them decrypts"
    )
    url: Annotated[str, AfterValidator(_public)] = Field(
        description="public address of the bot, https://…; http only for loopback"
    )
    install_path: Annotated[str, AfterValidator(_path)] = Field(
        "/slack/install", description="where a person begins to install the app"
    )
    redirect_path: Annotated[str, AfterValidator(_path)] = Field(
        "/slack/oauth_redirect",
        description="where Slack sends them back; `url` and this are a Redirect URL of "
        "the app (OAuth & Permissions)",
    )

    @field_validator("redirect_path")
    @classmethod
    def _another(cls, path: str, known: ValidationInfo) -> str:
        if path == known.data.get("install_path"):
            raise ValueError("the same as install_path; change one of them")
        return path


class OAuth:
    """Answers two paths, and has the `workspaces` that came by them."""

    def __init__(
        self,
        settings: OAuthSettings,
        *,
        api_url: str,
        scopes: Sequence[str],
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._settings = settings
        self._api_url = api_url
        self._scopes = scopes
        self._pace = Pace()
        self._patience_s = patience_s
        self._installing: set[asyncio.Task[WebResponse]] = set()
        self._install_url = settings.url + settings.install_path
        self._redirect_url = settings.url + settings.redirect_path
        self._states = States(secure=not _is_loopback(settings.url))
        self._grants = Grants(
            client_id=settings.client_id,
            client_secret=settings.client_secret.get_secret_value(),
            redirect_uri=self._redirect_url,
            api_url=api_url,
            clock=clock,
        )
        self._installations = Installations(
            cipher=Cipher(settings.encryption_key.get_secret_value().split(",")),
            grants=self._grants,
            install_url=self._install_url,
            clock=clock,
        )
        self._shelf: Shelf | None = None

    @property
    def paths(self) -> Sequence[str]:
        return (self._settings.install_path, self._settings.redirect_path)

    @property
    def workspaces(self) -> Workspaces:
        return self._installations

    def keep_on(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._installations.keep_on(shelf)

    async def respond(self, request: WebRequest) -> WebResponse:
        if request.method != "GET":
            return WebResponse(status=405, headers={"Allow": "GET"})
        if request.path == self._settings.install_path:
            return await self._offer(request)
        if request.path == self._settings.redirect_path:
            return await self._finish(request)
        return WebResponse(status=404)

    # There

    async def _offer(self, request: WebRequest) -> WebResponse:
        if not self._pace.now(OFFERS):
            return self._failed(
                429,
                "Too many at once",
                "Many people ask for this page just now. Wait a minute.",
                retry_after_s=60,
            )
        begun = await self._states.begin(request, self._on_shelf())
        page = oauth_pages.offer(self._authorize_url(begun.state), self._scopes)
        return replace(page, headers={**page.headers, "Set-Cookie": begun.cookie})

    def _authorize_url(self, state: str) -> str:
        query = {
            "client_id": self._settings.client_id,
            "scope": ",".join(self._scopes),
            "redirect_uri": self._redirect_url,
            "state": state,
        }
        # Beside the API: slack.com, slack-gov.com, or a stand-in of them.
        return f"{urljoin(self._api_url, '../oauth/v2/authorize')}?{urlencode(query)}"

    # And back

    async def _finish(self, request: WebRequest) -> WebResponse:
        state = await self._states.end(request, self._on_shelf())
        if "error" in request.query:
            return self._not_allowed(request.query["error"])
        if state == "over":
            return self._failed(
                400,
                "This attempt is over",
                "It took longer than ten minutes, or it was finished already.",
            )
        if state == "elsewhere":
            return self._failed(
                400,
                "This was begun in another browser",
                "Begin and finish in the same browser, with cookies allowed.",
            )
        code = request.query.get("code", "")
        if not 0 < len(code) <= LONGEST_CODE:
            return self._failed(
                400, "Something is missing", "Slack sent you back without a code."
            )
        return await self._in_time(code)

    def _not_allowed(self, error: str) -> WebResponse:
        if error == DENIED:
            return self._failed(
                200, "The bot was not added", "You cancelled it. Nothing has changed."
            )
        # Anybody can write anything into this address, so it is not quoted.
        return self._failed(
            400, "The bot was not added", "Slack says that it could not be done."
        )

    async def _in_time(self, code: str) -> WebResponse:
        """
        Exchange the code in a task of its own: it is spent when Slack answers, which
        may be after the browser's time is up.
        """
        installing = asyncio.create_task(self._install(code))
        self._installing.add(installing)
        installing.add_done_callback(self._is_over)
        await asyncio.wait({installing}, timeout=self._patience_s)
        if installing.done():
            return installing.result()
        return self._failed(
            202,
            "Slack takes its time",
            "The bot should be in your workspace in a moment. If it is not there after "
            "a minute, add it once more.",
        )

    def _is_over(self, installing: asyncio.Task[WebResponse]) -> None:
        self._installing.discard(installing)
        error = None if installing.cancelled() else installing.exception()
        if error is not None:
            logger.error("slack: an installation was not kept: %s", place_of(error))

    async def _install(self, code: str) -> WebResponse:
        try:
            granted = await self._grants.first(code)
        except NoGrant as error:
            logger.warning("slack: an installation failed: %s", error.reason)
            return self._failed(
                502,
                "The bot was not added",
                "Slack did not confirm it. Try again; if it happens twice, tell "
                f"whoever runs the bot: {error.reason}.",
            )
        await self._installations.keep(granted.installation)
        logger.info("slack: installed in %s", granted.installation.account)
        return oauth_pages.installed(
            granted.name, self._next_url(granted), organisation=granted.organisation
        )

    def _next_url(self, granted: Granted) -> str:
        account = granted.installation.account
        if granted.organisation:
            # https://api.slack.com/enterprise/apps/reference
            return (
                f"https://app.slack.com/manage/{quote(account, safe='')}/integrations/"
                f"profile/{quote(granted.app, safe='')}/workspaces/add"
            )
        query = urlencode({"app": granted.app, "team": account})
        return f"{urljoin(self._api_url, '../app_redirect')}?{query}"

    def _failed(
        self, status: int, title: str, told: str, *, retry_after_s: int | None = None
    ) -> WebResponse:
        return oauth_pages.failed(
            status, title, told, again=self._install_url, retry_after_s=retry_after_s
        )

    def _on_shelf(self) -> Shelf:
        assert self._shelf is not None  # noqa: S101 (keep_on comes before respond)
        return self._shelf
