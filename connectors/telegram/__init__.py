"""
Telegram: a bot in private chats, groups and their topics.

By polling, which needs nothing but a token, or by a webhook. The client library loads
with the first call: to list the plugins needs no Telegram. Knows nothing about how
replies come about.
"""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bot import hookimpl
from bot.errors import ConfigError
from bot.interfaces import (
    Accepted,
    Connector,
    Delivery,
    Finding,
    Shelf,
    WebRequest,
    WebResponse,
)
from bot.model import Address, Event, Reply, Sent

if TYPE_CHECKING:
    from connectors.telegram.service import Hook, Service

_IN_SECRETS = frozenset(string.ascii_letters + string.digits + "_-")
_LONGEST_SECRET = 256
_LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")


class Telegram:
    """Talks with people on Telegram."""

    name = "telegram"
    # There is no way to ask whether a message arrived, and whoever sends it again then
    # sends up to nine copies: a reply of which nobody knows is not sent again.
    delivery: Delivery = "at_most_once"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        token: SecretStr = Field(description="the bot's token, from @BotFather")
        mode: Literal["polling", "webhook"] = Field(
            "polling",
            description="polling asks for updates; with webhook Telegram brings them",
        )
        url: str | None = Field(
            None,
            max_length=1000,
            description="webhook: this program's public address, https://…",
        )
        path: str = Field(
            "/telegram/webhook",
            min_length=2,
            max_length=200,
            description="webhook: where below `url` updates are brought",
        )
        secret_token: SecretStr | None = Field(
            None,
            description="webhook: 1 to 256 of A-Z, a-z, 0-9, _ and -, by which "
            "Telegram is known",
        )
        api_url: str = Field(
            "https://api.telegram.org",
            max_length=1000,
            description="where the Bot API answers; another one for a server of yours",
        )
        feedback: bool = Field(
            default=True,
            description="whether replies have a thumbs-up and a thumbs-down",
        )

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        problems = _problems(settings)
        if problems:
            raise ConfigError(problems)
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._shelf: Shelf | None = None
        self._opened: Service | None = None

    @hookimpl
    def connectors(self) -> list[Connector]:
        return [self]

    @hookimpl
    async def bot_stopped(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def keep_on(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @property
    def paths(self) -> Sequence[str]:
        return [self._settings.path] if self._settings.mode == "webhook" else []

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        await self._service().run(accept)

    async def respond(self, request: WebRequest) -> WebResponse:
        return await self._service().respond(request)

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        return await self._service().send(address, reply, key)

    async def find(self, address: Address, key: str) -> Sent | None:
        return await self._service().find(key)

    async def status(self, address: Address, text: str) -> None:
        await self._service().status(address, text)

    async def frame(self, address: Address, text: str) -> None:
        await self._service().frame(address, text)

    async def inspect(self) -> Sequence[Finding]:
        from connectors.telegram import checks  # noqa: PLC0415 (loads the library)

        settings = self._settings
        is_webhook = settings.mode == "webhook"
        return await checks.inspected(
            token=_secret(settings.token),
            api_url=settings.api_url,
            webhook_url=_webhook_url(settings) if is_webhook else None,
        )

    def trouble(self) -> str | None:
        return None if self._opened is None else self._opened.trouble()

    def _service(self) -> Service:
        if self._opened is None:
            self._opened = self._a_service()
        return self._opened

    def _a_service(self) -> Service:
        from connectors.telegram import service  # noqa: PLC0415 (loads the library)

        # The core hands it over before anything else.
        assert self._shelf is not None, "keep_on was not called"  # noqa: S101
        settings = self._settings
        hook: Hook | None = None
        if settings.mode == "webhook":
            hook = service.Hook(
                url=_webhook_url(settings),
                path=settings.path,
                secret=_secret(settings.secret_token),
            )
        return service.Service(
            token=_secret(settings.token),
            api_url=settings.api_url,
            hook=hook,
            feedback=settings.feedback,
            shelf=self._shelf,
            clock=self._clock,
            sleep=self._sleep,
        )


def _problems(settings: Telegram.Settings) -> list[str]:
    """Return what is wrong with the settings, a sentence for each."""
    found = []
    bot, _, secret = _secret(settings.token).partition(":")
    if not (bot.isascii() and bot.isdigit() and _is_secret(secret)):
        found.append(
            "token: it does not look like one (123456789:AAE…); put the one there that "
            "@BotFather shows"
        )
    if not settings.api_url.startswith(("https://", *_LOOPBACK)):
        found.append(
            f"api_url: {settings.api_url!r} is not https://…; the token would be "
            "readable on the way"
        )
    if settings.mode == "webhook":
        found += _webhook_problems(settings)
    elif settings.url or settings.secret_token:
        found.append(
            "mode: it is polling, but url or secret_token is given; say mode: webhook, "
            "or leave them out"
        )
    return [f"plugin 'telegram': settings.{problem}" for problem in found]


def _webhook_problems(settings: Telegram.Settings) -> list[str]:
    found = []
    if not (settings.url or "").startswith("https://"):
        found.append(
            f"url: {settings.url!r} is not https://…; Telegram brings updates to "
            "nothing else"
        )
    if not settings.path.startswith("/"):
        found.append(f"path: {settings.path!r} has to begin with a slash")
    if settings.secret_token is None:
        found.append(
            "secret_token: a webhook needs one, else anybody can speak for your "
            "customers; take what `openssl rand -hex 32` prints, as {env: NAME}"
        )
    elif not _is_secret(_secret(settings.secret_token)):
        found.append(
            "secret_token: Telegram takes 1 to 256 of A-Z, a-z, 0-9, _ and -; take "
            "what `openssl rand -hex 32` prints"
        )
    return found


def _webhook_url(settings: Telegram.Settings) -> str:
    return f"{(settings.url or '').rstrip('/')}{settings.path}"


def _is_secret(text: str) -> bool:
    return 1 <= len(text) <= _LONGEST_SECRET and _IN_SECRETS.issuperset(text)


def _secret(given: SecretStr | None) -> str:
    return "" if given is None else given.get_secret_value()
