"""What the tests of many workspaces share: an app, a browser, and shelves that fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from html import unescape
from html.parser import HTMLParser
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from bot.errors import StoreError
from bot.interfaces import Shelf, WebRequest, WebResponse
from connectors.slack.cipher import Cipher
from connectors.slack.grants import Grants, Installation
from connectors.slack.installations import Installations
from connectors.slack.oauth import OAuth, OAuthSettings
from tests.connectors.slack.service import SlackService

KEY = "a2V5LW9uZS1rZXktb25lLWtleS1vbmUta2V5LW9uZS4="
NEWER_KEY = "a2V5LXR3by1rZXktdHdvLWtleS10d28ta2V5LXR3by4="
SITE = "https://bot.example.com"
INSTALL, REDIRECT = "/slack/install", "/slack/oauth_redirect"
SOME_SCOPES = ("app_mentions:read", "chat:write", "im:history")
NOW = 1_790_000_000.0
HOUR_S = 3600.0


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def some_settings(**changed: object) -> OAuthSettings:
    written = {
        "client_id": "11.22",
        "client_secret": "client-secret",
        "encryption_key": KEY,
        "url": SITE,
        **changed,
    }
    return OAuthSettings.model_validate(written)


def an_app(
    slack: SlackService,
    shelf: Shelf,
    *,
    clock: Callable[[], float] | None = None,
    patience_s: float = 10.0,
    **settings: object,
) -> OAuth:
    app = OAuth(
        some_settings(**settings),
        api_url=slack.url,
        scopes=SOME_SCOPES,
        clock=clock or Clock(),
        patience_s=patience_s,
    )
    app.keep_on(shelf)
    return app


def some_installations(
    slack: SlackService, shelf: Shelf, clock: Callable[[], float], *keys: str
) -> Installations:
    """Another process's view of the same shelf."""
    made = Installations(
        cipher=Cipher(keys or [KEY]),
        grants=Grants(
            client_id="11.22",
            client_secret="client-secret",  # noqa: S106 (of a stand-in)
            redirect_uri=SITE + REDIRECT,
            api_url=slack.url,
            clock=clock,
        ),
        install_url=SITE + INSTALL,
        clock=clock,
    )
    made.keep_on(shelf)
    return made


def an_installation(slack: SlackService, team: str = "T2") -> Installation:
    """What there is after somebody pressed Allow and the code was exchanged."""
    answer = slack.grants.access(
        {"code": slack.authorize(team)}, ("11.22", "client-secret")
    )
    ends_in = answer.get("expires_in")
    return Installation(
        account=team,
        bot_user=f"UBOT{team}",
        bot_id=f"BBOT{team}",
        token=answer["access_token"],
        refresh_token=answer.get("refresh_token", ""),
        ends_at=None if ends_in is None else NOW + ends_in,
    )


class Answers(Protocol):
    async def respond(self, request: WebRequest) -> WebResponse: ...


class Browser:
    """Remembers the cookie that it was given, and sends it along."""

    def __init__(self, app: Answers) -> None:
        self._app = app
        self.cookie = ""

    async def get(self, path: str, **query: str) -> WebResponse:
        headers = {"cookie": f"theme=dark; {self.cookie}"} if self.cookie else {}
        page = await self._app.respond(
            WebRequest(method="GET", path=path, query=query, headers=headers)
        )
        if "Set-Cookie" in page.headers:
            self.cookie = page.headers["Set-Cookie"].partition(";")[0]
        return page

    async def begin(self) -> str:
        """Open the page, and return the state that Slack's button carries."""
        return state_of(await self.get(INSTALL))

    async def finish(self, state: str, code: str) -> WebResponse:
        return await self.get(REDIRECT, state=state, code=code)

    async def install(self, slack: SlackService, team: str = "T2") -> WebResponse:
        return await self.finish(await self.begin(), slack.authorize(team))


def text_of(page: WebResponse) -> str:
    return page.body.decode()


def link_of(page: WebResponse) -> str:
    """Return where the page's button leads."""
    _, _, rest = text_of(page).partition('class="slack" href="')
    return unescape(rest.partition('"')[0])


def state_of(page: WebResponse) -> str:
    return parse_qs(urlsplit(link_of(page)).query)["state"][0]


class Tags(HTMLParser):
    """The tags of a page, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    @classmethod
    def of(cls, page: WebResponse) -> set[str]:
        parser = cls()
        parser.feed(text_of(page))
        return parser.found

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


class Unwell:
    """A shelf in front of another: the next calls of a method go wrong."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.failures: dict[str, int] = {}
        self.calls: list[str] = []

    async def get(self, name: str) -> bytes | None:
        self._come("get")
        return await self._shelf.get(name)

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        self._come("put")
        return await self._shelf.put(name, value, ttl_s=ttl_s, absent=absent)

    async def take(self, name: str) -> bytes | None:
        self._come("take")
        return await self._shelf.take(name)

    async def remove(self, name: str) -> None:
        self._come("remove")
        await self._shelf.remove(name)

    def lock(self, name: str, ttl_s: float) -> AbstractAsyncContextManager[None]:
        return self._shelf.lock(name, ttl_s)

    def _come(self, method: str) -> None:
        self.calls.append(method)
        if self.failures.get(method, 0) > 0:
            self.failures[method] -= 1
            raise StoreError("Redis at 'redis://127.0.0.1' does not answer")
