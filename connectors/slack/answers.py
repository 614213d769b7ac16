"""
Answers: the address that Slack gives with a command for replying where the bot is not.

A response_url comes from outside and is posted to, so it is used only where it is one
of Slack's own, and a redirect is not followed. It works for half an hour, five times.
Knows neither commands nor how a reply is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bot.interfaces import Shelf
from bot.model import Address

KEPT_S = 30 * 60.0
SLACKS_OWN = ("https", "hooks.slack.com", None)

Post = Callable[[str, Mapping[str, Any]], Awaitable[None]]


class Answers:
    """
    The latest such address of each conversation. `api_url` is Slack's Web API: what
    answers there may be answered to, so that a stand-in is enough for tests.
    """

    def __init__(self, shelf: Shelf, post: Post, api_url: str) -> None:
        self._shelf = shelf
        self._post = post
        self._ours = {SLACKS_OWN, _origin(api_url)}

    async def keep(self, address: Address, url: str) -> None:
        if _origin(url) in self._ours:
            await self._shelf.put(_name(address), url.encode(), ttl_s=KEPT_S)

    async def answer(self, address: Address, message: Mapping[str, Any]) -> bool:
        """Post a message there; False where there is no such address (any more)."""
        url = await self._shelf.get(_name(address))
        if url is None:
            return False
        await self._post(url.decode(), message)
        return True


def _name(address: Address) -> str:
    return f"answer {address.key}"


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Return scheme, host and port; None where it is no address of that kind."""
    if not url.isascii() or any(mark in url for mark in "\\@ \t\r\n"):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port
